"""The integer program: what a ``q_impl`` records, and what every reader of it runs.

``nodes`` is the vocabulary, ``tensor`` records it, ``groups`` turns float arithmetic into look-ups,
``widths`` and ``tables`` make it concrete, ``interpreter`` runs it in NumPy, ``host`` is what the
client computes before encryption and after decryption.
"""
