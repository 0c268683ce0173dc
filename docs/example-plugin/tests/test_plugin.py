"""The plugin keeps the rules of epitaxy, and its model learns what its source teaches."""

from pathlib import Path

import pytest

from epitaxy import Dataset, Registry, Run, Spec, TrainingOptions, split_random
from epitaxy.testing import Check, checks_for


@pytest.mark.parametrize("check", checks_for("rare-gas"), ids=str)
def test_conformance(check: Check) -> None:
    """Every rule, one test each."""
    check()


def test_the_pair_potential_learns_argon(tmp_path: Path) -> None:
    """Forces on unseen structures are predicted to a tenth of their size."""
    registry = Registry.from_entry_points()
    dataset = Dataset.from_entries(registry.build("source", {"use": "argon", "n_structures": 60}))
    split = split_random(dataset, valid=0.2, test=0.2, seed=0)
    run = Run(tmp_path, training=TrainingOptions(epochs=150, batch_size=4, lr=0.02))
    strategy = registry.build("strategy", "direct")
    model = strategy(Spec("pair-potential"), split, run=run)

    predictions = model.predict(split.test)
    forces, _ = split.test.target("forces")
    error = abs(predictions.mean["forces"] - forces).mean()
    assert error < 0.1 * abs(forces).mean()
