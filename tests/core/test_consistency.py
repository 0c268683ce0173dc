"""Labels of an exact model (EMT and Lennard-Jones of ASE), broken on purpose."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from epitaxy.curation.consistency import check_consistency
from epitaxy.curation.conventions import STRESS_ORDERS, Conventions
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import ConsistencyError, DataError, EntryError

Targets = dict[str, np.ndarray]


@cache
def metal() -> tuple[Entry, ...]:
    """Copper-gold cells of two sizes, rattled in one cell and strained."""
    rng = np.random.default_rng(3)
    entries = []
    for i in range(60):
        atoms = bulk("Cu", cubic=True) * ((2, 1, 1) if i % 3 else (2, 2, 1))
        atoms.symbols[0] = "Au"
        atoms.symbols[::4] = "Au"
        if i % 2:
            shear = rng.normal(scale=0.012, size=(3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + shear), scale_atoms=True)
        else:
            atoms.positions += rng.normal(scale=0.06, size=atoms.positions.shape)
        atoms.calc = EMT()
        targets = {
            "energy": atoms.get_potential_energy() - 3.0 * len(atoms),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        entries.append(Entry.from_atoms(atoms, targets=targets, id=f"metal#{i}"))
    return tuple(entries)


@cache
def molecules() -> tuple[Entry, ...]:
    """Turned and shaken molecules without a cell."""
    rng = np.random.default_rng(4)
    entries = []
    for i in range(40):
        atoms = molecule("CH3CH2OH")
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        atoms.rotate(rng.uniform(0, 360), rng.normal(size=3))
        atoms.calc = EMT()
        targets = {"energy": atoms.get_potential_energy() - 50, "forces": atoms.get_forces()}
        entries.append(Entry.from_atoms(atoms, targets=targets, id=f"ethanol#{i}"))
    return tuple(entries)


def broken(
    entries: tuple[Entry, ...], change: Callable[[Entry, Mapping[str, np.ndarray]], Targets]
) -> Dataset:
    return Dataset.from_entries(
        replace(entry, targets={**entry.targets, **change(entry, entry.targets)})
        for entry in entries
    )


@pytest.mark.parametrize("entries", [metal, molecules])
def test_right_labels_raise_no_alarm(entries):
    report = check_consistency(Dataset.from_entries(entries()))
    assert {f.label: f.verdict for f in report.findings if f.label != "energy"} == {
        name: "consistent" for name in entries()[0].targets if name != "energy"
    }
    report.raise_if_inconsistent()
    for finding in report.findings:
        if finding.label != "energy":  # two sizes are too few to judge energies
            assert finding.slope == pytest.approx(1, abs=0.1)
        assert finding.n_pairs > 0


VASP = [0, 1, 2, 5, 3, 4]
CASES: dict[str, tuple[Callable[[Entry, Mapping[str, np.ndarray]], Targets], str]] = {
    "sign of forces": (lambda e, t: {"forces": -t["forces"]}, "--forces-are-gradients"),
    "forces in eV/Bohr": (
        lambda e, t: {"forces": t["forces"] * units.Bohr},
        "--forces-unit eV/Bohr",
    ),
    "forces in Hartree/Bohr": (
        lambda e, t: {"forces": t["forces"] * units.Bohr / units.Hartree},
        "--forces-unit Hartree/Bohr",
    ),
    "forces in kcal/mol/Å": (
        lambda e, t: {"forces": t["forces"] * units.mol / units.kcal},
        "--forces-unit kcal/mol/Å",
    ),
    "energy per atom": (lambda e, t: {"energy": t["energy"] / len(e)}, "--energy-per-atom"),
    "energy in Hartree": (
        lambda e, t: {"energy": t["energy"] / units.Hartree},
        "--energy-unit Hartree",
    ),
    "energy in Ry": (lambda e, t: {"energy": t["energy"] / units.Ry}, "--energy-unit Ry"),
    "energy in kcal/mol": (
        lambda e, t: {"energy": t["energy"] * units.mol / units.kcal},
        "--energy-unit kcal/mol",
    ),
    "sign of stress": (lambda e, t: {"stress": -t["stress"]}, "--stress-is-pressure"),
    "VASP's order": (lambda e, t: {"stress": t["stress"][VASP]}, "--stress-order vasp"),
    "kbar": (lambda e, t: {"stress": t["stress"] / units.GPa * 10}, "--stress-unit kbar"),
    "GPa": (lambda e, t: {"stress": t["stress"] / units.GPa}, "--stress-unit GPa"),
    "all of VASP": (
        lambda e, t: {"stress": -t["stress"][VASP] / units.GPa * 10},
        "--stress-unit kbar --stress-order vasp --stress-is-pressure",
    ),
    "virial": (
        lambda e, t: {"stress": -t["stress"] * abs(np.linalg.det(e.cell))},
        "--stress-unit eV --stress-is-pressure --stress-is-virial",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_label_is_named_and_its_remedy_mends_it(case):
    change, flags = CASES[case]
    dataset = broken(metal(), change)
    report = check_consistency(dataset)
    assert report.remedy.flags() == flags
    with pytest.raises(ConsistencyError, match=flags):
        report.raise_if_inconsistent()
    mended = Dataset.from_entries(report.remedy.apply(entry) for entry in dataset)
    assert not check_consistency(mended).inconsistent
    for entry, original in zip(mended, metal(), strict=True):
        for name, value in original.targets.items():
            assert entry.targets[name] == pytest.approx(value, rel=1e-6, abs=1e-12)


def test_a_wrong_sign_is_found_in_molecules():
    report = check_consistency(broken(molecules(), lambda e, t: {"forces": -t["forces"]}))
    assert report.remedy == Conventions(forces_are_gradients=True)


def test_few_or_far_frames_give_no_verdict():
    few = check_consistency(Dataset.from_entries(metal()[:4]))
    assert {f.verdict for f in few.findings} == {"cannot tell"}
    far = broken(metal(), lambda e, t: {"forces": -t["forces"]})
    spread = Dataset.from_entries(
        replace(e, positions=e.positions + np.random.default_rng(i).normal(size=(len(e), 3)))
        for i, e in enumerate(far)
    )
    assert not check_consistency(spread).inconsistent


def test_noise_alone_gives_no_alarm():
    rng = np.random.default_rng(0)
    noisy = broken(
        metal(),
        lambda e, t: {
            "energy": t["energy"] + rng.normal(scale=0.002 * len(e)),
            "forces": t["forces"] + rng.normal(scale=0.05, size=t["forces"].shape),
            "stress": t["stress"] + rng.normal(scale=0.001, size=6),
        },
    )
    assert not check_consistency(noisy).inconsistent
    nonsense = broken(
        metal(),
        lambda e, t: {
            "forces": rng.normal(size=t["forces"].shape),
            "stress": rng.normal(size=6),
        },
    )
    assert not check_consistency(nonsense).inconsistent


def test_two_levels_of_theory_are_not_compared():
    from epitaxy.entry import Method

    shifted = [
        replace(
            entry,
            method=Method(xc_functional="PBE" if i % 4 < 2 else "LDA"),
            targets={**entry.targets, "energy": entry.targets["energy"] - 20 * (i % 4 < 2)},
        )
        for i, entry in enumerate(metal())
    ]
    report = check_consistency(Dataset.from_entries(shifted))
    assert not report.inconsistent


def test_a_dataset_without_energies_or_labels_is_left_alone():
    bare = Dataset.from_entries(replace(e, targets={}) for e in metal())
    assert check_consistency(bare).findings == ()
    forces = Dataset.from_entries(
        replace(e, targets={"forces": e.targets["forces"]}) for e in metal()
    )
    assert [f.verdict for f in check_consistency(forces).findings] == ["cannot tell"]


@pytest.mark.parametrize("order", STRESS_ORDERS)
def test_orders_of_stress_are_permutations(order):
    assert sorted(STRESS_ORDERS[order]) == list(range(6))


def test_vasp_order_is_converted():
    stored = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])  # xx yy zz xy yz zx
    mended = Conventions(stress_order="vasp").convert({"stress": stored}, n_atoms=1, volume=None)
    assert mended["stress"].tolist() == [1, 2, 3, 5, 6, 4]  # xx yy zz yz xz xy


def test_unknown_units_and_missing_volumes_are_named():
    with pytest.raises(DataError, match="energy_unit = 'erg' is not one of eV, meV"):
        Conventions(energy_unit="erg")
    entry = replace(molecules()[0], targets={"stress": np.zeros(6)})
    with pytest.raises(EntryError, match="ethanol#0: a virial needs"):
        Conventions(stress_is_virial=True).apply(entry)


def test_energies_of_the_wrong_sign_are_named_and_nothing_is_turned_by_itself():
    report = check_consistency(broken(metal(), lambda e, t: {"energy": -t["energy"]}))
    assert "energies have the wrong sign (or forces and stress both have)" in report.message()
    assert not report.remedy.changes
    both = broken(metal(), lambda e, t: {"forces": -t["forces"], "stress": -t["stress"]})
    assert "(or forces and stress both have)" in check_consistency(both).message()


def test_swapped_components_are_not_called_a_unit():
    swapped = broken(metal(), lambda e, t: {"forces": t["forces"][:, [1, 2, 0]]})
    report = check_consistency(swapped)
    assert not report.remedy.changes
    assert report.inconsistent or report.doubts


def test_two_sizes_are_too_few_for_a_verdict_on_energies():
    report = check_consistency(Dataset.from_entries(metal()))
    (energy,) = [f for f in report.findings if f.label == "energy"]
    assert energy.verdict == "cannot tell"
    assert energy.slope is None
    assert "1 pairs of sizes" in str(energy)


@cache
def breathing() -> tuple[Entry, ...]:
    """Copper whose cell and atoms move together, as at constant pressure, without stress."""
    rng = np.random.default_rng(11)
    entries = []
    for i in range(40):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        strain = rng.normal(scale=0.006, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.06, size=atoms.positions.shape)
        atoms.calc = EMT()
        targets = {"energy": atoms.get_potential_energy() - 28, "forces": atoms.get_forces()}
        entries.append(Entry.from_atoms(atoms, targets=targets, id=f"npt#{i}"))
    return tuple(entries)


def test_forces_are_judged_where_cells_vary_and_no_stress_is_given():
    right = check_consistency(Dataset.from_entries(breathing()))
    assert [f.verdict for f in right.findings] == ["consistent"]
    wrong = check_consistency(broken(breathing(), lambda e, t: {"forces": -t["forces"]}))
    assert wrong.remedy == Conventions(forces_are_gradients=True)
    few = check_consistency(Dataset.from_entries(breathing()[:7]))
    (finding,) = few.findings
    assert finding.verdict == "cannot tell"
    assert "differ in their cells and have no stress label" in str(finding)
