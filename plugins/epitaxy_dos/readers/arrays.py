"""Arrays: .npz with energies and spectra of one or many calculations, .csv with one.

.npz   energies (n_points,), dos (n, n_points) or (n_points,) or with spin (n, n_spins, n_points);
       optional fermi and highest (a number or (n,)), ids, formula, and any text or number
       (n,) as a setting: xc_functional and code become the level of theory, others tags.
.csv   columns energy and dos, or energy, up and down, with or without a heading; text after "#"
       is skipped.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.entry import Method
from epitaxy.errors import DataError, EntryError
from epitaxy_dos.readers.files import text_of
from epitaxy_dos.spectrum import Spectrum

_NAMED = ("energies", "dos", "fermi", "highest", "ids", "formula")
_NUMBERS = ("energies", "dos", "fermi", "highest")
_METHOD = ("xc_functional", "code", "settings")


def read_npz(path: Path) -> list[Spectrum]:
    """Return the spectra of a .npz file.

    Raises:
        DataError: the file is damaged, or its arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not {"energies", "dos"} <= set(arrays):
        raise DataError(
            f"{path}: needs the arrays energies and dos; it has {', '.join(arrays) or 'none'}"
        )
    for name in _NUMBERS:
        if name in arrays and arrays[name].dtype.kind not in "fiu":
            raise DataError(f"{path}: {name} holds {arrays[name].dtype}, not real numbers")
    energies = np.asarray(arrays["energies"], dtype=np.float64)
    dos = np.asarray(arrays["dos"], dtype=np.float64)
    is_one = dos.ndim == 1
    dos = dos[None, None] if dos.ndim == 1 else dos[:, None] if dos.ndim == 2 else dos
    if dos.ndim != 3 or energies.ndim != 1 or dos.shape[2] != len(energies):
        raise DataError(
            f"{path}: dos of shape {arrays['dos'].shape} at energies of shape {energies.shape}; "
            "allowed are (n_points,), (n, n_points) and (n, n_spins, n_points)"
        )
    n = len(dos)
    columns: dict[str, list[Any]] = {}
    for name in (*_NAMED[2:], *(k for k in arrays if k not in _NAMED)):
        if name in arrays:
            if arrays[name].shape not in ((), (n,)):
                raise DataError(
                    f"{path}: {name} has shape {arrays[name].shape}; allowed are () and ({n},)"
                )
            columns[name] = np.broadcast_to(arrays[name], n).tolist()
    method = [n for n in _METHOD if n in columns]
    tags = [n for n in columns if n not in (*_NAMED, *_METHOD)]
    spectra = []
    for i in range(n):
        name = str(columns["ids"][i]) if "ids" in columns else "" if is_one else str(i)
        try:
            spectrum = Spectrum(
                energies=energies,
                channels=dos[i],
                fermi=_number(columns, "fermi", i),
                highest=_number(columns, "highest", i),
                formula=str(columns["formula"][i]) if "formula" in columns else "",
                method=Method(**{key: str(columns[key][i]) for key in method}),
                tags={key: _text(columns[key][i]) for key in tags},
                name=name,
            )
        except EntryError as error:
            raise DataError(f"{path}: {name}: {error}" if name else f"{path}: {error}") from error
        spectra.append(spectrum)
    return spectra


def read_csv(path: Path) -> list[Spectrum]:
    """Return the spectrum of a table with two or three columns.

    Raises:
        DataError: a line has other than two or three numbers.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        words = line.partition("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError as error:
            if rows:
                raise DataError(f"{path}, line {number}: {error}") from error
            continue  # the heading
        if len(words) not in (2, 3) or len(words) != len(rows[0]):
            raise DataError(f"{path}, line {number}: {len(words)} numbers; energy, dos[, down]")
    if len(rows) < 2:
        raise DataError(f"{path}: no table of energies and densities")
    numbers = np.array(rows)
    return [Spectrum(energies=numbers[:, 0], channels=numbers[:, 1:].T.copy())]


def _number(columns: dict[str, list[Any]], name: str, i: int) -> float | None:
    value = float(columns[name][i]) if name in columns else np.nan
    return None if np.isnan(value) else value


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
