"""Sets of which only a part is wrong: found, and the frames named."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT

from epitaxy.curation.consistency import check_consistency
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import ConsistencyError

DATA = Path(__file__).parents[3] / "shared" / "data"


@cache
def rattled() -> tuple[Entry, ...]:
    """Rattled copper of one cell and exact labels."""
    rng = np.random.default_rng(7)
    entries = []
    for i in range(40):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.positions += rng.normal(scale=0.06, size=atoms.positions.shape)
        atoms.calc = EMT()
        targets = {
            "energy": np.asarray(atoms.get_potential_energy() - 3.5 * len(atoms)),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        entries.append(Entry.from_atoms(atoms, targets=targets, id=f"cu#{i}"))
    return tuple(entries)


def changed(label: str, change: Callable[[np.ndarray], np.ndarray], *, every: int = 1) -> Dataset:
    """Rattled copper with a label changed in every so many frames, from the fourth on."""
    return Dataset.from_entries(
        replace(e, targets={**e.targets, label: change(e.targets[label])})
        if i % every == 3 % every
        else e
        for i, e in enumerate(rattled())
    )


@pytest.mark.parametrize("every", [2, 5, 20])
def test_frames_with_the_sign_of_forces_turned_are_named(every):
    report = check_consistency(changed("forces", lambda f: -f, every=every))
    with pytest.raises(ConsistencyError, match=r"in .* of 40 frames they have the wrong sign"):
        report.raise_if_inconsistent()
    if every > 2:  # a half has no majority
        assert "(cu#3, " in report.message()
        assert f"in {40 // every} of 40" in report.message()
    assert not report.remedy.changes  # no option mends a part


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("Hartree/Bohr", units.Hartree / units.Bohr),
        ("Ry/Bohr", units.Rydberg / units.Bohr),
        ("kcal/mol/Å", units.kcal / units.mol),
    ],
)
def test_forces_of_mixed_units_are_named(unit, factor):
    report = check_consistency(changed("forces", lambda f: f / factor, every=5))
    message = f"in [78] of 40 frames they look like {unit} .cu#3, cu#8"
    with pytest.raises(ConsistencyError, match=message):
        report.raise_if_inconsistent()


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("Hartree", units.Hartree), ("Ry", units.Rydberg), ("kcal/mol", units.kcal / units.mol)],
)
def test_energies_of_mixed_units_are_named(unit, factor):
    report = check_consistency(changed("energy", lambda e: e / factor, every=2))
    with pytest.raises(ConsistencyError, match=f"20 of 40 frames look like {unit}.*mixed units"):
        report.raise_if_inconsistent()
    few = check_consistency(changed("energy", lambda e: e / factor, every=20))
    with pytest.raises(ConsistencyError, match=rf"2 of 40 .* {unit}.*\(cu#3, cu#23\)"):
        few.raise_if_inconsistent()


def test_some_energies_per_atom_or_of_another_sign_are_named():
    per_atom = check_consistency(changed("energy", lambda e: e / 8, every=5))
    assert "8 of 40 frames are per atom" in per_atom.message()
    turned = check_consistency(changed("energy", lambda e: -e, every=5))
    assert "8 of 40 frames have the wrong sign (cu#3, cu#8" in turned.message()


@pytest.mark.parametrize("label", ["forces", "stress"])
def test_a_label_of_zeros_is_a_placeholder(label):
    report = check_consistency(changed(label, np.zeros_like))
    with pytest.raises(ConsistencyError, match=f"{label}: inconsistent: exactly zero in all 40"):
        report.raise_if_inconsistent()


@pytest.mark.parametrize("every", [2, 5, 10, 20])
def test_zero_forces_in_some_frames_are_placeholders(every):
    report = check_consistency(changed("forces", np.zeros_like, every=every))
    (finding,) = [f for f in report.inconsistent if f.label == "forces"]
    assert "exactly zero in" in finding.cause
    assert "placeholders" in finding.cause
    if every > 2:
        assert f"cu#{'13' if every < 20 else '3'}" in finding.cause


def test_some_frames_in_a_unit_near_ours_are_a_doubt():
    from epitaxy_benchmarks.silicon import SiliconSource

    entries = [
        replace(e, targets={**e.targets, "forces": e.targets["forces"] * units.Bohr})
        if i % 5 == 3
        else e
        for i, e in enumerate(SiliconSource(xc="PBE"))
    ]
    report = check_consistency(Dataset.from_entries(entries))
    assert not report.inconsistent
    (doubt,) = report.doubts
    assert "some frames are in another unit (eV/Bohr?) or of another sign, likely si-" in doubt


@pytest.mark.parametrize("factor", [-1.0, units.Bohr])
def test_odd_forces_of_few_near_frames_are_a_doubt(factor):
    from epitaxy_files.source import FileSource

    path = DATA / "metatrain_small" / "carbon_reduced_100.xyz.xz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in shared/data")
    entries = [
        replace(e, targets={**e.targets, "forces": e.targets["forces"] * factor})
        if i % 5 == 3
        else e
        for i, e in enumerate(FileSource(path=path))
    ]
    (doubt,) = check_consistency(Dataset.from_entries(entries)).doubts
    assert "pairs contradict their energies" in doubt


def test_a_perfect_crystal_among_rattled_ones_is_no_placeholder():
    perfect = bulk("Cu", cubic=True) * (2, 1, 1)
    perfect.calc = EMT()
    targets = {
        "energy": np.asarray(perfect.get_potential_energy() - 3.5 * 8),
        "forces": np.zeros((8, 3)),
        "stress": perfect.get_stress(),
    }
    ideal = [Entry.from_atoms(perfect, targets=targets, id="ideal")]
    assert not check_consistency(Dataset.from_entries([*ideal, *rattled()])).inconsistent


def test_forces_that_symmetry_makes_vanish_are_no_placeholder():
    entries = []
    for i, length in enumerate(np.linspace(3.4, 3.8, 12)):
        atoms = bulk("Cu", a=length, cubic=True)
        atoms.calc = EMT()
        targets = {"energy": np.asarray(atoms.get_potential_energy()), "forces": np.zeros((4, 3))}
        entries.append(Entry.from_atoms(atoms, targets=targets, id=f"eos#{i}"))
    assert not check_consistency(Dataset.from_entries(entries)).inconsistent


def test_many_near_pairs_that_contradict_are_a_doubt():
    rng = np.random.default_rng(0)
    report = check_consistency(changed("forces", lambda f: rng.normal(size=f.shape)))
    assert not report.inconsistent
    assert len(report.doubts) == 1
    assert report.doubts[0].startswith("forces: cannot tell")
    assert not check_consistency(Dataset.from_entries(rattled())).doubts


@pytest.mark.parametrize(
    "name",
    [
        "matsciml_devsets/lips_200.extxyz.gz",
        "metatrain_small/carbon_reduced_100.xyz.xz",
        "metatrain_small/ethanol_reduced_100.xyz.xz",
        "metatrain_small/qm7x_reduced_100.xyz.xz",
        "metatrain_small/qm9_reduced_100.xyz.xz",
    ],
)
def test_published_sets_raise_no_alarm(name):
    from epitaxy_files.source import FileSource

    if not (DATA / name).is_file():
        pytest.skip(f"{name} is not in shared/data")
    report = check_consistency(Dataset.from_entries(FileSource(path=DATA / name)))
    assert not report.inconsistent
    assert not report.doubts


@pytest.mark.parametrize("xc", ["PBE", "LDA"])
def test_the_silicon_data_raise_no_alarm(xc):
    from epitaxy_benchmarks.silicon import SiliconSource

    report = check_consistency(Dataset.from_entries(SiliconSource(xc=xc)))
    assert not report.inconsistent
    assert not report.doubts
    assert {f.verdict for f in report.findings} == {"consistent"}


@pytest.mark.parametrize("name", ["Si_test", "Li_test", "Ge_training", "Cu_test", "Ni_test"])
def test_the_mlearn_sets_raise_no_alarm(name):
    from epitaxy_benchmarks.mlearn import MlearnSource

    path = DATA / "mlearn" / f"{name}.json.xz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in shared/data")
    report = check_consistency(Dataset.from_entries(MlearnSource(path=path)))
    assert not report.inconsistent
    assert not report.doubts
