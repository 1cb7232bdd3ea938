"""Loading a pack is cheap: it brings in no compiler and no training framework."""

from __future__ import annotations

from fhe_core.testing.checks import Check, CheckFailed
from fhe_core.testing.checks.packaging import is_loaded
from fhe_core.testing.fresh import run_fresh
from fhe_core.testing.subject import Subject

#: What costs seconds and hundreds of megabytes, and what listing operators can do without.
HEAVY = ("concrete", "torch")

# An import is noticed where it is tried, so that this says the same where neither is installed.
_IMPORTS = """
import traceback
tried = {}
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in arguments["heavy"] and name not in tried:
            frames = traceback.extract_stack()[:-1]
            blamed = [f for f in frames if "importlib" not in f.filename and f.filename != "<string>"]
            tried[name] = [[f.filename, f.lineno, f.line] for f in blamed]
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)  # it is slow to import
sys.meta_path.insert(0, Watch())
import fhe_core
fhe_core.get_registry().ops()
print(json.dumps(tried))
"""


def _isolation(subject: Subject, case: str) -> None:
    tried = run_fresh(_IMPORTS, heavy=HEAVY, environment={"FHE_PACKS": subject.pack.name})
    for name, frames in tried.items():
        file, line, text = frames[-1] if frames else ("?", 0, "")
        raise CheckFailed(
            f"loading the pack imports {name}",
            expected=f"neither {' nor '.join(HEAVY)}",
            got=f"{file}:{line}: {text}",
            fix=f"import {name} inside the function that needs it; better, do without it",
        )


ISOLATION = Check(
    "isolation",
    f"loading the pack imports neither {' nor '.join(HEAVY)}.",
    _isolation,
    applies=is_loaded,
    scope="pack",
)

CHECKS = (ISOLATION,)
