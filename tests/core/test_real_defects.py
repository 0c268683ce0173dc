"""Defects that are really in published data: each is caught by default settings and named.

Entries are made as a reader would that does not know of the defect.
"""

import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from epitaxy.composition import composition_entry
from epitaxy.curation.conventions import Conventions
from epitaxy.curation.frames import FrameChecks
from epitaxy.curation.ingest import ingest
from epitaxy.entry import Entry, Method
from epitaxy.errors import DataError
from epitaxy.protocols import Card

DATA = Path(__file__).parents[3] / "shared" / "data"


def read_json(name):
    path = DATA / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(archive.namelist()[0]))
    opened = {".gz": gzip.open, ".xz": lzma.open}[path.suffix]
    with opened(path) as stream:
        return json.load(stream)


def read_table(name):
    with lzma.open(DATA / name, "rt", newline="") as stream:
        return list(csv.DictReader(stream))


def crystal(numbers, positions, cell, targets, **more) -> Entry:
    return Entry(
        numbers=np.asarray(numbers, dtype=np.uint8),
        positions=np.asarray(positions, dtype=float).reshape(-1, 3),
        cell=np.asarray(cell, dtype=float),
        pbc=np.ones(3, dtype=bool),
        targets=MappingProxyType({k: np.asarray(v, dtype=float) for k, v in targets.items()}),
        **more,
    )


def of_pymatgen(document, targets, **more) -> Entry:
    from ase.data import atomic_numbers

    sites = document["sites"]
    numbers = [atomic_numbers[site["species"][0]["element"]] for site in sites]
    positions = np.array([site["abc"] for site in sites]) @ document["lattice"]["matrix"]
    scaled = {k: v(len(sites)) if callable(v) else v for k, v in targets.items()}
    return crystal(numbers, positions, document["lattice"]["matrix"], scaled, **more)


def aflow() -> Iterator[Entry]:
    for row in read_table("composition_tables/benchmark/aflow__energy_atom__train.csv.xz"):
        entry = composition_entry(row["formula"], targets={})
        yield composition_entry(
            row["formula"], targets={"energy": float(row["target"]) * len(entry)}
        )


def table(name: str, target: str) -> Callable[[], Iterator[Entry]]:
    def entries() -> Iterator[Entry]:
        for row in read_table(f"composition_tables/{name}.csv.xz"):
            yield composition_entry(row["formula"], targets={target: float(row["target"])})

    return entries


def jarvis(*names: str) -> Callable[[], Iterator[Entry]]:
    """Labels of the leaderboard, which come without structures and formulas."""

    def entries() -> Iterator[Entry]:
        files = {
            "dft_3d_ehull": "energy_above_hull",
            "dft_3d_formation_energy_peratom": "formation_energy",
            "snumat_Band_gap_HSE": "band_gap",
        }
        found: dict[str, dict[str, float]] = {}
        for name in names:
            parts = read_json(f"jarvis_leaderboard/{name}.json.zip")
            for part in parts.values():
                for key, value in part.items():
                    found.setdefault(key, {})[files[name]] = float(value)
        for key, targets in found.items():
            yield composition_entry("Si", targets=targets, id=key)

    return entries


def nomad(what: str) -> Callable[[], Iterator[Entry]]:
    def entries() -> Iterator[Entry]:
        joule, metre = 1 / 1.602176634e-19, 1e10
        for k, row in enumerate(read_json("matsciml_devsets/nomad_archive_200.json.gz")):
            structure = row["properties"]["structures"]["structure_original"]
            vectors = structure["lattice_vectors"]
            positions, cell = (
                np.array(structure["cartesian_site_positions"]),
                np.array(vectors),
            )
            symbols = structure["species_at_sites"]
            from ase.data import atomic_numbers

            factor = 1.0 if what == "metres" else metre
            method = row["method"].get("simulation", {})
            yield crystal(
                [atomic_numbers[s] for s in symbols],
                positions * factor,
                cell * factor,
                {"energy": row["energies"]["total"]["value"] * (1.0 if what == "joule" else joule)},
                id=f"nomad-{k}",
                method=Method(
                    code=method.get("program_name", ""),
                    xc_functional=method.get("dft", {}).get("xc_functional_type", ""),
                ),
            )

    return entries


def alignn(metal: str) -> Callable[[], Iterator[Entry]]:
    def entries() -> Iterator[Entry]:
        for row in read_json(f"mlearn/{metal}_alignn_id_prop.json.xz"):
            atoms = row["atoms"]
            cell = np.array(atoms["lattice_mat"])
            fractions = np.array(atoms["coords"])
            positions = fractions if atoms["cartesian"] else fractions @ cell
            numbers = [{"Ni": 28, "Cu": 29}[e.strip()] for e in atoms["elements"]]
            targets = {"energy": row["total_energy"], "forces": row["forces"]}
            yield crystal(numbers, positions, cell, targets, id=row["jid"])

    return entries


def mlearn(name: str) -> Callable[[], Iterator[Entry]]:
    def entries() -> Iterator[Entry]:
        for k, row in enumerate(read_json(f"mlearn/{name}.json.xz")):
            labels = row["outputs"]
            yield of_pymatgen(
                row["structure"],
                {
                    "energy": labels["energy"],
                    "forces": labels["forces"],
                    "stress": labels["virial_stress"],
                },
                id=f"{name}-{k}",
            )

    return entries


def oqmd() -> Iterator[Entry]:
    for row in read_json("matsciml_devsets/oqmd_200.json.gz"):
        targets = {"formation_energy": row["delta_e"]}
        yield crystal(
            row["atomic_numbers"], row["cart_coords"], row["cell"], targets, id=str(row["entry_id"])
        )


def mp_summary() -> Iterator[Entry]:
    for row in read_json("matsciml_devsets/mp_summary_200.json.gz"):
        per_atom = row["energy_per_atom"]
        yield of_pymatgen(row["structure"], {"energy": lambda n, e=per_atom: e * n})


def li_fe_o() -> Iterator[Entry]:
    for row in read_json("recorded_responses/mp/Li-Fe-O.json.gz"):
        yield of_pymatgen(
            row["structure"],
            {"energy": row["energy"]},
            id=row["entry_id"],
            method=Method(code="VASP", xc_functional=row["parameters"]["run_type"]),
        )


def perovskites(column: str) -> Callable[[], Iterator[Entry]]:
    def entries() -> Iterator[Entry]:
        for row in read_table("castelli_perov5/cdvae_perov5_val.csv.xz"):
            yield composition_entry(
                row["formula"],
                targets={"formation_energy": float(row[column])},
                id=row["material_id"],
            )

    return entries


def castelli_table() -> Iterator[Entry]:
    for row in read_table("castelli_perov5/matbench_perovskites_formula_eform.csv.xz"):
        yield composition_entry(row["formula"], targets={"formation_energy": float(row["target"])})


def oxides() -> Iterator[Entry]:
    from ase import units
    from ase.data import atomic_numbers

    tree = read_json("oxide_polymorphs_4xc/supporting-information.json.xz")
    for metal, polymorphs in tree.items():
        for polymorph, functionals in polymorphs.items():
            for xc, facts in functionals.items():
                for i, point in enumerate(facts["EOS"]["calculations"]):
                    atoms, labels = point["atoms"], point["data"]
                    yield crystal(
                        [atomic_numbers[s] for s in atoms["symbols"]],
                        atoms["positions"],
                        atoms["cell"],
                        {
                            "energy": labels["total_energy"],
                            "stress": np.array(labels["stress"]) * units.GPa,
                        },
                        id=f"{metal}-{polymorph}-{xc}-{i}",
                        method=Method(xc_functional=xc),
                    )


def ase_frames(name: str, energy: str, forces: str) -> Callable[[], Iterator[Entry]]:
    def entries() -> Iterator[Entry]:
        from ase.io import iread

        with lzma.open(DATA / f"metatrain_small/{name}.xyz.xz", "rt") as stream:
            text = io.StringIO(stream.read())
        for k, atoms in enumerate(iread(text, format="extxyz")):
            results = atoms.calc.results if atoms.calc else {}
            targets = {"energy": results.get(energy, atoms.info.get(energy))}
            if forces:
                targets["forces"] = results.get(forces, atoms.arrays.get(forces))
            yield Entry.from_atoms(atoms, targets=targets, id=f"{name}#{k}")

    return entries


DEFECTS: dict[str, tuple[str, Callable[[], Iterator[Entry]], tuple[str, ...]]] = {
    "AFLOW energy of +77.7 eV/atom": (
        "composition_tables",
        aflow,
        ("have an unlikely energy, far from", "(BrIPb): +80.", "(Ni5Gd)", "(MgCo)"),
    ),
    "JARVIS hull distances up to 8.3 eV/atom": (
        "jarvis_leaderboard",
        jarvis("dft_3d_ehull"),
        ("dropped: energy_above_hull > 6 eV/atom", "65% lie more than 1 eV/atom above the hull"),
    ),
    "JARVIS hull distances that are none": (
        "jarvis_leaderboard",
        jarvis("dft_3d_ehull", "dft_3d_formation_energy_peratom"),
        ("energy_above_hull contradicts formation_energy in",),
    ),
    "a negative gap in SNUMAT": (
        "jarvis_leaderboard",
        jarvis("snumat_Band_gap_HSE"),
        ("1 of 10,386 dropped: band_gap < 0 eV",),
    ),
    "bulk moduli of 784 and 861 GPa": (
        "composition_tables",
        table("benchmark/mp_bulk_modulus__train", "bulk_modulus"),
        ("2 of 4,414 dropped: bulk_modulus > 600 GPa",),
    ),
    "NOMAD: all-electron beside PAW energies": (
        "matsciml_devsets",
        nomad(""),
        ("levels of theory in one set", "FHI-aims"),
    ),
    "NOMAD energies in joule": (
        "matsciml_devsets",
        nomad("joule"),
        ("dropped: energy looks like joule, not eV", "--energy-unit J"),
    ),
    "NOMAD structures in metres": (
        "matsciml_devsets",
        nomad("metres"),
        ("dropped: the cell looks like metres, not Å", "--positions-unit m"),
    ),
    "alignn: Ni energies per atom called total": (
        "mlearn",
        alignn("Ni"),
        ("energies do not grow with the number of atoms: they are per atom", "--energy-per-atom"),
    ),
    "alignn: Cu energies per atom called total": (
        "mlearn",
        alignn("Cu"),
        ("energies do not grow with the number of atoms: they are per atom", "--energy-per-atom"),
    ),
    "mlearn: stresses in kbar, VASP's order and sign": (
        "mlearn",
        mlearn("Ge_training"),
        ("it looks like kbar", "--stress-is-pressure"),
    ),
    "OQMD: cart_coords that are fractional": (
        "matsciml_devsets",
        oqmd,
        ("dropped: positions look fractional", "--positions-unit fractional"),
    ),
    "MP rows without material_id": (
        "matsciml_devsets",
        mp_summary,
        ("of 200 entries have no id",),
    ),
    "Ac near -70 eV/atom": (
        "matsciml_devsets",
        mp_summary,
        ("two levels of theory, codes or units are mixed",),
    ),
    "311 GGA+U beside 64 GGA": (
        "recorded_responses",
        li_fe_o,
        ("energies of 2 levels of theory in one set (VASP, GGA+U: 311; VASP, GGA: 64)",),
    ),
    "perovskite heats per cell called per atom": (
        "castelli_perov5",
        perovskites("heat_ref"),
        ("formation_energy: median +1.32 eV/atom", "divided by 5 atoms: +0.26"),
    ),
    "MatBench perovskites per cell": (
        "castelli_perov5",
        castelli_table,
        ("are these per formula unit or cell (divided by 5 atoms",),
    ),
    "oxides: kbar called GPa, VASP's sign": (
        "oxide_polymorphs_4xc",
        oxides,
        ("as if kbar were read as GPa", "positive under compression"),
    ),
    "MD17 in kcal/mol": (
        "metatrain_small",
        ase_frames("ethanol_reduced_100", "energy", "forces"),
        ("they look like kcal/mol",),
    ),
    "QM9 in Hartree": (
        "metatrain_small",
        ase_frames("qm9_reduced_100", "U0", ""),
        ("they look like Hartree",),
    ),
}


class Listed:
    """A source of entries that are at hand."""

    card = Card(title="test", quantities=())

    def __init__(self, entries):
        self.entries = entries

    def __iter__(self):
        return iter(self.entries)


def said_of(entries, path, **options) -> str:
    """Return all that ingest says with default settings."""
    try:
        report = ingest(Listed(entries), path, **options)
    except DataError as error:
        return str(error)
    findings = report.consistency.findings if report.consistency else ()
    return "\n".join([*report.rejections.lines(), *report.warnings, *map(str, findings)])


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_published_defect_is_named(defect, tmp_path):
    folder, entries, expected = DEFECTS[defect]
    if not (DATA / folder).is_dir():
        pytest.skip(f"{folder} is not in shared/data")
    # Labels without formulas stand for themselves.
    checks = FrameChecks(require=None, duplicates=folder != "jarvis_leaderboard")
    said = said_of(entries(), tmp_path / "set", checks=checks)
    for words in expected:
        assert words in said


@pytest.mark.skipif(not (DATA / "matsciml_devsets").is_dir(), reason="not in shared/data")
def test_fractional_coordinates_are_mended_as_the_message_says(tmp_path):
    said = said_of(
        oqmd(),
        tmp_path / "set",
        checks=FrameChecks(require=None),
        conventions=Conventions(positions_unit="fractional"),
    )
    assert "fractional" not in said
    assert "closer" not in said


@pytest.mark.skipif(not (DATA / "castelli_perov5").is_dir(), reason="not in shared/data")
def test_two_definitions_of_one_quantity_are_a_conflict(tmp_path):
    both = [
        crystal([3, 5, 8], np.eye(3), 4 * np.eye(3), {"formation_energy": value}, id=name)
        for name, value in (("heat_all", 2.76), ("heat_ref", 2.71))
    ]
    said = said_of(both, tmp_path / "set", checks=FrameChecks(require=None))
    assert "structure seen before with another formation_energy (heat_ref)" in said
