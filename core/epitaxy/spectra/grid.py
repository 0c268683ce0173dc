"""The grid of a spectral fingerprint: columns of energy, each cut into pixels of states.

Near the reference energy, columns are narrow and pixels small; both grow with one minus a
Gaussian of the distance, in whole multiples of the smallest. A grid is known by its id, the
same text as in the reference implementation (version 2 of nomad-dos-fingerprints):

    nonuniform:reference:narrowest:widest:lowest:highest:width:minimum:maximum:pixels
    uniform:reference:width:height:minimum:maximum:pixels
    dg_cut:pixels:centre:width:(minimum,maximum)          the grid of version 1

with energies in eV, minimum and maximum relative to the reference, heights in states.

Source: Kuban, Rigamonti, Scheidgen, Draxl, Sci. Data 9, 646 (2022),
doi:10.1038/s41597-022-01754-z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from epitaxy.errors import OptionError

_MOST_PIXELS = 255
"""Heights are stored in one byte."""

_MOST_COLUMNS = 100_000
"""As many of the narrowest there may be on one side: many times the points of a spectrum."""

_NARROWEST = 1e-6
"""eV; far above what energies of columns are rounded to."""

_DIGITS = 8
"""Energies of columns are rounded to this many decimals, as in the reference implementation."""

_PIXEL_DIGITS = 10
"""The same for the heights of pixels."""

_OLD_STEP = 0.05
"""eV; narrowest column of the grid of version 1, and the spacing at which it samples a spectrum."""

_OLD_PIXELS = 0.1
"""States; unit of the heights of version 1."""


@dataclass(frozen=True)
class Grid:
    """Columns of energy and their pixels; by default Kuban's.

    Attributes:
        reference: eV; where columns are narrowest and pixels smallest.
        narrowest: eV; width of a column at the reference.
        widest: eV; width far from it.
        lowest: states; height of a full column at the reference.
        highest: states; height far from it.
        width: eV; standard deviation of the Gaussian.
        minimum: eV relative to the reference; where the first column may begin.
        maximum: eV relative to the reference; where the last column may end.
        n_pixels: pixels of each column, at most 255.
        kind: "nonuniform", "uniform" (all columns are `narrowest` wide and `lowest` high) or
            "dg_cut" (version 1: `reference` is the Gaussian's centre, `minimum` and `maximum`
            are absolute; widths, heights and `width` are fixed by it).
    """

    reference: float = -2.0
    narrowest: float = 0.05
    widest: float = 1.05
    lowest: float = 0.5
    highest: float = 5.5
    width: float = 7.0
    minimum: float = -8.0
    maximum: float = 7.0
    n_pixels: int = 56
    kind: str = "nonuniform"

    def __post_init__(self) -> None:
        """Refuse what describes no grid.

        Raises:
            OptionError: a number is not finite or out of its range, or the kind is unknown.
        """
        if self.kind not in ("nonuniform", "uniform", "dg_cut"):
            raise OptionError(
                f"a grid of kind {self.kind!r}: allowed are nonuniform, uniform and dg_cut"
            )
        for name in ("narrowest", "widest", "lowest", "highest", "width"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(f"grid: {name} is {getattr(self, name)}; it must be positive")
        if not -math.inf < self.minimum < self.maximum < math.inf:
            raise OptionError(f"grid: no range from {self.minimum} to {self.maximum} eV")
        if not math.isfinite(self.reference):
            raise OptionError(f"grid: the reference energy is {self.reference}")
        farthest = max(abs(self.minimum), abs(self.maximum))
        narrowest = _OLD_STEP if self.kind == "dg_cut" else self.narrowest
        if narrowest < _NARROWEST or farthest > _MOST_COLUMNS * narrowest:
            raise OptionError(
                f"grid: columns of {narrowest:g} eV up to {farthest:g} eV from the reference; "
                f"allowed are {_MOST_COLUMNS:,} of them, {_NARROWEST:g} eV or wider: make them "
                "wider, or the range smaller"
            )
        if not 1 <= self.n_pixels <= _MOST_PIXELS:
            raise OptionError(
                f"grid: {self.n_pixels} pixels; allowed are 1 to {_MOST_PIXELS}, because a height "
                "is stored in one byte"
            )
        if len(self.edges) < 2:
            raise OptionError(f"grid {self.id}: the range has no whole column")

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Return the grid with this id.

        Raises:
            OptionError: the text is no id of a grid; the message shows one.
        """
        kind, *words = text.strip().split(":")
        try:
            if kind == "dg_cut":
                pixels, centre, spread, limits = words
                low, high = (float(word) for word in limits.strip("()").split(","))
                return cls(
                    kind=kind,
                    n_pixels=int(pixels),
                    reference=float(centre),
                    width=float(spread),
                    minimum=low,
                    maximum=high,
                )
            numbers = [float(word) for word in words[:-1]]
            pixels = words[-1]
            if kind == "nonuniform":
                reference, narrowest, widest, lowest, highest, width, low, high = numbers
                return cls(
                    reference=reference,
                    narrowest=narrowest,
                    widest=widest,
                    lowest=lowest,
                    highest=highest,
                    width=width,
                    minimum=low,
                    maximum=high,
                    n_pixels=int(pixels),
                )
            if kind == "uniform":
                reference, step, height, low, high = numbers
                return cls(
                    kind=kind,
                    reference=reference,
                    narrowest=step,
                    lowest=height,
                    minimum=low,
                    maximum=high,
                    n_pixels=int(pixels),
                )
        except OptionError:
            raise
        except (ValueError, IndexError):
            pass  # the same message as for a wrong count of numbers
        raise OptionError(
            f"{text!r} is no grid: give an id such as {cls().id}, "
            "uniform:REFERENCE:WIDTH:HEIGHT:MINIMUM:MAXIMUM:PIXELS or dg_cut:56:-2:7:(-10,5)"
        )

    @property
    def id(self) -> str:
        """The text that names this grid; numbers without needless zeros."""
        if self.kind == "dg_cut":
            limits = f"({_short(self.minimum)},{_short(self.maximum)})"
            return f"dg_cut:{self.n_pixels}:{_short(self.reference)}:{_short(self.width)}:{limits}"
        numbers = [self.reference, self.narrowest]
        if self.kind == "nonuniform":
            numbers += [self.widest, self.lowest, self.highest, self.width]
        else:
            numbers += [self.lowest]
        numbers += [self.minimum, self.maximum]
        return ":".join((self.kind, *map(_short, numbers), str(self.n_pixels)))

    @property
    def n_columns(self) -> int:
        """How many columns there are."""
        return len(self.edges) - 1

    @cached_property
    def edges(self) -> np.ndarray:
        """(n_columns + 1,) eV, increasing; the energies of a spectrum, not relative to anything."""
        if self.kind == "dg_cut":
            return _read_only(self._old_edges())
        return _read_only(np.asarray(self._relative_edges()) + self.reference)

    @cached_property
    def pixels(self) -> np.ndarray:
        """(n_columns, n_pixels) states that fill a column up to each pixel."""
        steps = np.arange(1, self.n_pixels + 1)
        if self.kind == "dg_cut":
            left = self.edges[:-1].tolist()
            old = [self._old_multiple(edge, _OLD_PIXELS) / (self.n_pixels * 2.0) for edge in left]
            return _read_only(np.array(old)[:, None] * steps)
        multiple = self._multiple(self.lowest, self.highest)
        tops = [multiple(edge) * self.lowest for edge in self._relative_edges()[:-1]]
        heights = np.array(tops)[:, None] / self.n_pixels
        return _read_only(np.round(heights * steps, _PIXEL_DIGITS))

    @property
    def sampling(self) -> float:
        """eV; spacing at which a spectrum is sampled before it is integrated, 0 for not at all."""
        return _OLD_STEP if self.kind == "dg_cut" else 0.0

    def _multiple(self, smallest: float, largest: float) -> Callable[[float], int]:
        """How many times the smallest a width or height is, by the distance from the reference."""
        if self.kind == "uniform":
            return lambda distance: 1

        def multiple(distance: float) -> int:
            grown = 1 - np.exp(-0.5 * (distance / self.width) ** 2)
            return max(int(grown * (largest / smallest - 1) + 1), 1)

        return multiple

    def _relative_edges(self) -> list[float]:
        multiple = self._multiple(self.narrowest, self.widest)
        limit = max(abs(self.minimum), abs(self.maximum))
        above: list[float] = []
        edge = 0.0
        while edge <= limit:
            above.append(edge)
            edge = float(np.round(edge + multiple(edge) * self.narrowest, _DIGITS))
        below = [-edge for edge in reversed(above[1:]) if edge <= abs(self.minimum)]
        return below + [edge for edge in above if edge <= self.maximum]

    def _old_multiple(self, energy: float, unit: float) -> int:
        gaussian = math.exp(-0.5 * ((energy - self.reference) / self.width) ** 2)
        return int(round((1 + unit - gaussian) / unit, 9))

    def _old_edges(self) -> np.ndarray:
        above, below = [0.0], [0.0]
        while above[-1] <= self.maximum:
            above.append(above[-1] + self._old_multiple(above[-1], _OLD_STEP) * _OLD_STEP)
        while below[-1] >= self.minimum:
            below.append(below[-1] - self._old_multiple(below[-1], _OLD_STEP) * _OLD_STEP)
        # Version 1 leaves its last column out.
        return np.round([*reversed(below[1:]), *above[:-1]], _DIGITS)


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(float(number))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


DEFAULT_GRID = Grid()
"""-10 to 5 eV, finest at -2 eV: `nonuniform:-2:0.05:1.05:0.5:5.5:7:-8:7:56`, 144 columns."""

WIDE_GRID = Grid(maximum=12.0)
"""-10 to 10 eV (the last whole column ends at 9.3 eV), finest at -2 eV:
`nonuniform:-2:0.05:1.05:0.5:5.5:7:-8:12:56`."""

OLD_GRID = Grid.parse("dg_cut:56:-2:7:(-10,5)")
"""The grid of version 1 of nomad-dos-fingerprints."""

PHONON_GRID = Grid.parse("uniform:0:20:20:0:1000:56")
"""0 to 1000 1/cm in columns of 20 1/cm, for phonon spectra whose largest value is 1."""
