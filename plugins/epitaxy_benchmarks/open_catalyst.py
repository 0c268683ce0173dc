"""OC20, OC22 and other sets of the Open Catalyst Project and FAIR Chemistry.

Two layouts are read:
- ASE LMDB (``.aselmdb``, https://github.com/FAIR-Chem/fairchem, core/datasets/lmdb_database.py):
  keys "1", "2" ... with zlib-compressed JSON of an ASE row {numbers, positions, cell, pbc, energy,
  forces, stress, tags, key_value_pairs, data}, and the keys nextid, metadata, deleted_ids.
- S2EF as downloaded (README_s2ef_train_200K): 0.extxyz.xz ... with 0.txt.xz beside them, whose
  line i is ``system_id,frame_number,reference_energy`` of frame i.

LMDB files of the older kind hold pickled torch_geometric objects. A pickle runs code when it is
opened, so they are refused.

Traps: S2EF files hold total energies; models of OC20 are trained on adsorption energies, total
minus reference_energy (option `energy`). Test sets have no labels. Frames of one system are near
copies of each other: split by the tag system.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks.geometry import Geometry, number, voigt
from epitaxy_benchmarks.reading import DAMAGED, Reading, brief, explained, find_files, text_of
from epitaxy_benchmarks.xyz_frames import frames

_RESERVED = frozenset({b"nextid", b"metadata", b"deleted_ids"})
_PICKLE = b"\x80"
_XYZ = (".extxyz", ".xyz")
_CARDS = {
    "OC20": ("RPBE", "Chanussot et al., ACS Catal. 11, 6059 (2021)"),
    "OC22": ("PBE+U", "Tran et al., ACS Catal. 13, 3066 (2023)"),
    "ODAC23": ("PBE+D3", "Sriram et al., ACS Cent. Sci. 10, 923 (2024)"),
    "OMat24": ("PBE(+U)", "Barroso-Luque et al., arXiv:2410.12771 (2024)"),
    "other": ("", ""),
}
_ID_KEYS = ("sid", "system_id", "id")
_FRAME_KEYS = ("fid", "frame_number", "frame")


class OpenCatalystSource:
    """Reads .aselmdb files, or S2EF's extxyz files with their txt files.

    Args:
        path: one file, or a folder with them.
        dataset: which set it is, for level of theory and citation; "auto" looks for its name in
            the path.
        energy: total energies, or adsorption energies (total minus the reference energy of the
            txt file).
    """

    def __init__(
        self,
        *,
        path: Path,
        dataset: Literal["auto", "OC20", "OC22", "ODAC23", "OMat24", "other"] = "auto",
        energy: Literal["total", "adsorption"] = "total",
    ):
        self._path = Path(path)
        patterns = ("*.aselmdb", "*.extxyz", "*.extxyz.xz", "*.extxyz.gz", "*.lmdb")
        self._files = find_files(self._path, patterns)
        if all(file.suffix == ".aselmdb" for file in self._files) and energy == "adsorption":
            raise DataError(f"{path}: adsorption energies need the txt files of S2EF's extxyz")
        self._adsorption = energy == "adsorption"
        self._dataset = dataset if dataset != "auto" else _guess(self._path)
        self._reading: Reading = Reading()
        self._done: float | None = None

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title="Open Catalyst" if self._dataset == "other" else self._dataset,
            quantities=("energy", "forces", "stress"),
            license="CC-BY-4.0",
            citation=_CARDS[self._dataset][1],
            url="https://fair-chem.github.io",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the bytes (extxyz) or rows (LMDB) that were read so far."""
        return self._done if self._done is not None else self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the frames, file by file.

        Raises:
            DataError: a file is damaged, pickled, or does not fit its txt file.
        """
        self._reading, self._done = Reading([f for f in self._files if _is_xyz(f)]), None
        reading = self._reading
        for index, path in enumerate(self._files):
            name = path.relative_to(self._path).as_posix() if path != self._path else path.name
            if _is_xyz(path):
                yield from self._extxyz(path, name.split(".")[0], reading)
            else:
                yield from self._lmdb(path, name.split(".")[0], index)

    def _method(self) -> Method:
        settings = "adsorption energies" if self._adsorption else ""
        return Method(code="VASP", xc_functional=_CARDS[self._dataset][0], settings=settings)

    def _origin(self, path: Path) -> Origin:
        return Origin(url=path.name, database=self.card.title, license="CC-BY-4.0")

    def _extxyz(self, path: Path, name: str, reading: Reading) -> Iterator[Entry]:
        systems = _systems(path)
        if self._adsorption and systems is None:
            raise DataError(f"{path}: no txt file beside it, which has the reference energies")
        n_frames = 0
        for index, (structure, values) in enumerate(frames(path, reading)):
            where = f"{path}: frame {index}"
            with explained(where, "S2EF's files"):
                tags, reference = {}, 0.0
                if systems is not None:
                    if index >= len(systems):
                        raise DataError(f"its txt file has only {len(systems)} lines")
                    system, frame, reference = systems[index]
                    tags = {"system": system, "frame": frame}
                energy = number(values.get("energy"))
                shift = reference if self._adsorption else 0.0
                entry = structure.entry(
                    {
                        "energy": None if energy is None else energy - shift,
                        "forces": values.get("forces"),
                    },
                    id=f"{name}#{index}",
                    method=self._method(),
                    origin=self._origin(path),
                    tags=tags,
                )
            yield entry
            n_frames += 1
        if systems is not None and n_frames != len(systems):
            raise DataError(
                f"{path}: {n_frames} frames but its txt file has {len(systems)} lines: one of them "
                "was cut"
            )

    def _lmdb(self, path: Path, name: str, index: int) -> Iterator[Entry]:
        facts = path.stat()
        with _environment(path, facts.st_ino, facts.st_mtime_ns).begin() as transaction:
            last = _last_row(transaction, path)
            for key in range(1, last + 1):
                packed = transaction.get(str(key).encode())
                if packed is None:  # deleted
                    continue
                row = _row(packed, f"{path}: row {key}", path)
                with explained(f"{path}: row {key}", "an ASE LMDB"):
                    entry = self._entry(row, f"{name}#{key}", path)
                yield entry
                self._done = (index + key / last) / len(self._files)

    def _entry(self, row: dict[str, Any], name: str, path: Path) -> Entry:
        structure = Geometry(
            np.array(row["numbers"]).astype(np.uint8),
            np.array(row["positions"], dtype=np.float64).reshape(-1, 3),
            np.array(row["cell"], dtype=np.float64).reshape(3, 3),
            np.array(row["pbc"], dtype=bool).reshape(3),
        )
        stress: Any = row.get("stress")
        facts = {**(row.get("data") or {}), **(row.get("key_value_pairs") or {})}
        system = next((str(facts[key]) for key in _ID_KEYS if key in facts), "")
        frame = next((str(facts[key]) for key in _FRAME_KEYS if key in facts), "")
        targets = {
            "energy": number(row.get("energy")),
            "forces": row.get("forces"),
            "stress": voigt(stress) if np.shape(stress) == (3, 3) else stress,
        }
        return structure.entry(
            targets,
            id=name,
            method=self._method(),
            origin=self._origin(path),
            tags={"system": system, "frame": frame},
        )


@lru_cache(maxsize=64)
def _environment(path: Path, inode: int, changed: int) -> Any:
    """Return an open LMDB file; one process can open a file only once.

    Raises:
        DataError: the file is damaged.
    """
    import lmdb

    try:
        return lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False
        )
    except lmdb.Error as error:
        raise DataError(f"{path}: not an LMDB file, or cut: {brief(error)}") from error


def _last_row(transaction: Any, path: Path) -> int:
    """Return the largest row number that was ever given."""
    for key, packed in transaction.cursor().iternext():
        if _is_pickle(packed):
            _refuse(path)
        if key not in _RESERVED and not key.isdigit():
            raise DataError(f"{path}: key {key!r} is not that of a row in an ASE LMDB")
        break
    packed = transaction.get(b"nextid")
    if packed is None:
        raise DataError(f"{path}: not an ASE LMDB, it has no key 'nextid'")
    found = _unpacked(packed, f"{path}: nextid")
    if not isinstance(found, int) or found < 1:
        raise DataError(f"{path}: nextid is {found!r}, a positive number is needed")
    return found - 1


def _row(packed: bytes, where: str, path: Path) -> dict[str, Any]:
    if _is_pickle(packed):
        _refuse(path)
    row = _unpacked(packed, where)
    if not isinstance(row, dict):
        raise DataError(f"{where}: holds {type(row).__name__}, not a row of an ASE LMDB")
    return row


def _unpacked(packed: bytes, where: str) -> Any:
    try:
        return json.loads(zlib.decompress(packed))
    except (zlib.error, ValueError) as error:
        raise DataError(f"{where}: damaged, or not of an ASE LMDB: {brief(error)}") from error


def _is_pickle(packed: bytes) -> bool:
    return packed[:1] == _PICKLE and packed[-1:] == b"."


def _refuse(path: Path) -> None:
    raise DataError(
        f"{path}: holds pickled torch_geometric objects (the older LMDB format). A pickle can run "
        "any code when it is opened, so it is not read. Take the same set as .aselmdb (FAIR "
        "Chemistry's present format) or as extxyz, or convert it in an environment that you "
        "trust: with fairchem, read each object and write ase.Atoms with "
        "fairchem.core.datasets.lmdb_database.LMDBDatabase"
    )


def _systems(path: Path) -> list[tuple[str, str, float]] | None:
    """Return system, frame and reference energy of each frame; None without a txt file."""
    stem = path.name
    for ending in (".xz", ".gz", ".bz2", *_XYZ):
        stem = stem.removesuffix(ending)
    found = [path.with_name(f"{stem}.txt{end}") for end in ("", ".xz", ".gz", ".bz2")]
    file = next((candidate for candidate in found if candidate.is_file()), None)
    if file is None:
        return None
    systems = []
    try:
        with Reading().open(file) as stream:
            for index, line in enumerate(text_of(stream)):
                with explained(f"{file}: line {index + 1}", "S2EF's txt files"):
                    words = line.strip().split(",")
                    reference = float(words[2]) if len(words) > 2 else float("nan")
                    systems.append((words[0], words[1].removeprefix("frame"), reference))
    except DAMAGED as error:
        raise DataError(f"{file}: damaged or cut: {brief(error)}") from error
    return systems


def _is_xyz(path: Path) -> bool:
    return any(ending in path.name for ending in _XYZ)


def _guess(path: Path) -> str:
    text = str(path).lower()
    for name in _CARDS:
        if name.lower() in text:
            return name
    return "OC20" if "s2ef" in text or "is2re" in text else "other"
