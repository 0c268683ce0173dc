"""Write small files in the layouts of the public sets, with labels of ASE's EMT potential.

The examples that the conformance kit reads were made with ``python -m
epitaxy_benchmarks.example_files``; tests write more of them. Nothing in them is from the sets:
structures are strained and rattled metals and small molecules, energies, forces and stresses are
EMT's, other properties are made up and say so by being round.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

_METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
_MOLECULES = ("H2O", "CH4", "NH3", "C2H6", "CH3OH", "CO2")
_KBAR = units.GPa / 10


def crystals(n: int, *, seed: int = 0) -> Iterator[Atoms]:
    """Yield strained and rattled cells of four atoms, no two alike."""
    rng = np.random.default_rng(seed)
    for index in range(n):
        atoms = bulk(_METALS[index % len(_METALS)], cubic=True)
        strain = np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))
        atoms.set_cell(np.round(atoms.cell.array @ strain, 6), scale_atoms=True)
        atoms.positions = np.round(atoms.positions + rng.normal(0, 0.05, (4, 3)), 6)
        atoms.calc = EMT()
        yield atoms


def molecules(n: int, *, seed: int = 0) -> Iterator[tuple[str, Atoms]]:
    """Yield name and rattled molecule, no two alike."""
    rng = np.random.default_rng(seed)
    for index in range(n):
        name = _MOLECULES[index % len(_MOLECULES)]
        atoms = molecule(name)
        atoms.positions = np.round(atoms.positions + rng.normal(0, 0.02, (len(atoms), 3)), 6)
        atoms.calc = EMT()
        yield name, atoms


def pymatgen_dict(atoms: Atoms) -> dict[str, Any]:
    """Return the dictionary that pymatgen's ``Structure.as_dict`` gives."""
    fractions = atoms.get_scaled_positions(wrap=False)
    sites = [
        {
            "species": [{"element": symbol, "occu": 1}],
            "abc": list(map(float, abc)),
            "xyz": list(map(float, xyz)),
            "label": symbol,
            "properties": {},
        }
        for symbol, abc, xyz in zip(atoms.symbols, fractions, atoms.positions, strict=True)
    ]
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "charge": 0,
        "lattice": {"matrix": atoms.cell.array.tolist(), "pbc": [True, True, True]},
        "sites": sites,
    }


def jarvis_dict(atoms: Atoms) -> dict[str, Any]:
    """Return the dictionary that JARVIS's ``Atoms.to_dict`` gives."""
    return {
        "lattice_mat": atoms.cell.array.tolist(),
        "coords": atoms.get_scaled_positions(wrap=False).tolist(),
        "elements": list(atoms.symbols),
        "abc": atoms.cell.lengths().tolist(),
        "angles": atoms.cell.angles().tolist(),
        "cartesian": False,
        "props": [""] * len(atoms),
    }


def vasp_stress(atoms: Atoms) -> np.ndarray:
    """Return VASP's stress, (3, 3): kbar, positive under compression."""
    tensor: np.ndarray = -atoms.get_stress(voigt=False) / _KBAR
    return tensor


def write_matbench(path: Path, *, n: int = 70, target: str = "last phdos peak") -> None:
    """Write a MatBench task with structures."""
    rows = [[pymatgen_dict(atoms), 100.0 + i] for i, atoms in enumerate(crystals(n))]
    table = {"index": list(range(n)), "columns": ["structure", target], "data": rows}
    _write_json(path, table)


def write_matbench_compositions(path: Path, *, target: str = "gap expt", n: int = 70) -> None:
    """Write a MatBench task with formulas."""
    rows: list[list[Any]] = [[f"{_METALS[i % 7]}{i + 1}O2", i * 0.5] for i in range(n)]
    if target in ("is_metal", "gfa"):
        rows = [[formula, i % 3 == 0] for i, (formula, _) in enumerate(rows)]
    table = {"columns": ["composition", target], "index": list(range(n)), "data": rows}
    _write_json(path, table)


def write_composition_table(path: Path, *, n: int = 70) -> None:
    """Write a CSV of formulas and values."""
    rows = [f"{_METALS[i % 7]}{i + 1}O2,{i * 0.25}" for i in range(n)]
    _write(path, ("\n".join(["formula,target", *rows]) + "\n").encode())


def write_castelli(path: Path, *, n: int = 5) -> None:
    """Write rows of perov_5: cubic cells with CIF text."""
    lines = [",material_id,cif,formula,heat_all,heat_ref,dir_gap,ind_gap"]
    for i in range(n):
        a = 4.0 + 0.1 * i
        cif = (
            f"data_CuAlO3\n_symmetry_space_group_name_H-M   'P 1'\n_cell_length_a   {a:.6f}\n"
            f"_cell_length_b   {a:.6f}\n_cell_length_c   {a:.6f}\n_cell_angle_alpha   90.0\n"
            "_cell_angle_beta   90.0\n_cell_angle_gamma   90.0\nloop_\n"
            " _symmetry_equiv_pos_site_id\n _symmetry_equiv_pos_as_xyz\n  1  'x, y, z'\n"
            "loop_\n _atom_site_type_symbol\n _atom_site_label\n _atom_site_symmetry_multiplicity\n"
            " _atom_site_fract_x\n _atom_site_fract_y\n _atom_site_fract_z\n"
            " _atom_site_occupancy\n"
            "  Cu  Cu0  1  0.0  0.0  0.0  1\n  Al  Al1  1  0.5  0.5  0.5  1\n"
            "  O  O2  1  0.5  0.5  0.0  1\n  O  O3  1  0.5  0.0  0.5  1\n"
            "  O  O4  1  0.0  0.5  0.5  1\n"
        )
        lines.append(f'{i},{1000 + i},"{cif}",CuAlO3,{0.5 * i},{1.0 + i},{0.2 * i},{0.1 * i}')
    _write(path, ("\n".join(lines) + "\n").encode())


def write_matcalc(path: Path, *, n: int = 70) -> None:
    """Write structures with bulk and shear moduli."""
    rows = [
        {
            "mp_id": f"mp-{1000 + i}",
            "formula": atoms.get_chemical_formula(),
            "structure": pymatgen_dict(atoms),
            "bulk_modulus_vrh": 100.0 + i,
            "shear_modulus_vrh": 50.0 + i,
        }
        for i, atoms in enumerate(crystals(n))
    ]
    _write_json(path, rows)


def write_jarvis(path: Path, *, n: int = 70) -> None:
    """Write a dft_3d file; every second entry has no TB-mBJ gap."""
    rows = [
        {
            "jid": f"JVASP-{i + 1}",
            "atoms": jarvis_dict(atoms),
            "formula": atoms.get_chemical_formula(),
            "formation_energy_peratom": -0.01 * i,
            "ehull": 0.01 * i,
            "optb88vdw_bandgap": 0.1 * i,
            "mbj_bandgap": 0.2 * i if i % 2 else "na",
            "hse_gap": "na",
            "bulk_modulus_kv": 80.0 + i,
            "shear_modulus_gv": "na",
            "exfoliation_energy": "na",
            "optb88vdw_total_energy": atoms.get_potential_energy() / len(atoms),
        }
        for i, atoms in enumerate(crystals(n))
    ]
    _write_json(path, rows)


def write_leaderboard(path: Path, values: Mapping[str, Mapping[str, Any]]) -> None:
    """Write labels by id: {"train": {id: value}, "val": ..., "test": ...}."""
    _write_json(path, values)


def write_oxide_polymorphs(path: Path, *, n: int = 16) -> None:
    """Write an equation of state for two functionals."""
    rng = np.random.default_rng(0)
    calculations = []
    for i in range(n):
        atoms = bulk("Cu", a=3.5 + 0.01 * i, cubic=True)
        atoms.positions += rng.normal(0, 0.05, (4, 3))
        atoms.calc = EMT()
        stress = vasp_stress(atoms)
        six = [stress[0, 0], stress[1, 1], stress[2, 2], stress[1, 2], stress[0, 2], stress[0, 1]]
        calculations.append(
            {
                "incar": {"doc": "INCAR parameters", "encut": 520.0},
                "atoms": {
                    "cell": atoms.cell.array.tolist(),
                    "symbols": list(atoms.symbols),
                    "tags": [0] * len(atoms),
                    "pbc": [True, True, True],
                    "positions": atoms.positions.tolist(),
                },
                "data": {
                    "total_energy": atoms.get_potential_energy(),
                    "forces": atoms.get_forces().tolist(),
                    "stress": [float(x) for x in six],
                    "volume": atoms.get_volume(),
                    "fermi_level": 5.0,
                },
            }
        )
    tree = {"EOS": {"calculations": calculations}, "final": {"calculations": calculations[:1]}}
    _write_json(path, {"CuO2": {"rutile": {"PBE": tree, "LDA": tree}}})


def write_alignn(path: Path, *, n: int = 70) -> None:
    """Write id_prop.json: energies per atom, VASP's stress in the order of the mlearn frames."""
    rows = []
    for i, atoms in enumerate(crystals(n)):
        s = vasp_stress(atoms)
        rows.append(
            {
                "jid": str(i + 1),
                "atoms": jarvis_dict(atoms),
                "total_energy": atoms.get_potential_energy() / len(atoms),
                "forces": atoms.get_forces().tolist(),
                "stresses": [s[0, 0], s[1, 1], s[2, 2], s[0, 1], s[0, 2], s[1, 2]],
            }
        )
    _write_json(path, rows)


def write_oqmd(path: Path, *, n: int = 70, cartesian: bool = False) -> None:
    """Write OQMD's rows; "cart_coords" are fractional unless `cartesian`."""
    rows = []
    for i, atoms in enumerate(crystals(n)):
        fractions = atoms.get_scaled_positions()
        sites = [
            f"{symbol} @ {x:.6g} {y:.6g} {z:.6g}"
            for symbol, (x, y, z) in zip(atoms.symbols, fractions, strict=True)
        ]
        rows.append(
            {
                "name": atoms.get_chemical_formula(),
                "entry_id": 5000 + i,
                "natoms": len(atoms),
                "sites": sites,
                "band_gap": 0.1 * i,
                "delta_e": -0.01 * i,
                "stability": 0.02 * i - 0.1,
                "atomic_numbers": atoms.numbers.tolist(),
                "cart_coords": (atoms.positions if cartesian else fractions).tolist(),
                "cell": atoms.cell.array.tolist(),
            }
        )
    _write_json(path, rows)


def write_mptrj(path: Path, *, n: int = 70) -> None:
    """Write MPtrj: seven frames of each material."""
    tree: dict[str, dict[str, Any]] = {}
    for i, atoms in enumerate(crystals(n)):
        material, frame = f"mp-{1 + i // 7}", f"mp-{100 + i // 7}-0-{i % 7}"
        energy = atoms.get_potential_energy()
        tree.setdefault(material, {})[frame] = {
            "structure": pymatgen_dict(atoms),
            "uncorrected_total_energy": energy,
            "corrected_total_energy": energy - 1.0,
            "energy_per_atom": (energy - 1.0) / len(atoms),
            "ef_per_atom": -0.5,
            "e_per_atom_relaxed": (energy - 1.0) / len(atoms),
            "ef_per_atom_relaxed": -0.5,
            "force": atoms.get_forces().tolist(),
            "stress": vasp_stress(atoms).tolist(),
            "magmom": [0.25] * len(atoms) if i % 2 else None,
            "bandgap": 0.0,
            "mp_id": material,
        }
    _write_json(path, tree)


def write_aselmdb(path: Path, *, n: int = 70, deleted: tuple[int, ...] = ()) -> None:
    """Write an ASE LMDB as FAIR Chemistry's LMDBDatabase does."""
    import lmdb

    path.unlink(missing_ok=True)
    environment = lmdb.open(str(path), subdir=False, map_size=2**24, lock=False)
    with environment, environment.begin(write=True) as transaction:
        for i, atoms in enumerate(crystals(n), start=1):
            row = {
                "unique_id": f"{i:032x}",
                "numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.tolist(),
                "cell": atoms.cell.array.tolist(),
                "pbc": [True, True, True],
                "tags": [0] * len(atoms),
                "calculator": "unknown",
                "energy": atoms.get_potential_energy(),
                "forces": atoms.get_forces().tolist(),
                "stress": atoms.get_stress().tolist(),
                "key_value_pairs": {},
                "data": {"sid": f"random{i // 2}", "fid": i % 2},
            }
            if i not in deleted:
                transaction.put(str(i).encode(), _packed(row))
        transaction.put(b"nextid", _packed(n + 1))
        transaction.put(b"deleted_ids", _packed(list(deleted)))


def write_s2ef(folder: Path, *, n: int = 10) -> None:
    """Write 0.extxyz.xz and 0.txt.xz of S2EF."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.extxyz import write_xyz

    text = io.StringIO()
    lines = []
    for i, atoms in enumerate(crystals(n)):
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, free_energy=energy, forces=forces)
        write_xyz(text, [atoms])
        lines.append(f"random{i},frame{10 * i},{-0.5 - i}\n")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "0.extxyz.xz", text.getvalue().encode())
    _write(folder / "0.txt.xz", "".join(lines).encode())


def write_ani1x(path: Path, *, n: int = 24) -> None:
    """Write ANI-1x's groups; every fifth conformer has not been computed."""
    import h5py

    found: dict[str, list[Atoms]] = {}
    for _, atoms in molecules(n):
        found.setdefault(atoms.get_chemical_formula(), []).append(atoms)
    with h5py.File(path, "w", track_order=False) as file:
        for formula, conformers in sorted(found.items()):
            group = file.create_group(formula)
            energies = np.array([a.get_potential_energy() for a in conformers]) / units.Hartree
            forces = np.array([a.get_forces() for a in conformers]) / units.Hartree
            energies[4::5] = np.nan
            group["atomic_numbers"] = conformers[0].numbers.astype(np.uint8)
            group["coordinates"] = np.array([a.positions for a in conformers], dtype=np.float32)
            group["wb97x_dz.energy"] = energies
            group["wb97x_dz.forces"] = forces.astype(np.float32)
            group["wb97x_dz.dipole"] = np.full((len(conformers), 3), 0.25, dtype=np.float32)
            group["ccsd(t)_cbs.energy"] = energies - 0.5


def write_qm7x(path: Path, *, n: int = 12) -> None:
    """Write QM7-X's molecules with their conformations."""
    import h5py

    with h5py.File(path, "w") as file:
        for i, (_, atoms) in enumerate(molecules(n)):
            kind = "opt" if i < len(_MOLECULES) else f"d{i // len(_MOLECULES)}"
            index = i % len(_MOLECULES) + 1
            group = file.create_group(f"{index}/Geom-m{index}-i1-c1-{kind}")
            group["atNUM"] = atoms.numbers
            group["atXYZ"] = atoms.positions
            group["ePBE0+MBD"] = np.array([atoms.get_potential_energy()])
            group["totFOR"] = atoms.get_forces()
            group["vDIP"] = np.array([0.1, 0.0, 0.2])
            group["hCHG"] = np.zeros((len(atoms), 1))
            group["eH"], group["eL"], group["HLgap"] = [-6.0], [-1.0], [5.0]
            group["mTPOL"] = np.array([10.0, 1.0, 2.0, 1.0, 20.0, 3.0, 2.0, 3.0, 30.0])


def qm9_text(index: int, atoms: Atoms) -> str:
    """Return one molecule in QM9's own format, with ``*^`` for powers of ten."""
    energy = atoms.get_potential_energy() / units.Hartree
    zero_point = 0.05
    facts = [157.7, 157.7, 157.7, 1.0, 13.21, -0.3877, 0.1171, 0.5048, 35.3641, zero_point]
    facts += [energy + zero_point + shift for shift in (0.0, 0.003, 0.004, -0.02)]
    words = "\t".join(f"{value:.8f}" for value in [*facts, 6.469])
    rows = [
        f"{symbol}\t{x:.10f}\t{y:.10f}\t{z:.10f}\t2.1997*^-6"
        for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
    ]
    lines = [str(len(atoms)), f"gdb {index}\t{words}\t", *rows, "1341.307\t3151.7", "C\tC", "I\tI"]
    return "\n".join(lines) + "\n"


def write_qm9(path: Path, *, n: int = 12) -> None:
    """Write QM9's archive."""
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for index, (_, atoms) in enumerate(molecules(n), start=1):
            text = qm9_text(index, atoms).encode()
            member = tarfile.TarInfo(f"dsgdb9nsd_{index:06d}.xyz")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    _write(path, stored.getvalue())


def write_ethanol(path: Path, *, n: int = 5) -> None:
    """Write molecules in kcal/mol as MD17 does."""
    kcal = units.kcal / units.mol
    lines = []
    for _, atoms in molecules(n):
        lines += [
            str(len(atoms)),
            "Properties=species:S:1:pos:R:3:forces:R:3 "
            f"energy={float(atoms.get_potential_energy() / kcal)!r}",
        ]
        for symbol, position, force in zip(
            atoms.symbols, atoms.positions, atoms.get_forces() / kcal, strict=True
        ):
            lines.append(" ".join([symbol, *(f"{x:.10f}" for x in (*position, *force))]))
    _write(path, ("\n".join(lines) + "\n").encode())


EXAMPLES: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        "matbench_phonons.json.gz": write_matbench,
        "aflow__Egap__train.csv.xz": write_composition_table,
        "perov5_val.csv": write_castelli,
        "mp-binary-pbe-elasticity.json.gz": write_matcalc,
        "dft_3d.json.zip": write_jarvis,
        "supporting-information.json": write_oxide_polymorphs,
        "id_prop.json.gz": write_alignn,
        "oqmd.json.gz": write_oqmd,
        "MPtrj_example.json.gz": write_mptrj,
        "oc20_example.aselmdb": write_aselmdb,
        "ani1x-example.h5": write_ani1x,
        "1000.hdf5": write_qm7x,
        "dsgdb9nsd.xyz.tar.bz2": write_qm9,
        "ethanol_reduced_100.xyz": write_ethanol,
    }
)
"""Name of an example file -> what writes it."""


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value).encode())


def _write_json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value).encode())


def _write(path: Path, content: bytes) -> None:
    """Write bytes, packed as the file's name says, the same each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    elif path.suffix == ".bz2":
        content = bz2.compress(content)
    elif path.suffix == ".xz":
        content = lzma.compress(content)
    elif path.suffix == ".zip":
        stored = io.BytesIO()
        with zipfile.ZipFile(stored, "w", zipfile.ZIP_DEFLATED) as archive:
            member = zipfile.ZipInfo(path.stem, date_time=(2020, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
        content = stored.getvalue()
    path.write_bytes(content)


def write_examples(folder: Path) -> None:
    """Write the examples of the conformance kit."""
    for name, write in EXAMPLES.items():
        write(folder / name)


if __name__ == "__main__":
    write_examples(Path(__file__).with_name("examples"))
