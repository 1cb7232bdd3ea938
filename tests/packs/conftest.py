"""The packs' own tests need them installed: tests/packaging runs them in a fresh environment."""

collect_ignore_glob = ["*/tests/*"]
