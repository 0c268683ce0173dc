"""Random ragged entries for the tests of every store, and entries to compare bit by bit."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from epitaxy.entry import Entry, Method, Origin

any_float = st.floats(width=64, allow_nan=True, allow_infinity=True)
finite = st.floats(width=64, allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
tag_names = st.sampled_from(["group", "a/b", "a.text", "Å:x", ""])


@st.composite
def entry_lists(draw: st.DrawFn, *, most: int = 7) -> list[Entry]:
    """Draw up to `most` entries of 0 to 5 atoms with gaps in labels and tags."""

    def arrays(shape: tuple[int, ...], elements: st.SearchStrategy[float] = finite) -> np.ndarray:
        return draw(npst.arrays(np.float64, shape, elements=elements))

    made = []
    for _ in range(draw(st.integers(0, most))):
        n_atoms = draw(st.integers(0, 5))
        targets = {}
        shapes = {"energy": (), "forces": (n_atoms, 3), "stress": (6,), "charges": (n_atoms,)}
        for name, shape in shapes.items():
            if draw(st.booleans()):
                targets[name] = arrays(shape)
        made.append(
            Entry(
                numbers=draw(npst.arrays(np.uint8, n_atoms)),
                positions=arrays((n_atoms, 3)),
                cell=arrays((3, 3), any_float),
                pbc=draw(npst.arrays(np.bool_, 3)),
                targets=targets,
                id=draw(texts),
                method=Method(xc_functional=draw(st.sampled_from(["PBE", "LDA", ""]))),
                origin=Origin(url=draw(texts)),
                tags=draw(st.dictionaries(tag_names, texts)),
            )
        )
    return made


def bits(entry: Entry) -> tuple[object, ...]:
    """Return everything that an entry holds, arrays as their bytes."""
    arrays = [entry.numbers, entry.positions, entry.cell, entry.pbc]
    return (
        *(np.asarray(array).tobytes() for array in arrays),
        {name: np.asarray(value).tobytes() for name, value in entry.targets.items()},
        (entry.id, entry.method, entry.origin, dict(entry.tags)),
    )


def entries(n: int = 30, *, offset: float = 0.0) -> list[Entry]:
    """Return n entries of 1 to 8 atoms, always the same ones."""
    rng = np.random.default_rng(1)
    made = []
    for i in range(n):
        k = int(rng.integers(1, 9))
        made.append(
            Entry(
                numbers=rng.integers(1, 90, k).astype(np.uint8),
                positions=rng.normal(size=(k, 3)),
                cell=np.eye(3) * 5,
                pbc=np.ones(3, dtype=bool),
                targets={"energy": np.float64(i + offset), "forces": rng.normal(size=(k, 3))},
                id=f"some-{i}",
                method=Method(xc_functional="PBE"),
                origin=Origin(license="CC-BY-4.0"),
                tags={"group": "ab"[i % 2]},
            )
        )
    return made
