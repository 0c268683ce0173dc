import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from epitaxy.curation.frames import FrameChecker, FrameChecks
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method
from epitaxy.errors import EntryError, MissingDependencyError


def silicon(**changes: object) -> Entry:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=1)
    parts: dict[str, object] = {
        "numbers": atoms.numbers.astype(np.uint8),
        "positions": atoms.positions.copy(),
        "cell": atoms.cell.array.copy(),
        "pbc": np.ones(3, dtype=bool),
        "targets": {"energy": np.float64(-43.0), "forces": np.zeros((8, 3))},
        "id": "si",
    }
    return Entry(**{**parts, **changes})  # type: ignore[arg-type]


def reason(entry: Entry, **checks: object) -> str | None:
    return FrameChecker(FrameChecks(**checks)).reason_against(entry)  # type: ignore[arg-type]


def test_a_good_frame_passes():
    assert reason(silicon()) is None


def coincident() -> np.ndarray:
    positions = silicon().positions.copy()
    positions[1] = positions[0] + [0.05, 0, 0]
    return positions


def across_the_boundary() -> np.ndarray:
    positions = silicon().positions.copy()
    positions[1] = positions[0] + silicon().cell.sum(axis=0) + [0, 0.03, 0]
    return positions


NAN = np.full((8, 3), np.nan)
FLAT = np.array([[5.43, 0, 0], [0, 5.43, 0], [5.43, 5.43, 0]])


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (silicon(targets={}), "energy missing"),
        (silicon(targets={"energy": np.float64("nan")}), "energy not finite"),
        (silicon(targets={"energy": np.float64("-inf")}), "energy not finite"),
        (silicon(targets={"energy": np.float64(-1e9)}), "|energy| > 1e+06 eV/atom"),
        (silicon(targets={"energy": np.zeros(2)}), "energy of the wrong shape, not ()"),
        (silicon(targets={"energy": np.float64(0), "forces": NAN}), "forces not finite"),
        (
            silicon(targets={"energy": np.float64(0), "forces": np.zeros((7, 3))}),
            "forces of the wrong shape, not (n_atoms, 3)",
        ),
        (
            silicon(targets={"energy": np.float64(0), "forces": np.full((8, 3), 90.0)}),
            "|F| > 100 eV/Å",
        ),
        (
            silicon(targets={"energy": np.float64(0), "stress": np.zeros(9)}),
            "stress of the wrong shape, not (6,)",
        ),
        (silicon(positions=NAN), "positions not finite"),
        (silicon(positions=np.zeros((9, 3))), "positions of the wrong shape (9, 3), not (8, 3)"),
        (silicon(positions=coincident()), "atoms closer than 0.1 Å"),
        (silicon(positions=across_the_boundary()), "atoms closer than 0.1 Å"),
        (silicon(cell=FLAT), "periodic cell of zero volume"),
        (silicon(cell=np.zeros((3, 3))), "a periodic direction without a cell vector"),
        (silicon(numbers=np.zeros(8, dtype=np.uint8)), "atomic numbers outside 1 to 118"),
        (silicon(numbers=np.zeros(0, dtype=np.uint8)), "no atoms"),
    ],
)
def test_unusable_frames_are_told_apart(entry, expected):
    assert reason(entry) == expected


def test_limits_can_be_moved():
    strong = silicon(targets={"energy": np.float64(0), "forces": np.full((8, 3), 90.0)})
    assert reason(strong, max_force=None) is None
    assert reason(silicon(positions=coincident()), min_distance=0.01) is None
    assert reason(silicon(targets={}), require=()) is None
    assert reason(silicon(), require=("energy", "stress")) == "stress missing"


def test_a_property_stands_in_for_the_energy_where_that_is_allowed():
    gap, charges = {"band_gap": np.float64(1.1)}, {"charges": np.zeros(8)}
    assert reason(silicon(targets=gap)) == "energy missing"
    assert reason(silicon(targets=gap), or_property=True) is None
    assert reason(silicon(targets=charges), or_property=True) == "energy missing"
    assert reason(silicon(targets={}), or_property=True) == "energy missing"


@pytest.mark.parametrize(
    "atoms",
    [
        molecule("C6H6"),
        Atoms("He"),
        bulk("Cu"),
        Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]], cell=[3, 0, 0], pbc=[True, False, False]),
        bulk("Cu") * (1, 1, 40),
    ],
)
def test_molecules_wires_and_small_cells_pass(atoms):
    assert reason(Entry.from_atoms(atoms, targets={"energy": 0.0})) is None


def test_wires_are_periodic_only_along_their_axis():
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 2.98]], cell=[3, 3, 3], pbc=[True] * 3)
    entry = Entry.from_atoms(atoms, targets={"energy": 0.0})
    assert reason(entry) == "atoms closer than 0.1 Å"
    atoms.pbc = [True, True, False]
    assert reason(Entry.from_atoms(atoms, targets={"energy": 0.0})) is None


def test_duplicates_are_found_to_rounding_and_named():
    checker = FrameChecker()
    noise = 1e-9 * np.random.default_rng(0).normal(size=(8, 3))
    moved = silicon().positions + 0.01
    assert checker.reason_against(silicon()) is None
    assert checker.reason_against(silicon(id="again")) == "duplicate structure"
    assert checker.reason_against(silicon(positions=silicon().positions + noise)) is not None
    assert checker.reason_against(silicon(positions=moved)) is None


def test_the_same_structure_with_another_energy_is_a_conflict():
    checker = FrameChecker()
    assert checker.reason_against(silicon()) is None
    other = silicon(targets={"energy": np.float64(-42.0)})
    assert "another energy" in str(checker.reason_against(other))


def test_labels_that_are_lost_with_a_repeated_structure_are_named():
    """As where MP's moduli and Alexandria's heat capacities of one structure are merged."""
    checker = FrameChecker()
    assert checker.reason_against(silicon()) is None
    more = {**silicon().targets, "heat_capacity": np.float64(20.0), "stress": np.zeros(6)}
    lost = "structure seen before without heat_capacity, stress"
    assert checker.reason_against(silicon(targets=more)) == lost
    fewer = silicon(targets={"energy": np.float64(-43.0)})
    assert checker.reason_against(fewer) == "duplicate structure"


def test_two_levels_of_theory_are_no_duplicates():
    checker = FrameChecker()
    assert checker.reason_against(silicon(method=Method(xc_functional="PBE"))) is None
    assert checker.reason_against(silicon(method=Method(xc_functional="LDA"))) is None


def test_duplicates_may_be_kept():
    checker = FrameChecker(FrameChecks(duplicates=False))
    assert checker.reason_against(silicon()) is None
    assert checker.reason_against(silicon()) is None


@pytest.mark.parametrize("name", ["energy", "forces"])
def test_a_dataset_refuses_labels_that_are_no_numbers_and_names_the_entry(name):
    bad = silicon(
        targets={name: np.float64("nan") if name == "energy" else np.full((8, 3), np.inf)}, id="x#7"
    )
    with pytest.raises(EntryError, match=f"entry x#7: {name} is not finite .* leave a label out"):
        Dataset.from_entries([silicon(), bad])


def test_a_missing_scipy_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'epitaxy\[curation\]'"):
        reason(silicon())
    assert reason(silicon(), min_distance=0.0) is None


def test_a_repeated_structure_with_other_arrays_is_no_plain_duplicate():
    rng = np.random.default_rng(0)
    forces, stress = rng.normal(size=(8, 3)), 0.1 * rng.normal(size=6)
    first = {"energy": np.float64(-43.0), "forces": forces, "stress": stress}

    def said(**changes: np.ndarray) -> str | None:
        checker = FrameChecker(FrameChecks())
        assert checker.repeated(silicon(targets=first)) is None
        return checker.repeated(silicon(targets={**first, **changes}))

    assert said() == "duplicate structure"
    assert said(forces=forces.astype(np.float32)) == "duplicate structure"
    assert said(forces=-forces) == "structure seen before with other forces"
    assert said(forces=forces[::-1]) == "structure seen before with other forces"
    assert said(forces=forces + 0.02) == "structure seen before with other forces"
    assert said(stress=2 * stress) == "structure seen before with other stress"
    assert said(magmoms=np.ones(8)) == "structure seen before without magmoms"
    assert said(energy=np.float64(-42.0), forces=-forces) == (
        "structure seen before with another energy"
    )
