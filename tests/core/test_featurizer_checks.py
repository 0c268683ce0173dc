"""The conformance checks of featurizers find what is wrong."""

from collections.abc import Mapping

import numpy as np
import pytest

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.testing.featurizer_checks import featurizer_checks


class Volume:
    """A featurizer that is right; `fault` makes it wrong."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.n_calls = 0
        self.mean = 0.0

    def fit(self, dataset: Dataset) -> None:
        self.mean = float(dataset.n_atoms.mean())

    def __call__(self, entry: Entry) -> Mapping[str, np.ndarray]:
        self.n_calls += 1
        n = {"shape": len(entry)}.get(self.fault, 1)
        value = {
            "nan": np.nan,
            "count": float(self.n_calls),
            "place": float(entry.positions.sum()),
        }.get(self.fault, len(entry) / self.mean)
        return {"size": np.full(n, value)}

    def state(self) -> Mapping[str, np.ndarray]:
        return {"mean": np.array(self.mean)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.mean = float(state["mean"]) + (self.fault == "state")

    def matrix(self, dataset: Dataset) -> np.ndarray:
        rows = [self(entry)["size"] for entry in dataset]
        return np.array(rows) + (self.fault == "matrix")


def failures(fault: str) -> dict[str, str]:
    found = {}
    for check in featurizer_checks(lambda: Volume(fault)):
        outcome, reason = check.outcome()
        if outcome != "passed":
            found[check.name.removeprefix("featurizer: ")] = reason
    return found


def test_a_good_featurizer_passes() -> None:
    assert failures("") == {}


@pytest.mark.parametrize(
    ("fault", "check", "reason"),
    [
        ("shape", "gives finite arrays of the same shapes for every entry", "shape (4,)"),
        ("nan", "gives finite arrays of the same shapes for every entry", "not finite"),
        ("count", "gives the same features each time", "another second time"),
        ("place", "nothing changes with a translation", "features after a translation differs"),
        ("matrix", "what the matrix says is what each entry says", "matrix(dataset) differs"),
        ("state", "restoring its state gives the same features", "after restore(state())"),
    ],
)
def test_a_featurizer_with_one_fault_fails_the_check_for_it(
    fault: str, check: str, reason: str
) -> None:
    assert reason in failures(fault)[check]
