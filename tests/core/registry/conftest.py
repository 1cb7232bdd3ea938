"""Installed packs to test with, written to a folder on sys.path in place of pip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import dedent, indent

import pytest
from fhe_core.registry import PackInfo, Registry, current, load_registry

COMPATIBLE = "fhe-core>=0.1,<1"


class Site:
    """A site-packages of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: list[str] = []

    def add(
        self,
        name: str,
        ops: str = "",
        *,
        distribution: str | None = None,
        version: str = "1.0",
        requires: Sequence[str] = (COMPATIBLE,),
        source: str | None = None,
        value: str | None = None,
    ) -> str:
        """Installs a pack whose hook runs ``ops``, or whose module is ``source``.

        Its distribution is called ``NAME-ops``, its module likewise, with underscores.
        Returns the module's name.
        """
        distribution = distribution or f"{name}-ops"
        module = distribution.replace("-", "_")
        body = dedent(ops).strip() or "pass"
        hook = "import fhe_core\n\n@fhe_core.hookimpl\ndef fhe_register_ops(registry):\n"
        text = hook + indent(body, "    ") + "\n" if source is None else dedent(source)
        (self.folder / f"{module}.py").write_text(text)
        self.modules.append(module)
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        entry = f"[fhe_core.packs]\n{name} = {value or module}\n"
        (info / "entry_points.txt").write_text(entry)
        return module

    def load(self, *, prefer: Mapping[str, str] | None = None) -> Registry:
        """A fresh registry of these packs."""
        return load_registry(prefer=prefer)

    def pack(self, name: str) -> PackInfo:
        """What became of one pack in a fresh registry."""
        (info,) = (pack for pack in self.load().packs() if pack.name == name)
        return info

    def run(self, code: str, **environment: str) -> str:
        """What a fresh Python process that sees these packs prints."""
        path = os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH"))))
        result = subprocess.run(
            [sys.executable, "-c", dedent(code)],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture(autouse=True)
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has loaded no packs; the real ones, if installed, are not what is tested."""
    monkeypatch.setattr(current, "_packs", None)
    monkeypatch.setattr(current, "_registries", {})
    monkeypatch.setattr(current, "_warned", set())
    for variable in ("FHE_PACKS", "FHE_PACKS_STRICT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FHE_PACKS_BLOCK", "fhe-core,fhe-ops-std,fhe-ops-contrib")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    site = Site(folder)
    yield site
    for module in site.modules:
        sys.modules.pop(module, None)
