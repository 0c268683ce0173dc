"""Entries of AFLOW in local files: a real one where it is, and ones in the same layout."""

import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
from aflow_server import CELL, FORCES, STRESS, as_text, rows, structure_file

from epitaxy import Registry
from epitaxy.cli import main
from epitaxy.composition import has_structure
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError, EntryError
from epitaxy_aflow.entries import plus_u, read_keywords, xc_functional
from epitaxy_aflow.source import AflowSource

RECORDED = Path(__file__).resolve().parents[4] / "shared/data/recorded_responses/aflow"
needs_recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"{RECORDED} is not there")


@needs_recorded
def test_a_real_entry_is_read_with_all_its_labels():
    (entry,) = AflowSource(path=RECORDED / "aflowlib.json")
    assert entry.id == "aflow:fbc2cf03b9659c90"
    assert entry.numbers.tolist() == [47, 47, 27, 27, 8, 8, 8, 8]
    assert entry.targets["energy"] == -34.8821  # of the cell: -4.36026 per atom
    assert entry.targets["formation_energy"] == 0.589366
    assert entry.targets["band_gap"] == 1.8904
    assert entry.targets["bulk_modulus"] == 148.956
    assert entry.method.xc_functional == "PBE+U"
    assert entry.method.settings == "U(Ag)=5.8 eV, U(Co)=5 eV; 560 eV cutoff"
    # 2.95 kbar of residual pressure: compressed, hence a negative stress.
    pressure = -entry.targets["stress"][:3].mean() * 1602.1766208
    assert pressure == pytest.approx(2.95, abs=0.005)
    assert entry.targets["forces"][4] == pytest.approx([0, -0.000778, 0.011649])


@needs_recorded
@pytest.mark.parametrize("keep", ["json", "contcar", "keywords", "out"])
def test_the_files_of_a_real_entry_agree(tmp_path, keep):
    (expected,) = AflowSource(path=RECORDED / "aflowlib.json")
    name = "aflowlib.out" if keep == "out" else "aflowlib.json"
    shutil.copy(RECORDED / name, tmp_path)
    if keep == "json":
        shutil.copy(RECORDED / "Ag1Co1O2_ICSD_246157_structure_relax.json", tmp_path)
    elif keep == "contcar":
        text = (RECORDED / "CONTCAR.relax.vasp").read_bytes()
        (tmp_path / "CONTCAR.relax.vasp.xz").write_bytes(lzma.compress(text))
    (entry,) = AflowSource(path=tmp_path)
    np.testing.assert_allclose(entry.cell, expected.cell, atol=2e-4)
    np.testing.assert_allclose(entry.positions, expected.positions, atol=2e-4)
    assert entry.targets["forces"].shape == (8, 3)
    assert entry.method == expected.method


@needs_recorded
def test_real_answers_of_aflux_without_structures_are_tables_of_formulas():
    entries = list(AflowSource(path=RECORDED / "aflux_data0.json", functional="", require=()))
    assert len(entries) == 20
    assert not any(has_structure(entry) for entry in entries)
    assert entries[0].targets["band_gap"] == 6.8531
    assert entries[0].targets["thermal_conductivity"] == 83.0737
    source = AflowSource(path=RECORDED / "aflux_data1.json")
    assert list(source) == []
    assert source.notes[0].startswith("20 entries left out: functional not named, not PBE")


def write_folder(folder: Path, row: dict, *, packed: bool = False, old: bool = False) -> None:
    folder.mkdir(parents=True)
    row = {**row, "forces": FORCES, "stress_tensor": STRESS}
    if old:
        text = " | ".join(f"{key}={as_text(value)}" for key, value in row.items())
        (folder / "aflowlib.out").write_text(text + "\n")
    elif packed:
        with lzma.open(folder / "aflowlib.json.xz", "wt") as stream:
            json.dump(row, stream)
    else:
        (folder / "aflowlib.json").write_text(json.dumps(row))
    (folder / "X_structure_relax.json").write_text(json.dumps(structure_file()))


def test_a_tree_of_folders_is_read_in_order(tmp_path):
    for i, row in enumerate(rows(3)):
        write_folder(tmp_path / "ICSD_WEB" / f"{i}", row, packed=i == 1, old=i == 2)
    (tmp_path / "ICSD_WEB" / "notes.txt").write_text("")
    source = AflowSource(path=tmp_path)
    entries = list(source)
    assert [e.id for e in entries] == [f"aflow:{i:016x}" for i in range(3)]
    for entry in entries:
        np.testing.assert_allclose(entry.cell, CELL)
        np.testing.assert_array_equal(entry.targets["forces"], FORCES)
        assert entry.targets["energy"] == pytest.approx(-11 - 0.01 * int(entry.id[-1]))
    assert Registry.from_entry_points().identify(tmp_path / "ICSD_WEB" / "0") == "aflow"


def test_ingest_takes_a_folder(tmp_path):
    write_folder(tmp_path / "entry", rows(1)[0])
    assert main(["ingest", str(tmp_path / "entry"), "-o", str(tmp_path / "set")]) == 0
    assert len(Dataset.open(tmp_path / "set")) == 1


def test_nothing_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"holds no aflowlib\.json or aflowlib\.out"):
        list(AflowSource(path=tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        list(AflowSource(path=tmp_path / "missing"))


def test_a_cut_file_is_named(tmp_path):
    (tmp_path / "aflowlib.json").write_text(json.dumps(rows(1)[0])[:100])
    with pytest.raises(DataError, match=r"aflowlib\.json: cut, or no JSON"):
        list(AflowSource(path=tmp_path))


def test_an_energy_per_atom_in_place_of_the_cell_is_refused():
    row = rows(1)[0] | {"energy_cell": -5.5}
    with pytest.raises(EntryError, match=r"energy_cell = -5.5 eV of 2 atoms is not energy_atom"):
        read_keywords(row)


def test_the_energy_of_the_cell_follows_from_that_of_an_atom():
    row = rows(1)[0]
    del row["energy_cell"]
    assert read_keywords(row).targets["energy"] == -11.0


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("dft_type", "ldau", "expected"),
    [
        (["PAW_PBE"], None, "PBE"),
        (["PAW_PBE", "PAW_PBE"], [0, 0], "PBE"),
        (["PAW_PBE"], [5.0, 0], "PBE+U"),
        (["PAW_LDA"], None, "LDA"),
        (["PAW_GGA"], None, "PW91"),
        (["PAW_PBE_KIN"], None, "PBE_KIN"),
        (["PAW_PBE", "PAW_LDA"], None, "PBE,LDA"),
    ],
)
def test_functionals_get_the_usual_names(dft_type, ldau, expected, text):
    row = {"species": ["Ti_sv", "O"], "dft_type": as_text(dft_type) if text else dft_type}
    if ldau:
        row["ldau_u"] = as_text(ldau) if text else ldau
    assert xc_functional(row["dft_type"], plus_u(row)) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"geometry": [1, 2, 3]}, "six positive lengths"),
        ({"geometry": [1, 2, 3, 0, 90, 90]}, "six positive lengths"),
        ({"geometry": "x,y"}, "are no numbers"),
        ({"species": ["Ga"]}, "does not fit species"),
        ({"species": ["Ga", "Qq"]}, "'Qq' is no element"),
        ({"composition": [1, 1.5]}, "does not fit species"),
        ({"positions_fractional": [[0, 0, 0]]}, "holds 1 atoms, composition 2"),
        ({"positions_fractional": None}, "no positions"),
        ({"ldau_u": [1.0]}, "1 values of ldau_u for 2 species"),
    ],
)
def test_an_entry_that_cannot_be_used_says_why(change, said):
    with pytest.raises(EntryError, match=f"aflow:0000000000000000: .*{said}"):
        read_keywords(rows(1)[0] | change)


def test_cartesian_positions_tell_how_the_cell_lies():
    rng = np.random.default_rng(0)
    fractional = rng.random((4, 3))
    cell = np.array([[0.0, 3.0, 3.1], [2.9, 0.0, 3.0], [3.0, 2.8, 0.1]])
    lengths = np.linalg.norm(cell, axis=1)
    cosines = [cell[i] @ cell[j] / lengths[i] / lengths[j] for i, j in ((1, 2), (0, 2), (0, 1))]
    row = rows(1)[0] | {
        "composition": [2, 2],
        "energy_cell": -22.0,
        "geometry": [*lengths.round(5), *np.degrees(np.arccos(cosines)).round(4)],
        "positions_fractional": fractional.round(6).tolist(),
        "positions_cartesian": (fractional @ cell).round(5).tolist(),
        "forces": np.eye(4)[:, :3].tolist(),
    }
    entry = read_keywords(row)
    np.testing.assert_allclose(entry.cell, cell, atol=1e-3)
    assert "forces" in entry.targets
    del row["positions_cartesian"]
    assert "forces" not in read_keywords(row).targets  # in axes that nobody knows


def test_a_contcar_without_a_line_of_symbols_is_read(tmp_path):
    row = rows(1)[0]
    (tmp_path / "aflowlib.json").write_text(json.dumps(row))
    (tmp_path / "CONTCAR.relax.vasp").write_text(
        "Ga1N1 (STD_PRIM)\n1.000000\n0.0 2.7 2.7\n2.7 0.0 2.7\n2.7 2.7 0.0\n1 1\nDirect(2) [A1B1]\n"
        "0.00 0.00 0.00  Ga\n0.25 0.25 0.25  N\n"
    )
    (entry,) = AflowSource(path=tmp_path)
    np.testing.assert_allclose(entry.cell, CELL)
    assert entry.numbers.tolist() == [31, 7]


@needs_recorded
def test_a_saved_answer_that_names_no_functional_says_how_to_read_it(tmp_path, capsys):
    job = ["ingest", str(RECORDED / "aflux_data1.json"), "-o", str(tmp_path / "set")]
    assert main(job) == 2
    assert "`--option functional=any` takes every functional" in capsys.readouterr().err
    job += ["--option", "functional=any"]
    assert main(job) == 2
    said = capsys.readouterr().err
    assert "functional" not in said
    assert '`--option "require=[band_gap]"` asks for less' in said
    assert main([*job, "--option", "require=[band_gap]", "--require", "none"]) == 0
    assert len(Dataset.open(tmp_path / "set")) == 20
