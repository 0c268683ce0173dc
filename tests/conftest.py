"""Fixtures that several test files use."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BROKEN_PLUGINS = Path(__file__).parent / "core" / "broken_plugins"


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that installs modules as a distribution, as pip would."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def install(*modules: str, distribution: str = "stranger", **texts: str) -> Path:
        """Install modules of broken_plugins/, and modules given as text; each is a plugin."""
        names = [*modules, *texts]
        for module in modules:
            shutil.copy(BROKEN_PLUGINS / f"{module}.py", site)
        for module, text in texts.items():
            (site / f"{module}.py").write_text(text)
        record = site / f"{distribution}-0.1.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n"
        )
        lines = [f"{name.replace('_', '-')} = {name}" for name in names]
        (record / "entry_points.txt").write_text("\n".join(["[epitaxy.plugins]", *lines, ""]))
        monkeypatch.setenv("PYTHONPATH", str(site))  # for programs that a test starts
        for name in names:  # a module of an earlier test must not be found instead
            monkeypatch.delitem(sys.modules, name, raising=False)
        return site

    return install
