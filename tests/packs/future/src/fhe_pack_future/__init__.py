"""A pack for a core that is not out yet: its requirement is to keep it from being imported."""

raise RuntimeError("a pack of the future was imported")
