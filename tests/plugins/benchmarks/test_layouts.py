"""Readers of public sets on files in the documented layouts: units and ids."""

import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units
from ase.calculators.emt import EMT

from epitaxy.entry import Entry
from epitaxy.errors import DataError
from epitaxy.registry import Registry
from epitaxy_benchmarks import example_files as write
from epitaxy_benchmarks.alignn import AlignnSource
from epitaxy_benchmarks.ani1x import Ani1xSource
from epitaxy_benchmarks.castelli import CastelliSource
from epitaxy_benchmarks.composition_table import CompositionTableSource
from epitaxy_benchmarks.jarvis import JarvisSource
from epitaxy_benchmarks.matbench import TASKS, MatbenchSource
from epitaxy_benchmarks.matcalc import MatcalcSource
from epitaxy_benchmarks.matsciml import MatscimlSource
from epitaxy_benchmarks.mptrj import MptrjSource
from epitaxy_benchmarks.open_catalyst import OpenCatalystSource
from epitaxy_benchmarks.oxide_polymorphs import OxidePolymorphsSource
from epitaxy_benchmarks.qm7x import Qm7xSource
from epitaxy_benchmarks.qm9 import Qm9Source

from .conftest import SOURCES, written


def agree_with_emt(entry: Entry, *, labels: tuple[str, ...]) -> None:
    atoms = entry.to_atoms()
    atoms.calc = EMT()
    if "energy" in labels:
        assert entry.targets["energy"] == pytest.approx(atoms.get_potential_energy(), abs=2e-5)
    if "forces" in labels:
        assert entry.targets["forces"] == pytest.approx(atoms.get_forces(), abs=2e-5)
    if "stress" in labels:
        assert entry.targets["stress"] == pytest.approx(atoms.get_stress(), abs=1e-7)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("supporting-information.json.xz", ("energy", "forces", "stress")),
        ("id_prop.json.gz", ("energy", "forces", "stress")),
        ("MPtrj_small.json.gz", ("energy", "forces", "stress")),
        ("oc20.aselmdb", ("energy", "forces", "stress")),
        ("1000.hdf5", ("energy", "forces")),
        ("dsgdb9nsd.xyz.tar.bz2", ("energy",)),
        ("ethanol_reduced_100.xyz.xz", ("energy", "forces")),
        ("dft_3d.json.zip", ("energy",)),
    ],
)
def test_labels_come_out_in_our_units_and_signs(
    tmp_path: Path, name: str, labels: tuple[str, ...]
) -> None:
    entries = list(SOURCES[name](path=written(tmp_path, name, n=5)))
    assert len(entries) >= 5
    for entry in entries:
        agree_with_emt(entry, labels=labels)


def test_ani1x_conformers_that_were_not_computed_are_left_out_and_counted(tmp_path: Path) -> None:
    source = Ani1xSource(path=written(tmp_path, "ani1x.h5", n=30))
    entries = list(source)
    assert len(entries) == 24
    assert source.notes == ("6 of 30 conformers left out: not computed at wb97x_dz",)
    for entry in entries:
        atoms = entry.to_atoms()
        atoms.calc = EMT()  # coordinates are stored in single precision
        assert entry.targets["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        assert entry.targets["forces"] == pytest.approx(atoms.get_forces(), abs=1e-3)
        assert entry.targets["dipole"] == pytest.approx([0.25] * 3)
    higher = next(iter(Ani1xSource(path=tmp_path / "ani1x.h5", level="ccsd(t)_cbs")))
    assert set(higher.targets) == {"energy"}
    assert higher.targets["energy"] == pytest.approx(
        float(entries[0].targets["energy"]) - 0.5 * units.Hartree
    )
    assert higher.method.xc_functional == "CCSD(T)*"


def test_qm9_energies_do_not_contain_the_zero_point_energy(tmp_path: Path) -> None:
    entry = next(iter(Qm9Source(path=written(tmp_path, "dsgdb9nsd.xyz.tar.bz2"))))
    assert entry.id == "gdb9-000001"
    energy, inner = entry.targets["energy"], entry.targets["internal_energy_0"]
    assert inner - energy == pytest.approx(0.05 * units.Hartree)
    assert entry.targets["charges"] == pytest.approx(2.1997e-6)  # "2.1997*^-6"
    assert entry.targets["isotropic_polarizability"] == pytest.approx(13.21 * 0.5291772**3)
    assert entry.targets["heat_capacity"] == pytest.approx(6.469 * 4.184)
    assert entry.targets["dipole_norm"] == pytest.approx(0.20819434)


def test_qm9_is_read_from_a_folder_and_without_uncharacterized_molecules(tmp_path: Path) -> None:
    for index, (_, atoms) in enumerate(write.molecules(4), start=1):
        (tmp_path / f"dsgdb9nsd_{index:06d}.xyz").write_text(write.qm9_text(index, atoms))
    listed = tmp_path / "uncharacterized.txt"
    listed.write_text("Index  SMILES\n\n   2  C\n  4  N\n----\n2 molecules\n")
    assert Registry.from_entry_points().identify(tmp_path) == "qm9"
    source = Qm9Source(path=tmp_path, uncharacterized=listed)
    assert [entry.id for entry in source] == ["gdb9-000001", "gdb9-000003"]
    assert source.notes == ("2 molecules left out: listed as uncharacterized",)


def test_qm7x_duplicates_go_with_their_displaced_copies(tmp_path: Path) -> None:
    path = written(tmp_path, "1000.hdf5", n=12)
    listed = tmp_path / "DupMols.dat"
    listed.write_text("Geom-m2-i1-c1-opt\n")
    assert len(list(Qm7xSource(path=path))) == 12
    source = Qm7xSource(path=path, duplicates=listed)
    assert {entry.tags["molecule"] for entry in source} == {"1", "3", "4", "5", "6"}
    assert source.notes == ("2 conformations left out: listed as duplicates",)
    entry = next(iter(source))
    bohr = units.Bohr**3
    assert entry.targets["polarizability"] / bohr == pytest.approx([10, 20, 30, 3, 2, 1])


def test_mptrj_frames_know_their_material_and_both_energies(tmp_path: Path) -> None:
    path = written(tmp_path, "MPtrj_small.json.gz", n=14)
    raw, corrected = MptrjSource(path=path), MptrjSource(path=path, energies="corrected")
    entries = list(raw)
    assert [entry.tags["mp_id"] for entry in entries] == ["mp-1"] * 7 + ["mp-2"] * 7
    assert entries[8].id == "mp-101-0-1"
    assert "magmoms" not in entries[0].targets
    assert "magmoms" in entries[1].targets
    assert raw.fraction == 1.0
    first = next(iter(corrected))
    assert float(entries[0].targets["energy"] - first.targets["energy"]) == pytest.approx(1.0)
    assert first.method != entries[0].method


def test_open_catalyst_frames_of_s2ef_get_their_system_and_adsorption_energy(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "s2ef_train_200K"
    write.write_s2ef(folder, n=4)
    assert Registry.from_entry_points().identify(folder) == "open_catalyst"
    total = list(OpenCatalystSource(path=folder))
    assert [entry.tags["system"] for entry in total] == [f"random{i}" for i in range(4)]
    assert total[2].tags["frame"] == "20"
    agree_with_emt(total[0], labels=("energy", "forces"))
    adsorbed = list(OpenCatalystSource(path=folder / "0.extxyz.xz", energy="adsorption"))
    for i, (first, second) in enumerate(zip(total, adsorbed, strict=True)):
        difference = float(second.targets["energy"] - first.targets["energy"])
        assert difference == pytest.approx(0.5 + i, abs=1e-6)
    assert adsorbed[0].method.settings == "adsorption energies"
    assert total[0].method.xc_functional == "RPBE"


def test_open_catalyst_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    import lzma

    write.write_s2ef(tmp_path, n=3)
    lines = lzma.decompress((tmp_path / "0.txt.xz").read_bytes()).splitlines(keepends=True)
    (tmp_path / "0.txt.xz").write_bytes(lzma.compress(b"".join(lines[:2])))
    with pytest.raises(DataError, match=r"frame 2: its txt file has only 2 lines"):
        list(OpenCatalystSource(path=tmp_path))
    (tmp_path / "0.txt.xz").write_bytes(lzma.compress(b"".join([*lines, *lines])))
    with pytest.raises(DataError, match=r"3 frames but its txt file has 6 lines"):
        list(OpenCatalystSource(path=tmp_path))
    (tmp_path / "0.txt.xz").unlink()
    with pytest.raises(DataError, match="no txt file beside it"):
        list(OpenCatalystSource(path=tmp_path, energy="adsorption"))


def test_deleted_rows_of_an_ase_lmdb_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "oc22.aselmdb"
    write.write_aselmdb(path, n=5, deleted=(2, 4))
    entries = list(OpenCatalystSource(path=path))
    assert [entry.id for entry in entries] == ["oc22#1", "oc22#3", "oc22#5"]
    assert entries[0].method.xc_functional == "PBE+U"
    assert entries[1].tags["system"] == "random1"


class Dangerous:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('the pickle was opened')",))


def test_pickled_lmdb_files_are_refused_without_being_opened(tmp_path: Path) -> None:
    import lmdb

    path = tmp_path / "data.lmdb"
    with (
        lmdb.open(str(path), subdir=False, map_size=2**20, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"0", pickle.dumps(Dangerous()))
        transaction.put(b"length", pickle.dumps(1))
    assert Registry.from_entry_points().identify(path) == "open_catalyst"
    with pytest.raises(DataError, match=r"pickled torch_geometric objects.*\.aselmdb"):
        list(OpenCatalystSource(path=path))


def test_damaged_rows_of_an_ase_lmdb_are_named(tmp_path: Path) -> None:
    import lmdb

    for index, (row, message) in enumerate(
        [
            (b"no zlib", "row 2: damaged, or not of an ASE LMDB"),
            (zlib.compress(b'{"numbers": [1]}'), "row 2 is not as in an ASE LMDB: KeyError"),
            (zlib.compress(b"[1]"), "row 2: holds list"),
            (pickle.dumps({}), "pickled"),
        ]
    ):
        path = tmp_path / f"{index}.aselmdb"
        write.write_aselmdb(path, n=3)
        with (
            lmdb.open(str(path), subdir=False, map_size=2**24, lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            transaction.put(b"2", row)
        with pytest.raises(DataError, match=message):
            list(OpenCatalystSource(path=path))


@pytest.mark.parametrize("task", list(TASKS))
def test_every_matbench_task_is_read_with_its_official_ids(tmp_path: Path, task: str) -> None:
    facts = TASKS[task]
    path = tmp_path / f"{task}.json.gz"
    if facts.has_structures:
        write.write_matbench(path, n=3, target=facts.target)
    else:
        write.write_matbench_compositions(path, n=3, target=facts.target)
    assert Registry.from_entry_points().identify(path) == "matbench"
    source = MatbenchSource(path=path)
    entries = list(source)
    digits = len(str(facts.n_rows))
    name = task.removeprefix("matbench_").replace("_", "-")
    assert entries[1].id == f"mb-{name}-{2:0{digits}d}"
    assert all(set(entry.targets) == {facts.quantity} for entry in entries)
    assert source.card.quantities == (facts.quantity,)
    assert ("composition" in entries[0].tags) is not facts.has_structures
    assert source.notes[0].startswith(f"3 rows, the official {task} has {facts.n_rows:,}")
    if facts.is_classification and not facts.has_structures:
        assert [float(e.targets[facts.quantity]) for e in entries] == [1.0, 0.0, 0.0]


def test_a_table_without_a_known_name_needs_a_target_and_takes_a_unit(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("formula,target\nFe2O3,-1500\nNaCl,\n")
    with pytest.raises(DataError, match="say what its values are with the option target"):
        CompositionTableSource(path=path)
    source = CompositionTableSource(path=path, target="formation_energy", unit="meV/atom")
    first, second = list(source)
    assert float(first.targets["formation_energy"]) == pytest.approx(-1.5)
    assert not second.targets
    total = CompositionTableSource(path=path, target="energy", unit="meV/atom")
    assert float(next(iter(total)).targets["energy"]) == pytest.approx(-7.5)  # five atoms
    with pytest.raises(DataError, match="unit = 'GPa' cannot be converted"):
        CompositionTableSource(path=path, target="energy", unit="GPa")
    path.write_text("formula,target\nFe2O3,-1500\nXx2,3\n")
    with pytest.raises(DataError, match="line 3: 'Xx2' is not a chemical formula"):
        list(CompositionTableSource(path=path, target="band_gap"))


def test_castelli_heats_are_per_cell_or_per_atom_as_their_quantities_say(tmp_path: Path) -> None:
    path = written(tmp_path, "perov5_val.csv.xz")
    assert Registry.from_entry_points().identify(path) == "castelli"
    entries = list(CastelliSource(path=path))
    direct = list(CastelliSource(path=path, gap="direct"))
    assert entries[2].id == "perov5-1002"
    assert float(entries[2].targets["perovskite_heat"]) == 3.0
    assert float(entries[2].targets["decomposition_energy"]) == pytest.approx(0.2)
    assert float(entries[2].targets["band_gap"]) == pytest.approx(0.2)
    assert float(direct[2].targets["band_gap"]) == pytest.approx(0.4)
    assert entries[2].cell[0, 0] == pytest.approx(4.2)


def test_jarvis_gaps_are_of_the_level_asked_for_and_na_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path, "dft_3d.json.zip", n=4)
    assert Registry.from_entry_points().identify(path) == "jarvis"
    usual, better = list(JarvisSource(path=path)), list(JarvisSource(path=path, gap="TB-mBJ"))
    assert float(usual[3].targets["band_gap"]) == pytest.approx(0.3)
    assert float(better[3].targets["band_gap"]) == pytest.approx(0.6)
    assert "band_gap" not in better[2].targets
    assert "shear_modulus" not in usual[0].targets
    assert better[3].method.settings == "gap: TB-mBJ"


def test_leaderboard_labels_are_joined_by_id(tmp_path: Path) -> None:
    path = written(tmp_path, "mp-binary-pbe-elasticity.json.gz", n=4)
    labels = tmp_path / "megnet_e_form.json.zip"
    write.write_leaderboard(
        labels, {"train": {"mp-1000": "-1.25"}, "val": {}, "test": {"mp-1002": "0.5", "mp-9": "1"}}
    )
    entries = list(MatcalcSource(path=path, labels=[labels]))
    assert [float(e.targets.get("formation_energy", np.nan)) for e in entries] == pytest.approx(
        [-1.25, np.nan, 0.5, np.nan], nan_ok=True
    )
    assert [entry.tags.get("part") for entry in entries] == ["train", None, "test", None]
    assert float(entries[3].targets["bulk_modulus"]) == 103.0
    with pytest.raises(DataError, match="both give formation_energy"):
        MatcalcSource(path=path, labels=[labels, labels])
    write.write_leaderboard(labels, {"train": {"mp-1": "not"}})
    with pytest.raises(DataError, match="train mp-1: 'not' is not a number"):
        MatcalcSource(path=path, labels=[labels])
    with pytest.raises(DataError, match="a file with labels alone is joined"):
        JarvisSource(path=labels)


@pytest.mark.parametrize("cartesian", [False, True])
def test_fractional_cart_coords_are_noticed_and_counted(tmp_path: Path, cartesian: bool) -> None:
    path = tmp_path / "oqmd.json"
    write.write_oqmd(path, n=6, cartesian=cartesian)
    source = MatscimlSource(path=path)
    entries = list(source)
    for entry, atoms in zip(entries, write.crystals(6), strict=True):
        shift = np.linalg.solve(entry.cell.T, (entry.positions - atoms.positions).T)
        assert shift == pytest.approx(np.rint(shift), abs=1e-8)
    if cartesian:
        assert source.notes == ()
    else:
        assert source.notes[0].startswith("cart_coords of 6 of 6 entries are fractional")
        assert entries[0].tags["positions"] == "were fractional"
    rows = json.loads(path.read_text())
    rows[3]["cart_coords"][0][0] += 0.37
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="row 3: cart_coords agree with `sites` neither"):
        list(MatscimlSource(path=path))


def test_repeated_stresses_of_other_frames_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "id_prop.json"
    write.write_alignn(path, n=6)
    rows = json.loads(path.read_text())
    rows[5]["stresses"] = rows[0]["stresses"]
    path.write_text(json.dumps(rows))
    source = AlignnSource(path=path)
    assert ["stress" in entry.targets for entry in source] == [True] * 5 + [False]
    assert source.notes[0].startswith("stresses of 1 of 6 frames left out")


def test_oxide_polymorphs_are_chosen_by_functional_and_part(tmp_path: Path) -> None:
    path = written(tmp_path, "supporting-information.json.xz", n=8)
    source = OxidePolymorphsSource(path=path, xc="LDA", part="all")
    assert [entry.tags["part"] for entry in source] == ["EOS"] * 8 + ["final"]
    assert {entry.method.xc_functional for entry in source} == {"LDA"}
    assert next(iter(source)).id == "CuO2/rutile/LDA/EOS/0"


def test_calculations_that_are_unavailable_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "supporting-information.json"
    write.write_oxide_polymorphs(path, n=3)
    tree = json.loads(path.read_text())
    tree["CuO2"]["rutile"]["PBE"]["final"]["calculations"] = ["calculation unavailable"]
    path.write_text(json.dumps(tree))
    source = OxidePolymorphsSource(path=path, xc="PBE", part="final")
    assert list(source) == []
    assert source.notes == ("1 calculations are unavailable: CuO2/rutile/PBE/final/0",)


def test_the_examples_of_the_kit_are_those_that_we_write(tmp_path: Path) -> None:
    examples = Path(write.__file__).with_name("examples")
    for name, writer in write.EXAMPLES.items():
        assert (examples / name).is_file(), name
        if not name.endswith((".aselmdb", ".h5", ".hdf5")):
            writer(tmp_path / name)
            own = SOURCES[_like(name)](path=tmp_path / name)
            packaged = SOURCES[_like(name)](path=examples / name)
            assert [entry.id for entry in own] == [entry.id for entry in packaged]


def _like(name: str) -> str:
    stem = name.split(".")[0].split("_")[0].split("-")[0]
    return next(known for known in SOURCES if known.startswith(stem))
