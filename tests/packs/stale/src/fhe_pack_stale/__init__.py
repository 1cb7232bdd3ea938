"""A pack for a core of long ago: its requirement is to keep it from being imported."""

raise RuntimeError("a stale pack was imported")
