"""Which file is the main output of a calculation, and whether the calculation ended well."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from epitaxy.errors import OptionError

HEAD = 4096
"""Bytes from the beginning of a file in which a code names itself."""

TAIL = 65_536
"""Bytes from the end of a file in which a code says that it has ended."""


@dataclass(frozen=True, slots=True)
class Code:
    """How the main output of one code is told from other files.

    Attributes:
        name: of the code.
        file: what the whole name of the file must match.
        head: what its first 4 kB must have; None where the name says enough.
        end: what its end has if the calculation ended well; None to believe that it did.
        failed: what it has if it did not, whatever else it says.
        end_means: `end` in words.
        tail: how many bytes the end of the file is.
    """

    name: str
    file: re.Pattern[str]
    head: re.Pattern[bytes] | None = None
    end: re.Pattern[bytes] | None = None
    failed: re.Pattern[bytes] | None = None
    end_means: str = ""
    tail: int = TAIL


def _code(
    name: str,
    file: str,
    head: bytes = b"",
    end: bytes = b"",
    failed: bytes = b"",
    means: str = "",
    *,
    tail: int = TAIL,
) -> Code:
    return Code(
        name,
        re.compile(file),
        re.compile(head) if head else None,
        re.compile(end) if end else None,
        re.compile(failed) if failed else None,
        means,
        tail,
    )


CODES: tuple[Code, ...] = (
    _code("GPAW", r".+\.gpw2?", rb"\A(- of Ulm|AFFormat|AtomicNumbers\0)"),
    _code(
        "GPAW",
        r".+\.(txt|log|out)",
        rb"\| ?_ +\|_\)\|_\|\||\|   \|   \|_  \| \| \| \|",
        # The timing at its end tells nothing: failed runs have it, and finished ones may not.
        rb"(?s)Converged (?:in|after) \d+(?!.*\n\|?iter:)",
        rb"Did not converge!",
        "'Converged' behind the last iteration",
        tail=2**20,  # eigenvalues follow
    ),
    _code(
        "exciting",
        r"INFO\.OUT",
        rb"(?i)\bEXCITING\b",
        rb"EXCITING \S+ stopped",
        means="line 'EXCITING ... stopped'",
    ),
    _code(
        "FHI-aims",
        r".+\.out|aims\.log|.*aims.*",
        rb"Invoking FHI-aims",
        rb"Have a nice day\.",
        rb"Self-consistency cycle not yet converged - restarting|\*\*\* scf_solver: SCF cycle not",
        "line 'Have a nice day.'",
    ),
    _code(
        "VASP",
        r"OUTCAR(\..+)?",
        rb"vasp\.\d",
        rb"General timing and accounting informations for this job",
        means="timing",
    ),
    _code("VASP", r"vasprun\.xml", rb"<modeling>", rb"</modeling>\s*\Z", means="tag '</modeling>'"),
    _code(
        "Quantum ESPRESSO",
        r".+\.(out|pwo|log)",
        rb"Program PWSCF",
        rb"JOB DONE\.",
        rb"convergence NOT achieved",
        "line 'JOB DONE.'",
    ),
)
"""What is recognised. The codes' files are compressed by nobody: a main output ending in .gz is
not looked into."""


def own_code(mainfile: str, finished: str | None = None) -> Code:
    """Return what a user's own patterns recognise.

    Args:
        mainfile: regular expression that the whole name of a main output matches.
        finished: regular expression that its last 64 kB have if it ended well; None to believe it.

    Raises:
        OptionError: a pattern is no regular expression.
    """
    try:
        end = None if finished is None else re.compile(finished.encode(), re.MULTILINE)
        return Code("own", re.compile(mainfile), None, end, None, f"text like {finished!r}")
    except re.error as error:
        raise OptionError(
            f"--mainfile {mainfile!r} --finished {finished!r}: {error}; a regular expression such "
            r"as --mainfile '.*\.out' --finished 'total energy' is wanted"
        ) from error


def recognise(path: Path, codes: tuple[Code, ...] = CODES) -> tuple[Code, str] | None:
    """Return the code whose main output a file is, and why it is not finished ("" if it is).

    None if the file is no main output of any of the codes.

    Raises:
        OSError: the file cannot be read.
    """
    fitting = [code for code in codes if code.file.fullmatch(path.name)]
    if not fitting:
        return None
    with path.open("rb") as stream:
        head = stream.read(HEAD)
        for code in fitting:
            if code.head is None or code.head.search(head):
                break
        else:
            return None
        size = stream.seek(0, 2)
        if code.end is None and code.failed is None:
            return code, _binary_problem(path.name, head, stream, size)
        stream.seek(max(0, size - code.tail))
        tail = stream.read()
    if code.failed and (found := code.failed.search(tail)):
        return code, f"{path.name}: failed: {found[0].decode('utf-8', 'replace')!r}"
    if code.end and not code.end.search(tail):
        return code, f"{path.name}: not finished: no {code.end_means} at its end"
    return code, ""


def _binary_problem(name: str, head: bytes, stream: BinaryIO, size: int) -> str:
    """Return why a file of GPAW is not whole; "" if it is, or is of another kind.

    Source: ase.io.ulm; the oldest files are tar archives. After 24 bytes of magic and tag come
    three integers: the version, the number of items and where their offsets are; an item begins
    with the length of its index, which is written last.
    """
    if size == 0:
        return f"{name}: not finished: it is empty"
    if head.startswith(b"AtomicNumbers"):
        stream.seek(max(0, size - 1024))
        return "" if not any(stream.read()) else f"{name}: not finished: it is cut"
    if not head.startswith((b"- of Ulm", b"AFFormat")):
        return ""
    n_items, place = (int.from_bytes(head[i : i + 8], "little") for i in (32, 40))
    if n_items < 1:
        return f"{name}: not finished: it is still being written"
    stream.seek(place + 8 * (n_items - 1))
    offset = int.from_bytes(stream.read(8), "little")
    stream.seek(offset)
    if offset + 8 + int.from_bytes(stream.read(8), "little") > size:
        return f"{name}: not finished: it is cut at {size:,} bytes"
    return ""
