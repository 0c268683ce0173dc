"""Which set a file or folder is of, by its name and its first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from epitaxy.errors import DataError
from epitaxy_benchmarks.composition_table import TABLES
from epitaxy_benchmarks.leaderboard import POSCAR_FILES
from epitaxy_benchmarks.matbench import TASKS
from epitaxy_benchmarks.metatrain import SAMPLES
from epitaxy_benchmarks.reading import DAMAGED, plain_stem, unpacked

_HEAD = 262_144
_HDF5 = b"\x89HDF\r\n\x1a\n"
_QM9 = re.compile(r"(dsgdb9nsd(_\d+)?|dsC7O2H10nsd(_\d+)?)\.xyz")
_QM7X = re.compile(r"[1-8]000\.hdf5")
_KEYS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # a source, and keys that the first entries of its JSON files all hold
    ("mlearn", ("virial_stress", "outputs")),
    ("alignn", ("jid", "lattice_mat", "total_energy", "forces")),
    ("jarvis", ("jid", "lattice_mat", "formation_energy_peratom")),
    ("mptrj", ("uncorrected_total_energy", "ef_per_atom", "force")),
    ("matcalc", ("mp_id", "formula", "bulk_modulus_vrh")),
    ("matcalc", ("mp_id", "formula", "heat_capacity")),
    ("matcalc", ("material_id", "formula", "corrected_energy", "formation_energy_per_atom")),
    ("matsciml", ("cart_coords", "delta_e", "sites")),
    ("matsciml", ("cart_coords", "_cell_length_a")),
    ("matsciml", ("entry_id", "targets", "regression", "e_above_hull")),
    ("matsciml", ("formula_pretty", "uncorrected_energy_per_atom", "is_stable", "structure")),
    ("oxide_polymorphs", ("EOS", "calculations", "incar", "total_energy")),
)


def recognise(path: Path) -> str | None:
    """Return the name of the source that reads `path`, None if it is no file of these sets."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return None
    name = path.name
    kind = name.lower()
    stem = plain_stem(path)
    if kind.endswith((".aselmdb", ".lmdb")):
        return "open_catalyst"
    if _QM9.match(name) and kind.endswith((".xyz", ".tar", ".bz2", ".gz")):
        return "qm9"
    if ".xyz" in kind or ".extxyz" in kind:
        return _xyz(path, stem)
    if kind.endswith((".hdf5", ".h5")):
        return _hdf5(path)
    if ".csv" in kind:
        return _csv(path, stem)
    if ".json" in kind:
        return _json(path, stem)
    return None


def _folder(path: Path) -> str | None:
    if any(path.glob("*.aselmdb")):
        return "open_catalyst"
    if any(_QM7X.fullmatch(file.name) for file in path.glob("*.hdf5")):
        return "qm7x"
    if next(path.glob("dsgdb9nsd_*.xyz"), None) is not None:
        return "qm9"
    pairs = (file.name.replace(".extxyz", ".txt") for file in path.glob("*.extxyz*"))
    return "open_catalyst" if any((path / pair).is_file() for pair in pairs) else None


def _xyz(path: Path, stem: str) -> str | None:
    if stem in SAMPLES:
        return "metatrain"
    if stem.startswith("lips_"):
        return "matsciml"
    beside = path.with_name(path.name.replace(".extxyz", ".txt"))
    return "open_catalyst" if beside != path and beside.is_file() else None


def _hdf5(path: Path) -> str | None:
    if "ani1x" in path.name.lower():
        return "ani1x"
    with path.open("rb") as raw:
        is_hdf5 = raw.read(len(_HDF5)) == _HDF5
    return "qm7x" if is_hdf5 and _QM7X.fullmatch(path.name) else None


def _csv(path: Path, stem: str) -> str | None:
    header = _head(path, 400).partition(b"\n")[0].decode("utf-8", "replace").strip()
    columns = header.split(",")
    if "cif" in columns and "heat_ref" in columns:
        return "castelli"
    table = re.sub("__(train|val|test)$", "", stem)
    is_table = table in TABLES or columns == ["formula", "target"]
    return "composition_table" if is_table else None


def _json(path: Path, stem: str) -> str | None:
    if stem in TASKS:
        return "matbench"
    if stem.startswith("MPtrj"):
        return "mptrj"
    if stem in POSCAR_FILES:
        return "jarvis"
    head = _head(path, _HEAD)
    for source, keys in _KEYS:
        if all(f'"{key}"'.encode() in head for key in keys):
            return source
    return None


def _head(path: Path, n_bytes: int) -> bytes:
    """Return the first unpacked bytes, fewer if the file is damaged."""
    try:
        with path.open("rb") as raw:
            return unpacked(raw, path).read(n_bytes)
    except (*DAMAGED, DataError):
        return b""
