"""``python -m fhe_core`` is ``fhe-ops``."""

from __future__ import annotations

from fhe_core.cli import main

if __name__ == "__main__":
    main()
