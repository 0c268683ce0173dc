"""The calculations that the rows of an ASE database point to, or hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epitaxy.errors import DataError, StoreError


def calculation_folders(
    database: Path, path_key: str, rows_folder: Path | None, left_out: dict[str, str]
) -> Iterator[tuple[str, Path, str]]:
    """Yield name, folder and code of each row's calculation.

    A row that has the key is the folder it names, seen from where the database lies; the code is
    "" then: its output has to show it. A row that has results and no folder is written to
    `rows_folder` as an ASE trajectory, which NOMAD reads, with its keys and data beside it.

    Args:
        database: that ASE opens.
        path_key: key of a row that holds a folder.
        rows_folder: where to write rows; None to leave such rows out.
        left_out: where the rows without a calculation are noted.

    Raises:
        DataError: the file is no database.
        StoreError: the disk refuses the files of a row.
    """
    from ase.db import connect

    try:
        rows = list(connect(str(database)).select())
    except Exception as error:  # ase.db raises whatever the file makes it stumble over
        raise DataError(f"{database} is no database that ASE can read: {error}") from error
    home = database.resolve().parent
    seen: dict[Path, int] = {}
    for row in rows:
        name = f"row-{row.id:06d}"
        if path_key in row.key_value_pairs:
            folder = (home / str(row.key_value_pairs[path_key])).resolve()
            if folder in seen:
                left_out[name] = f"has the same {path_key} as row {seen[folder]}: {folder}"
                continue
            seen[folder] = row.id
            if not folder.is_dir():
                left_out[name] = f"{path_key} = {row.key_value_pairs[path_key]!r} is no folder"
                continue
            inside = folder != home and folder.is_relative_to(home)
            yield (folder.relative_to(home).as_posix() if inside else name), folder, ""
        elif row.get("energy") is not None and rows_folder is not None:
            try:
                folder = _written(row, rows_folder / name)
            except OSError as error:
                raise StoreError(f"{rows_folder / name} cannot be written: {error}") from error
            yield name, folder, "ASE"
        else:
            what = "no results" if row.get("energy") is None else "results, but nowhere to write"
            left_out[name] = f"has no key {path_key!r} and {what}"


def _written(row: Any, folder: Path) -> Path:
    """Write a row as files, and leave files alone that are right already; return the folder."""
    from ase.io import write

    folder.mkdir(parents=True, exist_ok=True)
    trajectory = folder / "calculation.traj"
    fresh = folder / ".calculation.traj"
    write(fresh, row.toatoms(), format="traj")
    _put(fresh, trajectory)
    facts = {
        "id": row.id,
        "unique_id": row.unique_id,
        "calculator": row.get("calculator"),
        "calculator_parameters": row.get("calculator_parameters"),
        "key_value_pairs": row.key_value_pairs,
        "data": row.data,
    }
    from ase.io.jsonio import MyEncoder

    fresh = folder / ".row.json"
    fresh.write_text(json.dumps(facts, cls=MyEncoder, sort_keys=True), encoding="utf-8")
    _put(fresh, folder / "row.json")
    return folder


def _put(fresh: Path, file: Path) -> None:
    if file.exists() and file.read_bytes() == fresh.read_bytes():
        fresh.unlink()
    else:
        fresh.replace(file)
