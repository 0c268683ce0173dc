"""Fixtures that several test files use."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

# One thread per process, for the programs that tests start too: the networks here are so small
# that threads which wait for each other take twelve times the time. Read when torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

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


@pytest.fixture(scope="session")
def make_metals() -> Callable[..., "Dataset"]:
    """Return a function that makes strained, rattled metal cells with labels of ASE's EMT."""
    import numpy as np
    from ase.build import bulk
    from ase.calculators.emt import EMT

    from epitaxy.dataset import Dataset
    from epitaxy.entry import Entry, Method

    def make(n: int = 24, *, elements: tuple[str, ...] = ("Cu", "Al"), seed: int = 0) -> Dataset:
        rng = np.random.default_rng(seed)
        entries = []
        for i in range(n):
            atoms = bulk(elements[0], "fcc", a=3.8, cubic=True)
            atoms.symbols[:] = rng.choice(elements, size=len(atoms))
            if i < len(elements):
                atoms.symbols[:] = elements[i]
            atoms.set_cell(
                atoms.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True
            )
            atoms.rattle(0.1, rng=rng)
            atoms.calc = EMT()
            targets = {
                "energy": atoms.get_potential_energy(),
                "forces": atoms.get_forces(),
                "stress": atoms.get_stress(),
            }
            group = "hot" if i % 3 else "cold"
            entries.append(
                Entry.from_atoms(
                    atoms,
                    targets=targets,
                    id=f"metal-{i}",
                    method=Method(code="ASE EMT"),
                    tags={"group": group},
                )
            )
        return Dataset.from_entries(entries)

    return make
