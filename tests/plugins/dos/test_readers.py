"""Densities of states from files: real ones, small ones, damaged ones; and their alignment."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import DataError, EntryError
from epitaxy.spectra import fingerprints, tanimoto
from epitaxy_dos.alignment import align, band_edges
from epitaxy_dos.readers.pymatgen_dos import complete_dos
from epitaxy_dos.source import DosSource
from epitaxy_dos.spectra import ENERGIES
from epitaxy_dos.spectrum import Spectrum

SHARED = Path(__file__).parents[3] / "../shared/data"
RECORDED = SHARED / "recorded_responses"


def shared(path: str) -> Path:
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"{path} is not here")
    return found


def gapped(shift: float = 0.0, spacing: float = 0.02) -> Spectrum:
    """Two parabolic bands in 3D, edges at 0 and 1.5 eV, four electrons, Fermi energy between."""
    energies = np.arange(-14, 12, spacing)
    valence = np.sqrt(np.clip(-energies, 0, None)) * (energies > -6)
    conduction = np.sqrt(np.clip(energies - 1.5, 0, None))
    return Spectrum(
        energies=energies + shift, channels=np.array([valence + conduction]), fermi=0.7 + shift
    )


def entries(path: Path, **options: Any) -> list[Entry]:
    return list(DosSource(path=path, **options))


DOSCAR = """\
   2   2   0   0
  0.2000000E+02  0.3866597E-09  0.3866597E-09  0.3866597E-09  0.5000000E-15
  1.000000000000000E-004
  CAR
 made for a test
     {high}     {low}{n:5d}      {fermi:.8f}      1.00000000
"""


def write_doscar(folder: Path, spectrum: Spectrum, *, n_spins: int = 1, cut: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for energy, dos in zip(spectrum.energies, spectrum.total, strict=True):
        parts = [dos / n_spins] * n_spins + [0.0] * n_spins
        lines.append("  ".join([f"{energy:11.3f}", *(f"{part:.4E}" for part in parts)]))
    heading = DOSCAR.format(
        high=f"{spectrum.energies[-1]:.8f}",
        low=f"{spectrum.energies[0]:.8f}",
        n=len(lines),
        fermi=spectrum.fermi,
    )
    path = folder / "DOSCAR"
    path.write_text(heading + "\n".join(lines[: len(lines) - cut]) + "\n")
    (folder / "POSCAR").write_text(
        "Si2\n1.0\n0 2.73 2.73\n2.73 0 2.73\n2.73 2.73 0\nSi\n2\nDirect\n0 0 0\n.25 .25 .25\n"
    )
    return path


# --- alignment ---


def test_valence_band_maximum_is_found_where_the_spectrum_falls() -> None:
    edges = band_edges(gapped(), tolerance=1e-3)
    assert edges == pytest.approx((0.0, 1.5), abs=0.002)


@pytest.mark.parametrize("shift", [-3.217, 0.0, 5.6181])
def test_a_rigid_shift_of_the_energies_does_not_change_the_fingerprint(shift: float) -> None:
    plain, shifted = (align(gapped(s)) for s in (0.0, shift))
    a, b = fingerprints(ENERGIES["dos"], np.array([plain.dos, shifted.dos]))
    assert shifted.zero - plain.zero == pytest.approx(shift)
    assert tanimoto(a[None], b[None])[0, 0] > 0.995
    unaligned = align(gapped(shift), "none").dos
    c = fingerprints(ENERGIES["dos"], unaligned)
    assert shift == 0 or tanimoto(a[None], c)[0, 0] < 0.8


def test_a_metal_is_aligned_to_its_fermi_energy() -> None:
    energies = np.linspace(-15, 15, 601)
    metal = Spectrum(energies=energies, channels=np.ones((1, 601)), fermi=2.5)
    found = align(metal)
    assert found.zero == 2.5
    assert found.reference == "Fermi energy"
    with pytest.raises(EntryError, match="states at the Fermi energy"):
        align(metal, "vbm")


def test_choice_of_the_zero_is_recorded() -> None:
    assert align(gapped()).reference.startswith("valence band maximum, where the spectrum falls")
    assert align(gapped(), "fermi").reference == "Fermi energy"
    assert align(gapped(), "none").reference == "as given"
    short = Spectrum(energies=np.linspace(-4, 3, 99), channels=np.ones((1, 99)), fermi=0.0)
    assert align(short).reference == "Fermi energy, computed from -4.00 to 3.00 eV"


def test_without_fermi_energy_the_zero_is_asked_for() -> None:
    spectrum = gapped()
    nameless = Spectrum(energies=spectrum.energies, channels=spectrum.channels)
    with pytest.raises(EntryError, match="no Fermi energy"):
        align(nameless)
    assert align(nameless, "none").zero == 0


# --- formats ---


def test_doscar_with_and_without_spin_says_the_same(tmp_path: Path) -> None:
    (one,) = entries(write_doscar(tmp_path / "one", gapped()))
    (two,) = entries(write_doscar(tmp_path / "two", gapped(), n_spins=2))
    np.testing.assert_allclose(one.targets["dos"], two.targets["dos"], atol=1e-4)
    assert len(one) == 2
    assert one.cell[0, 1] == pytest.approx(2.73)
    expected = align(gapped()).dos
    np.testing.assert_allclose(one.targets["dos"], expected, atol=2e-3)


def test_settings_of_vasp_come_from_the_files_beside(tmp_path: Path) -> None:
    path = write_doscar(tmp_path, gapped())
    (tmp_path / "INCAR").write_text("ENCUT = 520 ! eV\nGGA = PS\nSIGMA=0.05; ISMEAR = 0\n")
    (tmp_path / "KPOINTS").write_text("mesh\n0\nGamma\n8 8 4\n0 0 0\n")
    (entry,) = entries(path)
    assert entry.method.xc_functional == "PBEsol"
    assert entry.tags["cutoff"] == "520 eV"
    assert entry.tags["k-mesh"] == "8x8x4"
    assert entry.tags["smearing"] == "0.05 eV"


def test_a_cut_doscar_is_refused_with_the_line(tmp_path: Path) -> None:
    path = write_doscar(tmp_path, gapped(), cut=100)
    with pytest.raises(DataError, match="cut after line"):
        entries(path)


def test_a_structure_of_other_size_is_not_taken(tmp_path: Path) -> None:
    path = write_doscar(tmp_path, gapped())
    poscar = (tmp_path / "POSCAR").read_text()
    (tmp_path / "POSCAR").write_text(poscar.replace("\n2\n", "\n1\n").replace(".25 .25 .25\n", ""))
    with pytest.raises(EntryError, match="1 atoms, DOSCAR 2"):
        entries(path)


def test_spin_down_drawn_downwards_is_added(tmp_path: Path) -> None:
    def diagram(sign: int) -> str:
        points = "".join(
            f'<point e="{e:.4f}" dos="{sign * 2.0:.4f}"/>' for e in np.linspace(-0.6, 0.6, 301)
        )
        return f'<diagram type="totaldos" nspin="{1 if sign > 0 else 2}">{points}</diagram>'

    path = tmp_path / "dos.xml"
    path.write_text(f"<dos><title>Fe</title><totaldos>{diagram(1)}{diagram(-1)}</totaldos></dos>")
    (entry,) = entries(path)
    assert entry.targets["dos"][1000] == pytest.approx(4.0 / 27.211386, rel=1e-5)
    assert entry.tags["composition"] == "Fe"


def test_exciting_silicon_holds_eight_electrons() -> None:
    path = shared("recorded_responses/nomad/dos.xml")
    from epitaxy_dos.readers.exciting import read_exciting

    (found,) = read_exciting(path)
    filled = found.energies <= 0
    assert np.trapezoid(found.total[filled], found.energies[filled]) == pytest.approx(8, abs=0.01)
    (entry,) = entries(path)
    assert entry.numbers.tolist() == [14, 14]
    assert entry.method.xc_functional == "LDA"
    assert entry.tags["k-mesh"] == "8x8x8"
    assert entry.tags["dos_reference"].startswith("valence band maximum")
    distance = np.linalg.norm(entry.positions[1] - entry.positions[0])
    assert distance == pytest.approx(2.35, abs=0.02)  # Å, bond length of silicon
    assert abs(np.linalg.det(entry.cell)) == pytest.approx(270.2567 * 0.529177**3, rel=1e-5)


def test_doscar_and_json_of_aflow_are_the_same_calculation(tmp_path: Path) -> None:
    for name in ("DOSCAR.static.xz", "CONTCAR.relax.vasp"):
        shutil.copy(shared(f"recorded_responses/aflow/{name}"), tmp_path)
    (one,) = entries(tmp_path / "DOSCAR.static.xz")
    (two,) = entries(shared("recorded_responses/aflow/Ag1Co1O2_ICSD_246157_dosdata.json.xz"))
    a, b = (fingerprints(ENERGIES["dos"], e.targets["dos"]) for e in (one, two))
    assert tanimoto(a, b)[0, 0] > 0.99
    assert len(one) == len(two) == 8
    assert sorted(one.numbers) == sorted(two.numbers)


@pytest.mark.parametrize(
    "name", ["dos/mp_si_completedos.json.xz", "dos/mp_nb3sn_completedos.json.xz"]
)
def test_band_edges_are_those_of_pymatgen(name: str) -> None:
    from pymatgen.electronic_structure.dos import CompleteDos

    document = json.loads(lzma.decompress(shared(name).read_bytes()))
    found = complete_dos(document)
    theirs = CompleteDos.from_dict(document)
    edges = band_edges(found)
    if theirs.get_gap() == 0:
        assert edges is None
        return
    assert edges is not None
    lowest, highest = theirs.get_cbm_vbm()
    spacing = found.energies[1] - found.energies[0]
    assert edges[0] == pytest.approx(highest, abs=spacing)
    assert edges[1] == pytest.approx(lowest, abs=spacing)
    np.testing.assert_allclose(
        found.structure.positions,  # type: ignore[union-attr]
        theirs.structure.cart_coords,
    )


def test_silicon_of_exciting_and_of_vasp_are_alike() -> None:
    (ours,) = entries(shared("recorded_responses/nomad/dos.xml"))
    theirs = [
        entry
        for entry in entries(shared("recorded_responses/mp/es_dos_objs.json.gz"))
        if entry.numbers.tolist() == [14, 14]
    ]
    a, b = (fingerprints(ENERGIES["dos"], e.targets["dos"]) for e in (ours, theirs[0]))
    assert 0.8 < tanimoto(a, b)[0, 0] < 0.95


def test_both_spins_of_iron_are_summed() -> None:
    path = shared("recorded_responses/mp/Fe_dos.json.gz")
    document = json.loads(gzip.decompress(path.read_bytes()))
    found = complete_dos(document)
    assert found.channels.shape[0] == 2
    filled = found.energies <= found.fermi
    n_electrons = np.trapezoid(found.total[filled], found.energies[filled])
    assert 12 < n_electrons < 15  # 14 with p states, on a mesh of 0.14 eV
    (entry,) = entries(path)
    assert entry.tags["dos_reference"] == "Fermi energy"


def test_spectra_whose_values_cannot_be_per_cell_are_named() -> None:
    source = DosSource(path=shared("recorded_responses/mp/es_dos_objs.json.gz"))
    list(source)
    assert any("electrons per atom" in note and "mp-823888" in note for note in source.notes)


def test_arrays_keep_their_settings(tmp_path: Path) -> None:
    spectrum = gapped()
    np.savez(
        tmp_path / "study.npz",
        energies=spectrum.energies,
        dos=np.stack([spectrum.total, 2 * spectrum.total]),
        fermi=np.array([0.7, 0.7]),
        ids=np.array(["a", "b"]),
        formula="Si2",
        xc_functional=np.array(["LDA", "PBE"]),
        cutoff=np.array([300.0, 400.0]),
    )
    a, b = entries(tmp_path / "study.npz")
    assert (a.id, b.id) == ("a", "b")
    assert (a.method.xc_functional, b.method.xc_functional) == ("LDA", "PBE")
    assert b.tags["cutoff"] == "400"
    np.testing.assert_allclose(b.targets["dos"], 2 * a.targets["dos"], atol=0.02)
    assert len(a) == 2


def test_a_table_of_text_is_read(tmp_path: Path) -> None:
    spectrum = gapped()
    table = tmp_path / "si.csv"
    lines = [f"{e:.4f}, {d:.6f}" for e, d in zip(spectrum.energies, spectrum.total, strict=True)]
    table.write_text("# made\nenergy, dos\n" + "\n".join(lines))
    (entry,) = entries(table, fermi=0.7, formula="Si2")
    np.testing.assert_allclose(entry.targets["dos"], align(spectrum).dos, atol=1e-5)
    table.write_text("1 2\n2 3 4\n")
    with pytest.raises(DataError, match="line 2"):
        entries(table)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("DOSCAR", "nothing\n", "no heading"),
        ("dos.xml", "<dos>", "damaged XML"),
        ("dos.xml", "<dos/>", "no dos/totaldos"),
        ("x.json", '{"m": "pymatgen.electronic_structure.dos"}', "no density of states"),
        ("x.json", '{"tDOS_data": {}}', "as AFLOW writes it"),
        ("x.json", "{}", "does not say what it is"),
        ("x.npz", "text", "cannot be read"),
        ("DOSCAR", DOSCAR.format(high=1.0, low=0.0, n=0, fermi=0.5), "announces 0 energies"),
        ("dos.xml", "<dos><totaldos><diagram/></totaldos></dos>", "no points"),
        (
            "x.json",
            '{"tDOS_data": {"energy": ["a"], "tDOS": [1]}, "species": [], "composition": []}',
            "as AFLOW writes it",
        ),
        ("x.csv", "1 1\n2 nan\n", "not finite"),
        ("x.csv", "2 1\n1 1\n", "do not increase"),
    ],
)
def test_damaged_files_are_refused_by_name(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words) as raised:
        entries(tmp_path / name)
    assert name in str(raised.value)


def test_ingest_recognises_the_files_and_keeps_all_settings(tmp_path: Path) -> None:
    for k in (2, 4):
        folder = tmp_path / f"k{k}"
        write_doscar(folder, gapped())
        (folder / "KPOINTS").write_text(f"mesh\n0\nGamma\n{k} {k} {k}\n")
    arguments = ["ingest", str(tmp_path / "k*/DOSCAR"), "-o", str(tmp_path / "set")]
    assert main([*arguments, "--keep-duplicates"]) == 0
    dataset = Dataset.open(tmp_path / "set")
    assert list(dataset.ids) == ["k2/DOSCAR", "k4/DOSCAR"]
    assert list(dataset.tag("k-mesh")) == ["2x2x2", "4x4x4"]
    assert dataset.targets == ("dos", "fermi_energy")


def test_range_that_is_not_covered_is_noted_with_the_fraction(tmp_path: Path) -> None:
    energies = np.linspace(-6, 2, 400)
    np.savez(tmp_path / "x.npz", energies=energies, dos=np.ones(400), fermi=0.0, formula="Al")
    source = DosSource(path=tmp_path / "x.npz")
    (entry,) = source
    assert "computed from -6.00 to 2.00 eV" in entry.tags["dos_reference"]
    assert any("x.npz (5" in note and "%" in note for note in source.notes)


def test_one_damaged_file_of_many_is_left_out_and_named(tmp_path: Path) -> None:
    for name, cut in (("a", 0), ("b", 10), ("c", 0)):
        write_doscar(tmp_path / name, gapped(), cut=cut)
    source = DosSource(path=tmp_path / "*" / "DOSCAR")
    assert [entry.id for entry in source] == ["a/DOSCAR", "c/DOSCAR"]
    (note,) = source.notes
    assert note.startswith("1 density of states left out: cut after line")
    assert "b/DOSCAR" in note


def test_a_setting_of_vasp_that_is_no_number_is_named_with_its_file(tmp_path: Path) -> None:
    path = write_doscar(tmp_path, gapped())
    (tmp_path / "INCAR").write_text("ENCUT = high\n")
    with pytest.raises(DataError, match="INCAR: ENCUT is 'high'"):
        entries(path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"dos": np.array(["a", "b"])}, "dos holds"),
        ({"dos": np.array([1j, 2j])}, "dos holds complex128"),
        ({"dos": np.array([1.0, 2.0]), "fermi": np.array("five")}, "fermi holds"),
        ({"dos": np.array([[1.0, 2.0], [np.nan, 1.0]])}, "1: the density of states has values"),
    ],
)
def test_arrays_that_are_no_spectra_are_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, allow_pickle=False, energies=np.array([0.0, 1.0]), **arrays)
    with pytest.raises(DataError, match=f"x.npz: {words}"):
        entries(path)
