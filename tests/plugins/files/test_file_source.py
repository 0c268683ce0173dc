import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from epitaxy.errors import DataError
from epitaxy.registry import Registry
from epitaxy_files.source import FileSource

SHARED = Path(__file__).parents[4] / "shared" / "data"


def frames(n: int = 5) -> list[Atoms]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.1, seed=i)
        atoms.calc = SinglePointCalculator(
            atoms, energy=-43.0 - i, forces=rng.normal(size=(8, 3)), stress=rng.normal(size=6)
        )
        atoms.info["config_type"] = "rattled"
        made.append(atoms)
    return made


def text_frame(*, header: str, properties: str = "species:S:1:pos:R:3", rows: str = "") -> str:
    return (
        f'1\nLattice="3 0 0 0 4 0 0 0 5" Properties={properties} {header} pbc="T T T"\n'
        f"Si 0.0 0.0 0.0{rows}\n"
    )


def read_one(tmp_path: Path, text: str, **options: object) -> dict[str, np.ndarray]:
    file = tmp_path / "one.extxyz"
    file.write_text(text)
    (entry,) = FileSource(path=file, **options)  # type: ignore[arg-type]
    return dict(entry.targets)


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.traj", "a.db"])
def test_labels_come_back_from_every_kind_of_file(tmp_path, name):
    file = tmp_path / name
    if file.suffix == ".db":
        with connect(file) as database:
            for atoms in frames():
                database.write(atoms, config_type="rattled")
    else:
        write(file, frames())
    source = FileSource(path=file)
    entries = list(source)
    assert len(entries) == 5
    for entry, atoms in zip(entries, frames(), strict=True):
        assert np.allclose(entry.positions, atoms.positions, atol=1e-7)
        assert np.allclose(entry.cell, atoms.cell.array)
        assert entry.targets["energy"] == pytest.approx(atoms.get_potential_energy())
        assert np.allclose(entry.targets["forces"], atoms.get_forces(), atol=1e-7)
        assert np.allclose(entry.targets["stress"], atoms.get_stress(), atol=1e-7)
        assert entry.origin.url == name
    assert [entry.id for entry in entries] == [entry.id for entry in source]
    assert len({entry.id for entry in entries}) == 5
    if file.suffix != ".traj":  # this format keeps no comments
        assert entries[0].tags["config_type"] == "rattled"


@pytest.mark.parametrize(("ending", "opener"), [("gz", gzip), ("xz", lzma), ("bz2", bz2)])
def test_compressed_files_are_read_on_the_way(tmp_path, ending, opener):
    write(tmp_path / "a.extxyz", frames())
    packed = tmp_path / f"a.extxyz.{ending}"
    packed.write_bytes(opener.compress((tmp_path / "a.extxyz").read_bytes()))
    source = FileSource(path=packed)
    assert len(list(source)) == 5
    assert source.fraction == 1.0


@pytest.mark.parametrize(
    "key", ["energy", "free_energy", "Energy", "REF_energy", "dft_energy", "total_energy"]
)
def test_energies_are_found_under_their_usual_names(tmp_path, key):
    targets = read_one(tmp_path, text_frame(header=f"{key}=-5.25"))
    assert targets["energy"] == -5.25
    assert targets["energy"].shape == ()


@pytest.mark.parametrize("key", ["forces", "force", "REF_forces", "dft_force"])
def test_forces_are_found_under_their_usual_names(tmp_path, key):
    properties = f"species:S:1:pos:R:3:{key}:R:3"
    text = text_frame(header="energy=-5", properties=properties, rows=" 0.1 0.2 -0.3")
    assert read_one(tmp_path, text)["forces"].tolist() == [[0.1, 0.2, -0.3]]


NINE = '"1.0 0.6 0.5 0.6 2.0 0.4 0.5 0.4 3.0"'
SIX = '"1.0 2.0 3.0 0.4 0.5 0.6"'


@pytest.mark.parametrize("key", ["stress", "REF_stress", "dft_stress"])
@pytest.mark.parametrize("value", [NINE, SIX])
def test_a_stress_has_ase_order(tmp_path, key, value):
    targets = read_one(tmp_path, text_frame(header=f"energy=-5 {key}={value}"))
    assert targets["stress"].tolist() == [1.0, 2.0, 3.0, 0.4, 0.5, 0.6]


@pytest.mark.parametrize("key", ["virial", "virials", "REF_virial", "dft_virial"])
def test_a_virial_becomes_a_stress(tmp_path, key):
    targets = read_one(tmp_path, text_frame(header=f"energy=-5 {key}={NINE}"))
    assert targets["stress"] == pytest.approx(-np.array([1.0, 2.0, 3.0, 0.4, 0.5, 0.6]) / 60)


def test_the_reference_wins_over_a_prediction_beside_it(tmp_path):
    targets = read_one(tmp_path, text_frame(header="energy=-4.0 REF_energy=-5.0"))
    assert targets["energy"] == -5.0
    targets = read_one(tmp_path, text_frame(header="energy=-4.0 free_energy=-4.5"))
    assert targets["energy"] == -4.5


def test_unusual_names_are_mapped(tmp_path):
    text = text_frame(header=f"e0=-3.0 energy=-4.0 gap=1.1 w={NINE}")
    mapping = {"energy": "e0", "band_gap": "gap", "virial": "w"}
    targets = read_one(tmp_path, text, mapping=mapping)
    assert targets["energy"] == -3.0
    assert targets["band_gap"] == 1.1
    assert targets["stress"][0] == pytest.approx(-1 / 60)
    with pytest.raises(DataError, match="no quantity named 'enrgy'"):
        read_one(tmp_path, text, mapping={"enrgy": "e0"})


def test_units_are_converted_once(tmp_path):
    text = text_frame(header="energy=-1.0 stress=" + SIX)
    targets = read_one(tmp_path, text, energy_unit="Hartree", stress_unit="GPa")
    assert targets["energy"] == pytest.approx(-27.2114, abs=1e-4)  # CODATA 2014
    assert targets["stress"][0] == pytest.approx(1 / 160.21766, rel=1e-6)


def test_molecules_have_no_cell(tmp_path):
    write(tmp_path / "a.xyz", [molecule("H2O"), molecule("CH4")])
    entries = list(FileSource(path=tmp_path / "a.xyz"))
    assert [len(entry) for entry in entries] == [3, 5]
    assert not entries[0].pbc.any()
    assert not entries[0].targets


def test_a_database_is_selected_from(tmp_path):
    with connect(tmp_path / "a.db") as database:
        for i, atoms in enumerate(frames()):
            database.write(atoms, phase="hot" if i > 2 else "cold")
    source = FileSource(path=tmp_path / "a.db", select="phase=hot")
    assert [entry.id for entry in source] == ["a.db#4", "a.db#5"]


def test_a_pattern_joins_files(tmp_path):
    for name in ("b.extxyz", "a.extxyz"):
        write(tmp_path / name, frames(2))
    entries = list(FileSource(path=tmp_path / "*.extxyz"))
    assert [e.id for e in entries] == ["a.extxyz#0", "a.extxyz#1", "b.extxyz#0", "b.extxyz#1"]


@pytest.mark.parametrize("part", [0.3, 0.62, 0.999])
def test_a_cut_file_is_named_with_its_frame(tmp_path, part):
    file = tmp_path / "cut.extxyz"
    write(file, frames())
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    seen = []
    with pytest.raises(DataError, match=rf"cut\.extxyz: frame {int(5 * part)}\b.*") as error:
        seen.extend(iter(FileSource(path=file)))
    assert "line" in str(error.value)


def test_a_cut_archive_is_named(tmp_path):
    write(tmp_path / "a.extxyz", frames(50))
    packed = tmp_path / "a.extxyz.gz"
    whole = gzip.compress((tmp_path / "a.extxyz").read_bytes())
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.extxyz\.gz: frame \d+: the file is damaged or cut"):
        list(FileSource(path=packed))


def test_text_that_is_no_structure_is_named(tmp_path):
    file = tmp_path / "a.xyz"
    file.write_text("hello\nworld\n")
    with pytest.raises(DataError, match="line 1 should be a number of atoms, found 'hello'"):
        list(FileSource(path=file))
    (tmp_path / "a.cif").write_text("Fe2O3, see the other file\n")
    with pytest.raises(DataError, match=r"a\.cif"):
        list(FileSource(path=tmp_path / "a.cif"))
    with pytest.raises(DataError, match="does not exist"):
        FileSource(path=tmp_path / "nothing.xyz")


def test_frames_are_read_one_at_a_time(tmp_path):
    # A file whose last frame is broken still gives all frames before it, as they come.
    file = tmp_path / "a.extxyz"
    write(file, frames(3))
    file.write_text(file.read_text() + "8\nenergy=")
    source = iter(FileSource(path=file))
    assert [next(source).id for _ in range(3)] == ["a.extxyz#0", "a.extxyz#1", "a.extxyz#2"]
    with pytest.raises(DataError):
        next(source)


def test_paths_are_recognised(tmp_path):
    registry = Registry.from_entry_points()
    for name in ("a.extxyz", "a.xyz.gz", "OUTCAR", "vasprun.xml", "POSCAR.bz2", "a.traj", "a.db"):
        (tmp_path / name).write_bytes(b"")
        assert registry.identify(tmp_path / name) == "files", name
    (tmp_path / "notes.txt").write_text("buy milk")
    (tmp_path / "a.json").write_text('{"milk": 2}')
    assert registry.identify(tmp_path / "notes.txt") is None
    assert registry.identify(tmp_path / "a.json") is None
    with connect(tmp_path / "b.json") as database:
        database.write(molecule("H2O"))
    assert registry.identify(tmp_path / "b.json") == "files"
    assert len(list(FileSource(path=tmp_path / "b.json"))) == 1


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_public_files_are_read_with_their_labels():
    carbon = list(FileSource(path=SHARED / "metatrain_small" / "carbon_reduced_100.xyz.xz"))
    assert len(carbon) == 100
    assert {"energy", "forces", "stress"} <= set(carbon[0].targets)
    virial = np.array([17.67401361, 19.15963338, 0.10558305, 0.02964023, 0.10156025, 0.99922643])
    volume = abs(np.linalg.det(carbon[0].cell))
    assert carbon[0].targets["stress"] == pytest.approx(-virial / volume)
    lips = list(FileSource(path=SHARED / "matsciml_devsets" / "lips_200.extxyz.gz"))
    assert len(lips) == 200
    assert lips[0].targets["forces"].shape == (83, 3)
