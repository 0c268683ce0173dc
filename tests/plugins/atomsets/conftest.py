"""A small parent and small sets of formulas and structures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk

from epitaxy import Entry
from epitaxy.artifact import save_artifact
from epitaxy.composition import composition_entry
from epitaxy.dataset import Dataset
from epitaxy.property_model import PropertyModel
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.training.options import TrainingOptions

SALTS = [(a, b) for a in ("Li", "Na", "K", "Rb") for b in ("F", "Cl", "Br")]
RADIUS = {"Li": 0.9, "Na": 1.16, "K": 1.52, "Rb": 1.66, "F": 1.19, "Cl": 1.67, "Br": 1.82}


@pytest.fixture(scope="session")
def salts() -> Dataset:
    """Rock salts at several volumes; the target depends on elements and distance."""
    entries = []
    for a, b in SALTS:
        for k in range(4):
            d = (RADIUS[a] + RADIUS[b]) * (0.96 + 0.03 * k)
            energy = -4.0 / d + 2.0 * (0.03 * (k - 1)) ** 2
            entries.append(
                Entry.from_atoms(
                    bulk(a + b, "rocksalt", a=2 * d),
                    targets={"formation_energy": energy, "is_metal": float(k % 2)},
                    id=f"{a}{b}-{k}",
                )
            )
    return Dataset.from_entries(entries)


@pytest.fixture(scope="session")
def formulas() -> Dataset:
    """Mixed alkali halides without structures."""
    rng = np.random.default_rng(0)
    entries = []
    for k in range(60):
        (a, b), (c, d) = (SALTS[i] for i in rng.integers(0, len(SALTS), 2))
        x = float(rng.uniform(0.1, 0.9))
        value = x * RADIUS[a] * RADIUS[b] + (1 - x) * RADIUS[c] * RADIUS[d]
        formula = f"{a}{x:.3f}{b}{x:.3f}{c}{1 - x:.3f}{d}{1 - x:.3f}"
        entries.append(composition_entry(formula, targets={"band_gap": value}, id=f"mix-{k}"))
    return Dataset.from_entries(entries)


@pytest.fixture(scope="session")
def parent(salts: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MEGNet that has seen the salts for an epoch."""
    folder = tmp_path_factory.mktemp("parent")
    model = PropertyModel(body=Spec("graphs/megnet", {"cutoff": 4.0}), targets=["formation_energy"])
    with torch.random.fork_rng(devices=[]):
        run = Run(folder / "run", training=TrainingOptions(epochs=1))
        model.fit(salts, salts[:4], run=run)
    return save_artifact(model, folder / "artifact", run=run)


@pytest.fixture
def training() -> TrainingOptions:
    return TrainingOptions(
        epochs=60, batch_size=16, lr=3e-3, optimizer="adam", ema_decay=0.0, schedule="constant"
    )
