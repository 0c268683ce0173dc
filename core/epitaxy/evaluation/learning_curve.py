"""What learning curves say: power laws, equal errors with fewer labels, paired comparisons.

    ln error = a + b ln N        least squares over all points (size, seed)

Source of the form: Hestness et al., arXiv 1712.00409; of its use between materials databases:
Hoffmann, Schmidt, Botti, Marques, Digital Discovery 2, 1368 (2023), doi 10.1039/d3dd00030c.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from epitaxy.errors import DataError
from epitaxy.evaluation.intervals import LEVEL, Interval, student_interval

N_DRAWS = 2000  # of a bootstrap
FEWEST_POINTS = 4  # with an interval: fewer say nothing about their scatter
FEWEST_SEEDS = 5  # below that, single points are drawn
EXTRAPOLATION = 10.0  # times the sizes that were measured
_EXACT = 12  # pairs up to which all 2^n signs are tried
_N_SIGNS = 20_000  # random signs beyond


@dataclass(frozen=True, slots=True)
class Point:
    """One trained model.

    Attributes:
        arm: what was trained.
        n_train: structures it learnt from.
        seed: of the subset and of the training.
        error: on the fixed test set.
    """

    arm: str
    n_train: int
    seed: int
    error: float


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """A line through ln error against ln N.

    Attributes:
        slope: b; -0.5 halves the error with four times the structures.
        intercept: a, ln of the error at one structure.
        r2: coefficient of determination of ln error; nan if the errors do not vary.
        slope_interval: 95 % bootstrap interval of the slope; nan with fewer than four points.
        intercept_interval: the same of the intercept.
        drawn: what the bootstrap draws: "seeds" or "points".
        n_points: points behind the line.
        sizes: smallest and largest N that were measured.
    """

    slope: float
    intercept: float
    r2: float
    slope_interval: Interval
    intercept_interval: Interval
    drawn: str
    n_points: int
    sizes: tuple[int, int]

    def error(self, n: float) -> float:
        """Return the error that the line gives for `n` structures."""
        return math.exp(self.intercept + self.slope * math.log(n))


@dataclass(frozen=True, slots=True)
class Equivalent:
    """How many structures the reference needs for the error of another arm.

    Attributes:
        arm: the other arm.
        n_train: its structures.
        rows: structures that the reference needs; None if that cannot be said.
        interval: 95 % bootstrap interval of `rows`; None where too few draws give a number.
        reason: why `rows` is None; "" otherwise.
    """

    arm: str
    n_train: int
    rows: float | None
    interval: Interval | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Paired:
    """Two arms on the same subsets with the same seeds.

    Attributes:
        arm: compared with the reference.
        n_train: size; None for all sizes together.
        n_pairs: seeds that both have.
        gain: mean of reference minus arm, in the unit of the error; over all sizes: mean of
            ln(reference / arm).
        relative: `gain` as a part of the mean error of the reference; over all sizes
            1 - exp(-gain).
        interval: 95 % interval of `gain` (Student's t); None with one pair.
        p: two-sided, from exchanging the two arms within pairs (sign flips); at least 2^(1 - n).
    """

    arm: str
    n_train: int | None
    n_pairs: int
    gain: float
    relative: float
    interval: Interval | None
    p: float


def fit_power_law(points: Sequence[Point], *, seed: int = 0) -> PowerLaw:
    """Fit ln error = a + b ln N to the points of one arm.

    The interval comes from drawing whole seeds with replacement, which keeps together what
    shares its subsets; with fewer than five seeds single points are drawn.

    Args:
        points: of one arm.
        seed: of the bootstrap.

    Raises:
        DataError: fewer than two sizes, or an error that is zero or not finite.
    """
    line = _line(points)
    by_seed = _by(points, lambda p: p.seed)
    drawn = "seeds" if len(by_seed) >= FEWEST_SEEDS else "points"
    found = np.array([[b.slope, b.intercept] for b in _draws(points, seed=seed) if b is not None])
    n_blocks = len(by_seed) if drawn == "seeds" else len(points)
    slopes, intercepts = (
        _interval(found[:, k], n_blocks)
        if len(found) and len(points) >= FEWEST_POINTS
        else (math.nan, math.nan)
        for k in (0, 1)
    )
    sizes = [p.n_train for p in points]
    return PowerLaw(
        line.slope,
        line.intercept,
        line.r2,
        slopes,
        intercepts,
        drawn,
        len(points),
        (min(sizes), max(sizes)),
    )


def equivalent_rows(
    reference: Sequence[Point],
    other: Sequence[Point],
    *,
    seed: int = 0,
    extrapolate: bool = False,
) -> list[Equivalent]:
    """Return, for each size of an arm, how many structures the reference needs for its error.

    Args:
        reference: points of the arm that is read backwards, through its power law.
        other: points of the other arm; the mean of ln error over its seeds counts.
        seed: of the bootstrap.
        extrapolate: whether answers outside 0.1 to 10 times the measured sizes are given.
    """
    found = []
    line = _line(reference)
    lines = _draws(reference, seed=seed)
    sizes = [p.n_train for p in reference]
    allowed = (min(sizes) / EXTRAPOLATION, max(sizes) * EXTRAPOLATION)
    rng = np.random.default_rng(seed + 1)
    for n_train, points in sorted(_by(other, lambda p: p.n_train).items()):
        logs = np.log([p.error for p in points])
        arm = points[0].arm
        if line.slope >= 0:
            reason = "the error of the reference does not fall with more structures"
            found.append(Equivalent(arm, n_train, None, None, reason))
            continue
        rows = line.rows(float(logs.mean()))
        if not extrapolate and not allowed[0] <= rows <= allowed[1]:
            end, bound = ("more", allowed[1]) if rows > allowed[1] else ("fewer", allowed[0])
            reason = (
                f"{end} than {_short(bound)} structures of the reference, over "
                f"{EXTRAPOLATION:g} times away from what was measured"
            )
            found.append(Equivalent(arm, n_train, None, None, reason))
            continue
        draws = []
        for drawn in lines:
            if drawn is not None and drawn.slope < 0:
                mean = float(rng.choice(logs, size=len(logs)).mean())
                draws.append(drawn.rows(mean))
        enough = len(draws) >= LEVEL * N_DRAWS and len(reference) >= FEWEST_POINTS
        found.append(
            Equivalent(arm, n_train, rows, _interval(draws, len(points)) if enough else None)
        )
    return found


def compare_arms(reference: Sequence[Point], other: Sequence[Point]) -> list[Paired]:
    """Compare an arm with the reference, size by size and over all sizes, in pairs of one seed.

    Over all sizes each seed counts once, with the mean of its ln(reference / arm), because the
    sizes of one seed share their structures.
    """
    base = {(p.n_train, p.seed): p.error for p in reference}
    pairs = [(p, base[p.n_train, p.seed]) for p in other if (p.n_train, p.seed) in base]
    found = []
    for n_train in sorted({p.n_train for p, _ in pairs}):
        chosen = [(error, p.error) for p, error in pairs if p.n_train == n_train]
        theirs, ours = np.array(chosen).T
        gains = theirs - ours
        found.append(
            Paired(
                other[0].arm,
                n_train,
                len(gains),
                float(gains.mean()),
                float(gains.mean() / theirs.mean()),
                student_interval(gains),
                sign_flip_p(gains),
            )
        )
    if len(found) > 1:
        by_seed: dict[int, list[float]] = {}
        for p, error in pairs:
            by_seed.setdefault(p.seed, []).append(math.log(error / p.error))
        gains = np.array([np.mean(logs) for logs in by_seed.values()])
        mean = float(gains.mean())
        found.append(
            Paired(
                other[0].arm,
                None,
                len(gains),
                mean,
                1 - math.exp(-mean),
                student_interval(gains),
                sign_flip_p(gains),
            )
        )
    return found


def sign_flip_p(differences: np.ndarray | Sequence[float]) -> float:
    """Return the two-sided p of a mean paired difference, by exchanging the members of pairs.

    All 2^n choices up to 12 pairs, so that p is at least 2^(1 - n); 20,000 random ones beyond.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n <= _EXACT:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), size=(_N_SIGNS, n))
        signs[0] = 1.0  # the choice that was observed
    sums = np.abs(signs @ values)
    return float(np.mean(sums >= abs(values.sum()) * (1 - 1e-12)))


@dataclass(frozen=True, slots=True)
class _Line:
    slope: float
    intercept: float
    r2: float

    def rows(self, log_error: float) -> float:
        exponent = (log_error - self.intercept) / self.slope
        return math.exp(min(exponent, 700.0))


def _line(points: Sequence[Point]) -> _Line:
    errors = np.array([p.error for p in points], dtype=np.float64)
    if not (np.isfinite(errors) & (errors > 0)).all():
        raise DataError("an error of a learning curve is zero or not finite: it has no logarithm")
    x, y = np.log([p.n_train for p in points]), np.log(errors)
    if len(np.unique(x)) < 2:
        raise DataError("a learning curve needs at least two sizes")
    dx = x - x.mean()
    slope = float((dx * (y - y.mean())).sum() / (dx**2).sum())
    intercept = float(y.mean() - slope * x.mean())
    spread = float(((y - y.mean()) ** 2).sum())
    left = float(((y - intercept - slope * x) ** 2).sum())
    return _Line(slope, intercept, 1 - left / spread if spread > 0 else math.nan)


def _draws(points: Sequence[Point], *, seed: int) -> list[_Line | None]:
    """Return the lines through resampled points; None where a draw has one size only."""
    rng = np.random.default_rng(seed)
    by_seed = list(_by(points, lambda p: p.seed).values())
    blocks = by_seed if len(by_seed) >= FEWEST_SEEDS else [[p] for p in points]
    lines: list[_Line | None] = []
    for _ in range(N_DRAWS):
        chosen = [p for k in rng.integers(len(blocks), size=len(blocks)) for p in blocks[k]]
        lines.append(_line(chosen) if len({p.n_train for p in chosen}) > 1 else None)
    return lines


def _by(points: Iterable[Point], key: Callable[[Point], int]) -> Mapping[int, list[Point]]:
    found: dict[int, list[Point]] = {}
    for point in points:
        found.setdefault(key(point), []).append(point)
    return found


def _interval(values: Sequence[float] | np.ndarray, n_blocks: int) -> Interval:
    """Return the expanded percentile interval of bootstrap draws.

    Plain percentiles of few blocks are too narrow (5 seeds: 80 % instead of 95 %), so further
    ones are taken: those that a normal distribution has at t sqrt(n / (n - 1)). Source:
    Hesterberg, The American Statistician 69, 371 (2015), doi 10.1080/00031305.2015.1089789.
    """
    from scipy.stats import norm, t

    n = max(n_blocks, 2)
    tail = float(norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf((1 + LEVEL) / 2, n - 1)))
    low, high = np.quantile(np.asarray(values), (tail, 1 - tail))
    return float(low), float(high)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number < 1e7 else f"{number:.1e}"
