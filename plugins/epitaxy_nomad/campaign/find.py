"""Finds the finished calculations of a folder tree or an ASE database."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from epitaxy.errors import DataError, OptionError
from epitaxy_nomad.campaign.codes import CODES, Code, recognise


@dataclass(frozen=True, slots=True)
class File:
    """One file of a calculation.

    Attributes:
        name: below the folder of the calculation, with "/".
        n_bytes: of the file when it was looked at.
        changed_ns: when it was last changed, nanoseconds since 1970.
    """

    name: str
    n_bytes: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Calculation:
    """One finished calculation: a folder with everything below it.

    Attributes:
        name: of its folder in the upload, with "/"; no two calculations have the same.
        folder: where it is on the disk.
        code: that made its main output.
        mainfile: its main output, below the folder.
        n_files: how many files it has.
        n_bytes: of all of them.
        listing: digest of their names, sizes and times of change.
    """

    name: str
    folder: Path
    code: str
    mainfile: str
    n_files: int
    n_bytes: int
    listing: str


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        calculations: the finished ones, by name; none lies in another.
        left_out: folder -> why a calculation does not go along.
        without_output: folders with files that belong to no calculation -> how many files.
        links: symbolic links that are not packed.
        empty_folders: folders without files below calculations; uploads do not keep them.
    """

    calculations: list[Calculation] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    without_output: dict[str, int] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)

    @property
    def n_files(self) -> int:
        """Files of the finished calculations."""
        return sum(c.n_files for c in self.calculations)

    @property
    def n_bytes(self) -> int:
        """Bytes of the finished calculations."""
        return sum(c.n_bytes for c in self.calculations)


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as a calculation, and which of its files go along.

    Attributes:
        codes: whose main outputs are looked for.
        leave_out: patterns of names of files and folders that stay at home, as "*.tmp".
        follow_links: pack the files that symbolic links point to.
    """

    codes: tuple[Code, ...] = CODES
    leave_out: tuple[str, ...] = ()
    follow_links: bool = False

    def stays(self, name: str) -> bool:
        """Whether a file or folder of this name stays at home."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.leave_out)


class UnfitError(DataError):
    """A folder cannot be packed as it is; the message says why."""


def survey(
    source: Path,
    *,
    rules: Rules | None = None,
    path_key: str = "folder",
    rows_folder: Path | None = None,
    tell: Callable[[int], None] | None = None,
) -> Survey:
    """Return the finished calculations of a folder tree or of an ASE database.

    From the top of a tree, a folder that holds a main output is one calculation, with everything
    below it; it is finished if every main output in it is.

    Args:
        source: a folder, or a database that ASE opens.
        rules: what counts as a calculation.
        path_key: key of a database's rows that holds the folder of the calculation.
        rows_folder: where rows without a folder, but with results, are written as files.
        tell: called with the number of calculations found so far.

    Raises:
        OptionError: the source does not exist.
        DataError: it is a file, but no database.
    """
    rules = rules or Rules()
    found = Survey()
    places: Iterable[tuple[str, Path, str]]
    if source.is_dir():
        places = _folders_with_output(source, rules, found)
    elif source.is_file():
        from epitaxy_nomad.campaign.rows import calculation_folders

        places = calculation_folders(source, path_key, rows_folder, found.left_out)
    else:
        raise OptionError(f"{source} does not exist; give a folder or an ASE database")
    for name, folder, code in places:
        try:
            found.calculations.append(look_at(name, folder, rules, code=code, found=found))
        except UnfitError as error:
            found.left_out[name] = str(error)
        if tell is not None:
            tell(len(found.calculations))
    _leave_out_nested(found)
    return found


def look_at(
    name: str, folder: Path, rules: Rules, *, code: str = "", found: Survey | None = None
) -> Calculation:
    """Return the calculation in a folder.

    Args:
        name: of the folder in the upload.
        folder: on the disk.
        rules: what counts as a calculation.
        code: that made it, where this needs no proof; the first file is the main output then.
        found: where links and empty folders are noted.

    Raises:
        UnfitError: it has not ended well, or cannot be packed.
    """
    _check_name(name)
    files = files_of(folder, rules, found)
    outputs: list[tuple[tuple[int, int, str], str, str]] = []
    for file in files:
        try:
            recognised = None if code else recognise(folder / file.name, rules.codes)
        except OSError as error:
            raise UnfitError(f"{file.name} cannot be read: {error.strerror}") from error
        if recognised is None:
            continue
        if recognised[1]:
            below = f"{file.name.rpartition('/')[0]}/" if "/" in file.name else ""
            raise UnfitError(below + recognised[1])
        rank = (file.name.count("/"), rules.codes.index(recognised[0]), file.name)
        outputs.append((rank, file.name, recognised[0].name))
    if code and files:
        outputs.append(((0, 0, ""), files[0].name, code))
    if not outputs:
        raise UnfitError("it holds no main output of a code that is known; see --mainfile")
    _, mainfile, made_by = min(outputs)
    n_bytes = sum(file.n_bytes for file in files)
    return Calculation(name, folder, made_by, mainfile, len(files), n_bytes, listing(files))


def files_of(folder: Path, rules: Rules, found: Survey | None = None) -> list[File]:
    """Return the files of a calculation, sorted by name.

    Raises:
        UnfitError: a file is unreadable, is no ordinary file, or has a name that is not UTF-8
            or holds a backslash.
    """
    files: list[File] = []
    pending = [("", folder)]
    while pending:
        prefix, place = pending.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            raise UnfitError(f"{prefix or '.'} cannot be read: {error.strerror}") from error
        if not entries and found is not None:
            found.empty_folders.append(str(place))
        for entry in entries:
            name = prefix + entry.name
            _check_name(name)
            if rules.stays(entry.name):
                continue
            if entry.is_symlink() and not (rules.follow_links and Path(entry.path).is_file()):
                if found is not None:
                    found.links.append(entry.path)
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append((name + "/", Path(entry.path)))
                continue
            try:
                state = entry.stat()
            except OSError as error:  # gone since the folder was listed
                raise UnfitError(f"{name} cannot be read: {error.strerror}") from error
            if not stat.S_ISREG(state.st_mode):
                raise UnfitError(f"{name} is a pipe, socket or device, not a file")
            if not os.access(entry.path, os.R_OK):
                raise UnfitError(f"{name} cannot be read: you have no permission")
            files.append(File(name, state.st_size, state.st_mtime_ns))
    return sorted(files, key=lambda file: file.name)


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UnfitError(
            f"{name!r}: the name is not UTF-8, which a zip file and NOMAD cannot hold; rename it"
        ) from None
    if "\\" in name:
        raise UnfitError(
            f"{name!r}: the name has a backslash, which some take for a folder when the upload is "
            "read; rename it"
        )


def listing(files: Sequence[File]) -> str:
    """Return a digest of names, sizes and times: it changes if a file is touched."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(f"{file.name}\0{file.n_bytes}\0{file.changed_ns}\n".encode())
    return digest.hexdigest()


def _leave_out_nested(found: Survey) -> None:
    """Leave out what is part of another calculation: rows of a database may name both."""
    kept: dict[Path, Calculation] = {}
    for calculation in sorted(found.calculations, key=lambda one: len(one.folder.parts)):
        if outer := next((kept[p] for p in calculation.folder.parents if p in kept), None):
            found.left_out[calculation.name] = f"is part of the calculation {outer.name}"
        else:
            kept[calculation.folder] = calculation
    found.calculations = sorted(kept.values(), key=lambda calculation: calculation.name)


def _folders_with_output(
    source: Path, rules: Rules, found: Survey
) -> Iterator[tuple[str, Path, str]]:
    """Yield the topmost folders that hold a main output; note files that lie elsewhere."""
    pending = [source]
    while pending:
        place = pending.pop()
        name = place.relative_to(source).as_posix()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            entries = [entry for entry in entries if not rules.stays(entry.name)]
            files = [entry for entry in entries if _is_file(entry)]
            # Unreadable main outputs are seen again, and named, when the folder is looked at.
            has_output = any(_is_output(Path(entry.path), rules) for entry in files)
        except OSError as error:
            found.left_out[name] = f"cannot be read: {error.strerror}"
            continue
        if has_output:
            yield (source.resolve().name if name == "." else name), place, ""
            continue
        if files:
            found.without_output[name] = len(files)
        for entry in reversed(entries):
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif entry.is_symlink() and not _is_file(entry):
                found.links.append(entry.path)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a symbolic link that leads back to itself
        return False


def _is_output(path: Path, rules: Rules) -> bool:
    try:
        return recognise(path, rules.codes) is not None
    except OSError:
        return any(code.file.fullmatch(path.name) and code.head is None for code in rules.codes)
