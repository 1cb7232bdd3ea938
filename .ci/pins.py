"""Print constraints.txt from the environment that runs this (`make constraints`)."""

import re
from importlib.metadata import distributions

HEADER = "# Exact versions of the development environment; `make constraints` writes this file."
OURS = {"fhe-core", "fhe-ops-std", "fhe-ops-contrib"}
OLDEST_PYTHON = (3, 10)

pins = {}
for dist in distributions():
    name = re.sub(r"[-_.]+", "-", dist.metadata["Name"]).lower()
    if name in OURS:
        continue
    # A local version ("+cpu") exists in one index only; the public one resolves everywhere.
    pin = f"{name}=={dist.version.partition('+')[0]}"
    minor = re.search(r">=\s*3\.(\d+)", dist.metadata["Requires-Python"] or "")
    if minor and int(minor[1]) > OLDEST_PYTHON[1]:
        pin += f' ; python_version >= "3.{minor[1]}"'
    pins[name] = pin
print(HEADER, *(pins[name] for name in sorted(pins)), sep="\n")
