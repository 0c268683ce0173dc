"""What a structure document of OPTIMADE means, and which ones stand for no atoms."""

import json
from pathlib import Path

import numpy as np
import pytest
from junk import spoiled

from epitaxy.errors import DataError, OptionError
from epitaxy_optimade.properties import factor
from epitaxy_optimade.source import OptimadeSource

RECORDED = Path(__file__).parents[4] / "shared/data/recorded_responses/optimade"


def document(**changes) -> dict:
    attributes = {
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": [[0.0, 2.7, 2.7], [2.7, 0.0, 2.7], [2.7, 2.7, 0.0]],
        "cartesian_site_positions": [[0.0, 0.0, 0.0], [1.35, 1.35, 1.35]],
        "species": [
            {"name": "Ga", "chemical_symbols": ["Ga"], "concentration": [1.0]},
            {"name": "As", "chemical_symbols": ["As"], "concentration": [1.0], "mass": [74.9]},
        ],
        "species_at_sites": ["Ga", "As"],
        "nsites": 2,
        "structure_features": [],
        **changes,
    }
    return {"type": "structures", "id": "x-1", "attributes": attributes}


def source(folder: Path, *documents: dict, **options) -> OptimadeSource:
    path = folder / "dump.jsonl"
    lines = [{"x-optimade": {"meta": {"api_version": "1.2.0"}}}, *documents]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return OptimadeSource(path=path, **options)


def test_a_crystal_is_read_as_it_is_written(tmp_path):
    (entry,) = source(tmp_path, document())
    assert entry.id == "dump:x-1"
    assert entry.numbers.tolist() == [31, 33]
    assert entry.pbc.all()
    assert entry.cell.tolist() == document()["attributes"]["lattice_vectors"]
    assert entry.positions.tolist() == [[0.0, 0.0, 0.0], [1.35, 1.35, 1.35]]


@pytest.mark.parametrize(
    ("changes", "pbc"),
    [
        (
            {
                "dimension_types": [1, 1, 0],
                "nperiodic_dimensions": 2,
                "lattice_vectors": [[3.0, 0, 0], [0, 3.0, 0], [None, None, None]],
            },
            [True, True, False],
        ),
        (
            {"dimension_types": [0, 0, 0], "nperiodic_dimensions": 0, "lattice_vectors": None},
            [False] * 3,
        ),
        ({"dimension_types": None, "nperiodic_dimensions": None}, [True] * 3),
        ({"species": None, "nsites": None}, [True] * 3),
    ],
)
def test_layers_molecules_and_what_servers_leave_out(tmp_path, changes, pbc):
    (entry,) = source(tmp_path, document(**changes))
    assert entry.pbc.tolist() == pbc
    assert np.isfinite(entry.cell).all()
    assert not entry.cell[~entry.pbc].any()


def test_a_site_that_is_only_a_vacancy_holds_no_atom(tmp_path):
    species = [
        {"name": "Ga", "chemical_symbols": ["Ga"], "concentration": [1.0]},
        {"name": "hole", "chemical_symbols": ["vacancy"], "concentration": [1.0]},
    ]
    (entry,) = source(tmp_path, document(species=species, species_at_sites=["Ga", "hole"]))
    assert entry.numbers.tolist() == [31]


def one(symbols: list[str], shares: list[float], **more) -> dict:
    first = {"name": "Ga", "chemical_symbols": symbols, "concentration": shares, **more}
    return {"species": [first, document()["attributes"]["species"][1]]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (one(["Ga", "In"], [0.5, 0.5]), "sites with mixed elements"),
        (one(["Ga", "vacancy"], [0.9, 0.1]), "partly vacant sites"),
        (one(["Ga"], [0.8]), "partly occupied sites"),
        (one(["X"], [1.0]), "unknown elements (X)"),
        (one(["Qq"], [1.0]), "no element 'Qq'"),
        (one(["Ga"], [1.0], attached=["H"], nattached=[1]), "atoms attached to sites"),
        ({"structure_features": ["disorder"]}, "disordered sites"),
        ({"structure_features": ["assemblies"]}, "assemblies"),
        ({"structure_features": ["implicit_atoms"]}, "implicit atoms"),
        ({"structure_features": ["unknown_positions"]}, "unknown positions"),
        ({"cartesian_site_positions": None}, "cartesian_site_positions missing"),
        ({"cartesian_site_positions": [[0, 0, None], [1, 1, 1]]}, "not finite"),
        ({"lattice_vectors": None}, "lattice_vectors missing"),
        ({"lattice_vectors": [[1, 0, 0], [0, 1, 0], None]}, "without a lattice vector"),
        ({"nperiodic_dimensions": 2}, "nperiodic_dimensions contradicts dimension_types"),
        ({"dimension_types": [1, 1, 2]}, "dimension_types is not three times 0 or 1"),
        ({"nsites": 3}, "nsites is not the number of positions"),
        ({"species_at_sites": ["Ga"]}, "not one species for each position"),
        ({"species_at_sites": ["Ga", "Arsenic"]}, "no element 'Arsenic'"),
    ],
)
def test_documents_that_stand_for_no_atoms_are_counted_and_named(tmp_path, changes, reason):
    bad = {**document(**changes), "id": "x-2"}
    read = source(tmp_path, document(), bad)
    assert [entry.id for entry in read] == ["dump:x-1"]
    (note,) = read.notes
    assert note.startswith("1 of 2 dropped: ")
    assert reason in note
    assert note.endswith("(dump:x-2)")


def test_whatever_stands_in_a_document_it_is_read_or_refused_by_name(tmp_path):
    own = {"_oqmd_delta_e": -0.4, "_mp_stability": {"gga_gga+u": {"energy_above_hull": 0.1}}}
    changed = [
        {**doc, "type": "structures", "id": f"x-{i}"}
        for i, (_, _, doc) in enumerate(spoiled(document(**own)))
    ]
    read = source(tmp_path, *changed)
    n_read = 0
    for entry in read:
        assert len(entry.numbers) == len(entry.positions) > 0
        n_read += 1
    assert n_read > 100
    assert n_read + sum(int(note.split()[0]) for note in read.notes) == len(changed)


def test_documented_fields_of_providers_become_targets(tmp_path):
    oqmd = document(_oqmd_delta_e=-0.4, _oqmd_stability=-0.01, _oqmd_band_gap=1.2)
    mp = document(
        _mp_stability={
            "gga_gga+u": {"formation_energy_per_atom": -0.5, "energy_above_hull": 0.02},
            "r2scan": {"formation_energy_per_atom": -0.6, "energy_above_hull": 0.0},
        }
    )
    alexandria = document(
        _alexandria_energy=-8.5, _alexandria_hull_distance=0.1, _alexandria_xc_functional="PBESol"
    )
    jarvis = document(_jarvis_optb88vdw_bandgap=0.3, _jarvis_ehull="na")
    documents = [{**d, "id": f"x-{i}"} for i, d in enumerate([oqmd, mp, alexandria, jarvis])]
    entries = list(source(tmp_path, *documents))
    assert [{k: float(v) for k, v in entry.targets.items()} for entry in entries] == [
        {"formation_energy": -0.4, "decomposition_energy": -0.01, "band_gap": 1.2},
        {"formation_energy": -0.5, "energy_above_hull": 0.02},
        {"energy": -8.5, "energy_above_hull": 0.1},
        {"band_gap": 0.3},
    ]
    assert [entry.method.xc_functional for entry in entries] == [
        "GGA/GGA+U",
        "GGA/GGA+U",
        "PBEsol",
        "OptB88vdW",
    ]
    assert {entry.method.code for entry in entries} == {"VASP"}
    mapping = {
        "formation_energy": "_mp_stability.r2scan.formation_energy_per_atom",
        "energy_above_hull": "_mp_stability.r2scan.energy_above_hull",
    }
    (entry,) = source(tmp_path, mp, mapping=mapping, xc_functional="r2SCAN")
    assert float(entry.targets["formation_energy"]) == -0.6
    assert entry.method.xc_functional == "r2SCAN"


def test_mapped_fields_are_converted_by_their_declared_or_given_unit(tmp_path):
    info = {
        "type": "info",
        "id": "structures",
        "properties": {"_x_e": {"unit": "meV/atom"}, "_x_k": {"unit": "kbar"}, "_x_g": None},
    }
    found = document(_x_e=-250.0, _x_k=980.0, _x_g=0.1)
    (entry,) = source(
        tmp_path,
        info,
        found,
        mapping={"energy": "_x_e", "stress": "_x_missing", "band_gap": "_x_g"},
        units={"band_gap": "Hartree"},
    )
    assert float(entry.targets["energy"]) == pytest.approx(-0.5)  # two atoms
    assert float(entry.targets["band_gap"]) == pytest.approx(2.7211386)
    with pytest.raises(OptionError, match=r"kbar.*cannot become 'eV'"):
        list(source(tmp_path, info, found, mapping={"band_gap": "_x_k"}))
    with pytest.raises(OptionError, match="furlong"):
        source(tmp_path, found, mapping={"energy": "_x_e"}, units={"energy": "furlong"})
    with pytest.raises(OptionError, match="which mapping does not"):
        source(tmp_path, found, units={"energy": "eV"})
    with pytest.raises(DataError, match="Did you mean 'band_gap'"):
        source(tmp_path, found, mapping={"bandgap": "_x_g"})


@pytest.mark.parametrize(
    ("unit", "target", "value"),
    [
        ("eV", "energy", 1.0),
        ("eV/atom", "energy", 4.0),
        ("kJ/mol", "energy", 0.01036427),
        ("eV", "formation_energy", 0.25),
        ("meV/atom", "exfoliation_energy", 1.0),
        ("kbar", "bulk_modulus", 0.1),
        ("GPa", "stress", 0.006241509),
        ("Hartree/Bohr", "forces", 51.42207),
    ],
)
def test_units_are_converted(unit, target, value):
    assert factor(unit, target, n_atoms=4) == pytest.approx(value, rel=1e-6)


@pytest.mark.skipif(not RECORDED.is_dir(), reason="needs ../shared/data/recorded_responses")
@pytest.mark.parametrize(("name", "n"), [("test_data.jsonl", 17), ("raw_test_structures.json", 18)])
def test_recorded_documents_are_read(name, n):
    read = OptimadeSource(path=RECORDED / name)
    entries = list(read)
    assert len(entries) + sum(int(note.split()[0]) for note in read.notes) == n
    assert len({entry.id for entry in entries}) == len(entries) >= 17
    assert all(len(entry) == len(entry.positions) for entry in entries)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"x-optimade": {}}\n{"type": "structures", "id"', "line 2 is cut or not JSON"),
        ('{"x-optimade": {}}\n[1]\n', "line 2 is not a JSON object"),
        ('{"x-optimade": {}}\n', "no OPTIMADE structures in this file"),
        ("[1, 2", "damaged, cut or not JSON"),
        ("[1, 2]", "neither JSON lines, nor a list"),
    ],
)
def test_damaged_dumps_are_named(tmp_path, content, said):
    path = tmp_path / "dump.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        list(OptimadeSource(path=path))
    assert str(path) in str(caught.value)


def test_dumps_may_be_compressed_and_cut_to_a_limit(tmp_path):
    import gzip

    documents = [{**document(), "id": f"x-{i}"} for i in range(5)]
    source(tmp_path, *documents)
    packed = tmp_path / "dump.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "dump.jsonl").read_bytes()))
    read = OptimadeSource(path=packed, limit=3)
    assert [entry.id for entry in read] == ["dump:x-0", "dump:x-1", "dump:x-2"]
    assert read.fraction == 1.0
