"""Which calculation goes into which upload: whole ones, under the limits of the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from epitaxy.errors import OptionError
from epitaxy_nomad.campaign.find import Calculation

OPEN_PARTS = 16
"""Parts that are not full yet in which a calculation is tried: neighbours stay neighbours."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one upload may be.

    Attributes:
        max_bytes: of all its files; the default is the 32 GiB that NOMAD allows.
        max_files: of an upload. NOMAD sets no limit, but lists and unpacks them one by one.
    """

    max_bytes: int = 32 * 2**30
    max_files: int = 50_000

    def __post_init__(self) -> None:
        """Check.

        Raises:
            OptionError: a limit is not positive.
        """
        if self.max_bytes < 1 or self.max_files < 1:
            raise OptionError(
                f"max_bytes = {self.max_bytes}, max_files = {self.max_files}: both must be 1 or "
                "more"
            )


def parts(
    calculations: Iterable[Calculation], limits: Limits
) -> tuple[list[list[Calculation]], dict[str, str]]:
    """Return the calculations of each upload, and those too large for any with the reason.

    First fit in the given order among the last few uploads that have room (Johnson, J. Comput.
    Syst. Sci. 8, 272 (1974)): fewer than twice as many uploads as there must be, and next to none
    too many where calculations are small against an upload.
    """
    filled: list[list[Calculation]] = []
    room: dict[int, tuple[int, int]] = {}  # index of a part -> bytes and files that still fit
    too_large: dict[str, str] = {}
    for calculation in calculations:
        need = (calculation.n_bytes, calculation.n_files)
        if need[0] > limits.max_bytes or need[1] > limits.max_files:
            too_large[calculation.name] = (
                f"{need[0]:,} bytes in {need[1]:,} files are more than one upload may have "
                f"({limits.max_bytes:,} bytes, {limits.max_files:,} files); leave files out with "
                "--leave-out, or raise the limit"
            )
            continue
        fitting = (i for i, left in room.items() if need[0] <= left[0] and need[1] <= left[1])
        index = next(fitting, len(filled))
        if index == len(filled):
            filled.append([])
            room[index] = (limits.max_bytes, limits.max_files)
            if len(room) > OPEN_PARTS:
                room.pop(next(iter(room)))
        filled[index].append(calculation)
        n_bytes, n_files = room[index]
        room[index] = (n_bytes - need[0], n_files - need[1])
    return filled, too_large
