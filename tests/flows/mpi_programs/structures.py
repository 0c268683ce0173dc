"""Ragged random datasets, the same on every rank, for the programs of this folder."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method, Origin

finite = st.floats(width=64, allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)


def ragged(n: int, *, seed: int = 0, most_atoms: int = 12) -> Dataset:
    """Structures of 0 to most_atoms atoms; some labels, tags and ids are missing."""
    rng = np.random.default_rng(seed)
    entries = []
    for i in range(n):
        n_atoms = int(rng.integers(0, most_atoms + 1))
        targets = {}
        if i % 3:
            targets["energy"] = rng.normal()
        if i % 4:
            targets["forces"] = rng.normal(size=(n_atoms, 3))
        if i == n - 1:
            targets["stress"] = rng.normal(size=6)
        entries.append(
            Entry(
                numbers=rng.integers(1, 95, n_atoms).astype(np.uint8),
                positions=rng.normal(size=(n_atoms, 3)),
                cell=rng.normal(size=(3, 3)),
                pbc=rng.random(3) < 0.5,
                targets=targets,
                id=f"ä{i}" * (i % 4),
                method=Method(xc_functional=("PBE", "LDA", "r2SCAN")[3 * i // max(n, 1)]),
                origin=Origin(url=f"https://example.org/{i}"),
                tags={"group": f"g{i % 5}"} if i % 2 else {},
            )
        )
    return Dataset.from_entries(entries, history=[{"operation": "made", "seed": seed}])


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """Any dataset of up to 9 structures."""
    entries = []
    for _ in range(draw(st.integers(0, 9))):
        n_atoms = draw(st.integers(0, 5))
        targets = {}
        for name, shape in {"energy": (), "forces": (n_atoms, 3), "stress": (6,)}.items():
            if draw(st.booleans()):
                targets[name] = draw(npst.arrays(np.float64, shape, elements=finite))
        entries.append(
            Entry(
                numbers=draw(npst.arrays(np.uint8, n_atoms)),
                positions=draw(npst.arrays(np.float64, (n_atoms, 3), elements=finite)),
                cell=draw(npst.arrays(np.float64, (3, 3), elements=finite)),
                pbc=draw(npst.arrays(np.bool_, 3)),
                targets=targets,
                id=draw(texts),
                method=Method(xc_functional=draw(st.sampled_from(["PBE", "LDA", ""]))),
                origin=Origin(url=draw(texts)),
                tags=draw(st.dictionaries(st.sampled_from(["group", "a/b", ""]), texts)),
            )
        )
    return Dataset.from_entries(entries)


def bits(entry: Entry) -> tuple[object, ...]:
    """Everything that an entry says, floating point numbers as bytes."""
    arrays = [entry.numbers, entry.positions, entry.cell, entry.pbc]
    return (
        *(np.asarray(array).tobytes() for array in arrays),
        {name: np.asarray(value).tobytes() for name, value in entry.targets.items()},
        (entry.id, entry.method, entry.origin, dict(entry.tags)),
    )


def check_same(found: Dataset, expected: Dataset) -> None:
    """Every entry, and the summary, agree to the last bit."""
    assert [bits(entry) for entry in found] == [bits(entry) for entry in expected]
    assert found.digest == expected.digest
    assert found.history == expected.history
    assert found.targets == expected.targets
