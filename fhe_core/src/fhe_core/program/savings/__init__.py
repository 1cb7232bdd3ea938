"""What a finished program need not compute: passes that leave it out, each with a name and a report.

    known answers     look-ups with one answer for every input
    affine tables     look-ups that an unrounded accumulator can do without
    unread elements   look-ups that no output depends on
    shared look-ups   equal look-ups and duplicate channels, computed once and copied
    shared roundings  the same of exact roundings, which are look-ups too
    shared products   the same of products
    unread products   outputs of products that nothing reads
    silent neurons    look-ups with one answer on the calibration data      (not exact)
    padding bit       look-ups of half a table: nothing to do, they were planned so

Layout moves past a look-up when it is recorded, to the side that has fewer elements (`groups`). What a
look-up reads of copies, or what is dropped behind it, is found here: copies are equal, dropped is unread.
"""

from fhe_core.program.savings.passes import CHOICES, saved
from fhe_core.program.savings.saving import Saving, lookups

__all__ = ["CHOICES", "Saving", "lookups", "saved"]
