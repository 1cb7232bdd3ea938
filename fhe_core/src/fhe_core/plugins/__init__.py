"""Built-in packs: found by the same entry points and hooks as a stranger's, each blockable."""
