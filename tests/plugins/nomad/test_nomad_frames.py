"""What archives of NOMAD mean: units, signs, layouts, references, densities of states."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from junk import spoiled
from nomad_service import EV, data_archive, results_archive, run_archive, strained

from epitaxy.entry import Entry
from epitaxy.errors import DataError
from epitaxy_nomad.frames import Wishes, read_frames
from epitaxy_nomad.methods import functional_name
from epitaxy_nomad.source import NomadSource

DEVSET = Path(__file__).parents[4] / "shared/data/matsciml_devsets/nomad_archive_200.json.gz"
DOS = Path(__file__).parents[4] / "shared/data/dos/nomad_dos_fingerprint_test_data.json.xz"


def read(folder: Path, *archives: dict, **options) -> list[Entry]:
    path = folder / "archives.json"
    path.write_text(json.dumps(list(archives)))
    return list(NomadSource(path=path, **options))


@pytest.mark.parametrize("program", ["FHI-aims", "VASP"])
def test_a_relaxation_comes_back_as_it_was_computed(tmp_path, program):
    frames = strained("Cu", 5)
    found = read(tmp_path, run_archive("e1", frames, program=program), frames="all")
    assert [entry.id for entry in found] == [f"e1/run/0/calculation/{i}" for i in range(5)]
    for entry, frame in zip(found, frames, strict=True):
        np.testing.assert_allclose(entry.positions, frame.positions, rtol=0, atol=1e-12)
        np.testing.assert_allclose(entry.cell, frame.cell, rtol=0, atol=1e-12)
        assert entry.numbers.tolist() == frame.numbers.tolist()
        assert entry.pbc.all()
        for name in ("energy", "forces", "stress"):  # VASP's parser stores the other sign
            np.testing.assert_allclose(entry.targets[name], frame.targets[name], atol=1e-12)
        assert entry.tags["entry"] == "e1"
        assert entry.tags["energy_kind"] == "free"
    assert found[0].tags["frame"] == "run/0/calculation/0"
    assert found[0].method.code == f"{program} 240507"
    assert found[0].method.xc_functional == "PBE"
    assert found[0].method.settings == "numeric AOs; full all electron; k-mesh 4x4x4"
    assert found[0].origin.license == "CC-BY-4.0"


def test_the_last_frame_has_what_belongs_to_the_whole_entry(tmp_path):
    frames = strained("Cu", 3)
    (last,) = read(tmp_path, run_archive("e1", frames))
    assert last.id == "e1"
    np.testing.assert_allclose(last.positions, frames[-1].positions, atol=1e-12)
    assert float(last.targets["band_gap"]) == pytest.approx(0.55)
    assert float(last.targets["bulk_modulus"]) == pytest.approx(140.0)
    assert float(last.targets["fermi_energy"]) == pytest.approx(-4.5)
    every = read(tmp_path, run_archive("e1", frames), frames="all")
    assert ["band_gap" in entry.targets for entry in every] == [False, False, True]


def test_stress_can_be_read_as_stored_or_reversed(tmp_path):
    frames = strained("Cu", 1)
    archive = run_archive("e1", frames)
    (as_stored,) = read(tmp_path, archive, stress_sign="as-stored")
    (reversed_,) = read(tmp_path, archive, stress_sign="reversed")
    np.testing.assert_allclose(as_stored.targets["stress"], frames[0].targets["stress"])
    np.testing.assert_allclose(reversed_.targets["stress"], -frames[0].targets["stress"])


def test_the_free_energy_is_taken_unless_the_total_is_asked_for(tmp_path):
    archive = run_archive("e1", strained("Cu", 1))
    (free,) = read(tmp_path, archive)
    (total,) = read(tmp_path, archive, energy="total")
    assert float(free.targets["energy"] - total.targets["energy"]) == pytest.approx(1e-3)
    assert total.tags["energy_kind"] == "total"
    archive["run"][0]["calculation"][0]["energy"]["total"]["value"] += 9 * EV
    source = NomadSource(path=tmp_path / "archives.json")
    (tmp_path / "archives.json").write_text(json.dumps(archive))
    assert not list(source)
    assert source.notes == (
        "1 of 1 dropped: free and total energy differ by more than 1 eV/atom (e1)",
    )


def test_the_layout_of_nomad_simulations_is_read(tmp_path):
    frames = strained("Al", 3)
    found = read(tmp_path, data_archive("e2", frames), frames="all")
    assert [entry.id for entry in found] == [f"e2/data/outputs/{i}" for i in range(3)]
    for entry, frame in zip(found, frames, strict=True):
        np.testing.assert_allclose(entry.positions, frame.positions, atol=1e-12)
        np.testing.assert_allclose(entry.targets["energy"], frame.targets["energy"])
        np.testing.assert_allclose(entry.targets["forces"], frame.targets["forces"], atol=1e-12)
    assert found[0].method.code == "exciting fluorine"
    assert found[0].method.xc_functional == "PBEsol"


def test_derived_results_are_read_where_there_is_nothing_else(tmp_path):
    frame = strained("Pd", 1)[0]
    (entry,) = read(tmp_path, results_archive("e3", frame))
    np.testing.assert_allclose(entry.positions, frame.positions, atol=1e-12)
    assert set(entry.targets) == {"band_gap", "bulk_modulus"}
    assert not read(tmp_path, results_archive("e3", frame), layout="run")


@pytest.mark.parametrize(
    ("break_", "reason"),
    [
        (lambda atoms: atoms.update(labels=["W1", "CG"] * 2), "particles that are no atoms (CG)"),
        (lambda atoms: atoms["positions"].pop(), "not one position for each atom"),
        (lambda atoms: atoms.pop("positions"), "positions missing"),
        (lambda atoms: atoms.update(lattice_vectors=[[1, 2], [3, 4]]), "lattice_vectors of the"),
        (lambda atoms: atoms.update(labels=[]), "no atoms"),
    ],
)
def test_calculations_that_cannot_be_used_are_counted_and_named(tmp_path, break_, reason):
    good, bad = strained("Cu", 2)
    archive = run_archive("e1", [bad])
    break_(archive["run"][0]["system"][0]["atoms"])
    path = tmp_path / "a.json"
    path.write_text(json.dumps([archive, run_archive("e2", [good])]))
    source = NomadSource(path=path)
    assert [entry.id for entry in source] == ["e2"]
    assert source.notes[0].startswith("1 of 2 dropped: ")
    assert reason in source.notes[0]
    assert "(e1" in source.notes[0]


def test_molecules_and_labels_with_numbers_are_read(tmp_path):
    archive = run_archive("e1", strained("Cu", 1))
    atoms = archive["run"][0]["system"][0]["atoms"]
    del atoms["lattice_vectors"], atoms["periodic"]
    atoms["labels"] = ["Cu1", "Cu2", "C", "Co_3d"]
    (entry,) = read(tmp_path, archive)
    assert entry.numbers.tolist() == [29, 29, 6, 27]
    assert not entry.pbc.any()


def test_a_density_of_states_keeps_its_states_and_finds_its_zero(tmp_path):
    def channel(spin: int, top: float | None) -> dict:
        energies = np.linspace(-12, 8, 401)  # eV; the band ends at -1, the next begins at 1
        values = np.where(energies < -1, 2.0, 0.0) + np.where(energies > 1, 1.0, 0.0)
        gap = [{"energy_highest_occupied": top * EV, "energy_lowest_unoccupied": 1.0 * EV}]
        return {
            "energies": (energies * EV).tolist(),
            "spin_channel": spin,
            "energy_fermi": 0.0,
            "total": [{"value": (values / EV).tolist(), "normalization_factor": 0.01}],
            **({"band_gap": gap}),
        }

    frames = strained("Cu", 1)
    archive = run_archive("e1", frames, dos=[channel(0, -1.0), channel(1, -1.05)])
    del archive["run"][0]["calculation"][0]["energy"]["fermi"]
    assert "dos" not in read(tmp_path, archive)[0].targets
    (entry,) = read(tmp_path, archive, dos=True)
    dos = entry.targets["dos"]
    assert dos.shape == (2001,)
    assert entry.tags["dos_reference"] == "valence band maximum, computed from -10.00 to 9.00 eV"
    assert dos[:995] == pytest.approx(4.0)  # both spins, below the maximum at index 1000
    assert dos[1010:1190] == pytest.approx(0.0)
    assert dos[1210:1899] == pytest.approx(2.0)
    assert not dos[1901:].any()
    metal = run_archive("e1", frames, dos=[channel(0, 1.0)])
    metal["run"][0]["calculation"][0]["energy"]["fermi"] = 0.5 * EV
    (entry,) = read(tmp_path, metal, dos=True)
    assert entry.tags["dos_reference"].startswith("Fermi energy")
    assert entry.targets["dos"][:845] == pytest.approx(2.0)  # -1 eV is 1.5 eV below
    assert not entry.targets["dos"][852:1045].any()


def test_free_electrons_fill_the_density_of_states_of_the_example():
    path = Path(__file__).parents[3] / "plugins/epitaxy_nomad/example.json"
    (aluminium,) = (e for e in NomadSource(path=path, dos=True) if e.id == "example-al")
    occupied = aluminium.targets["dos"][:1001]
    # of N(E) = 3 (1 + E/12.461)^(3/2) electrons, those from -10 eV up: 3 (1 - 0.1975^1.5)
    assert np.trapezoid(occupied, dx=0.01) == pytest.approx(3 * (1 - 0.19752**1.5), abs=0.01)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (["GGA_X_PBE", "GGA_C_PBE"], "PBE"),
        (["GGA_C_PBE_SOL", "GGA_X_PBE_SOL"], "PBEsol"),
        (["LDA_X", "LDA_C_PW"], "LDA"),
        (["XC_MGGA_X_R2SCAN", "XC_MGGA_C_R2SCAN"], "r2SCAN"),
        (["MGGA_X_SCAN", "MGGA_C_SCAN"], "SCAN"),
        (["HYB_GGA_XC_HSE06"], "HSE06"),
        (["GGA_X_PBE", "LDA_C_PW"], "GGA_X_PBE+LDA_C_PW"),
        (["unavailable"], ""),
    ],
)
def test_functionals_get_their_usual_names(parts, name):
    assert functional_name(parts) == name


@pytest.mark.skipif(not DEVSET.is_file(), reason="needs ../shared/data/matsciml_devsets")
def test_real_documents_of_three_codes_are_read():
    documents = json.loads(gzip.decompress(DEVSET.read_bytes()))
    source = NomadSource(path=DEVSET)
    entries = list(source)
    assert len(entries) == 200
    for entry, document in zip(entries, documents, strict=True):
        original = document["properties"]["structures"]["structure_original"]
        volume = abs(np.linalg.det(entry.cell))
        assert volume == pytest.approx(original["cell_volume"] * 1e30, rel=1e-9)
        kind = document["energies"].get("free", document["energies"]["total"])
        # to a thousandth of an eV even for all-electron energies of millions of eV
        assert float(entry.targets["energy"]) == pytest.approx(
            kind["value"] / 1.602176634e-19, rel=1e-12
        )
    energies = [float(entry.targets["energy"]) for entry in entries]
    assert max(energies) == pytest.approx(1.60, abs=0.01)
    assert min(energies) == pytest.approx(-3.655e6, rel=1e-3)
    functionals = [entry.method.xc_functional for entry in entries]
    assert {name: functionals.count(name) for name in set(functionals)} == {
        "LDA": 73,
        "PBE": 96,
        "PBEsol": 1,
        "": 30,
    }
    codes = [entry.method.code.split()[0] for entry in entries]
    assert {name: codes.count(name) for name in set(codes)} == {
        "FHI-aims": 159,
        "VASP": 40,
        "exciting": 1,
    }
    assert "2 of 200 lost a label: Fermi energy beyond 1000 eV" in source.notes[0]


@pytest.mark.skipif(not DOS.is_file(), reason="needs ../shared/data/dos")
def test_real_densities_of_states_keep_their_integral(tmp_path):
    import lzma

    frame = strained("Cu", 1)
    for name, found in json.loads(lzma.decompress(DOS.read_bytes())).items():
        if not isinstance(found, dict):
            continue
        energies = np.array(found["dos_energies"]) / EV
        spins = [np.array(spin) for spin in found["dos_values"]]
        dos = [
            {
                "energies": found["dos_energies"],
                "energy_fermi": 0.0,
                "total": [{"value": (spin / EV).tolist()} for spin in spins],
            }
        ]
        archive = run_archive(name, frame, dos=dos)
        archive["run"][0]["calculation"][0]["energy"]["fermi"] = 0.0
        (entry,) = read(tmp_path, archive, dos=True)
        window = np.linspace(-10, 10, 20001)
        expected = sum(np.trapezoid(np.interp(window, energies, s, 0, 0), window) for s in spins)
        assert np.trapezoid(entry.targets["dos"], dx=0.01) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("kind", ["run", "data", "results"])
def test_whatever_stands_in_an_archive_a_frame_is_read_or_refused_by_name(kind):
    frames = strained("Cu", 2)
    dos = {
        "energies": [-EV, 0.0, EV],
        "energy_fermi": 0.0,
        "total": [{"value": [1.0, 2.0, 3.0]}],
        "band_gap": [{"energy_highest_occupied": 0.0, "energy_lowest_unoccupied": EV}],
    }
    archive = {
        "run": run_archive("e", frames, dos=[dos]),
        "data": data_archive("e", frames),
        "results": results_archive("e", frames[0]),
    }[kind]
    wishes = Wishes(frames="all", dos=True)
    refused: list[str] = []
    n_read = 0
    for path, junk, changed in spoiled(archive):
        found = list(read_frames(changed, wishes, lambda place, reason: refused.append(reason)))
        n_read += len(found)
        for frame in found:
            shape = (len(frame.structure.numbers), 3)
            assert frame.structure.positions.shape == shape, (path, junk)
            assert frame.targets.get("forces", np.zeros(shape)).shape == shape, (path, junk)
    assert n_read > 500
    assert len(refused) > 20
    assert all(refused)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"metadata": {', "damaged, cut or not JSON"),
        (b"[1, 2]", "document 0 is not an archive but int"),
        (b"\x1f\x8b\x08broken", "damaged, cut or not JSON"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, said):
    path = tmp_path / ("a.json.gz" if content.startswith(b"\x1f") else "a.json")
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        list(NomadSource(path=path))
    assert str(path) in str(caught.value)


def test_downloads_of_the_service_are_read_from_their_zip_file(tmp_path):
    import zipfile

    frames = strained("Cu", 2)
    path = tmp_path / "download.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("manifest.json", "[]")
        packed.writestr("up/a.json", json.dumps(run_archive("a", frames[:1])))
        packed.writestr("up/b.json", json.dumps(run_archive("b", frames[1:])))
    assert [entry.id for entry in NomadSource(path=path)] == ["a", "b"]
