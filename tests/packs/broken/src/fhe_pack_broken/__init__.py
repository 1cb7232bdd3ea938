"""A pack that was published with a dependency missing."""

import fhe_core_example_that_nobody_has  # noqa: F401
