"""The section of a config file that describes a learning curve, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from epitaxy.config import Config, Place, read_config, read_document
from epitaxy.errors import ConfigError
from epitaxy.quantities import QUANTITIES

if TYPE_CHECKING:
    from epitaxy.registry import Registry

SECTION = "learning_curve"
_ARM_SECTIONS = ("model", "strategy", "training", "dtype", "device", "also")
_PARENT_SECTIONS = (*_ARM_SECTIONS[:-1], "dataset", "split", "valid", "test", "seed")
PARENTS = "parents"


@dataclass(frozen=True, kw_only=True)
class CurveOptions:
    """The ``learning_curve:`` section of a config file.

    Attributes:
        sizes: training structures of each point: whole numbers, or parts of the training part
            between 0 and 1.0 (written with a point).
        seeds: of the subsets and of the trainings, or how many (3 means 0, 1, 2).
        arms: name -> changes of the file's model, strategy, training, dtype or device; a section
            that names another component replaces that of the file, else it is merged into it.
            also: further data for the training of an arm, [{dataset: PLACE, n: 30}, ...].
        parents: name -> changes of the file that describe a parent, also its dataset and split.
            It is trained once, in output/parents/NAME; in arms, parent: NAME means it.
        metric: number on the test set that counts, as energy_mae or band_gap_rmse; by default
            the MAE of the first target.
        valid: "scaled": the validation part shrinks with the training part (at least one
            structure), so that no labels are hidden in it; "fixed": all of it at every size.
        elements: "refuse" subsets that lack an element of validation or test; "cover": each
            order begins with structures that show every element of the training part.
        reference: arm that others are compared with; the first by default.
        artifacts: whether the model of each point is kept.
        extrapolate: whether equal errors are looked for beyond ten times the measured sizes.
    """

    sizes: Sequence[float | int]
    seeds: Sequence[int] | int = 3
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"model": {}})
    parents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metric: str | None = None
    valid: Literal["scaled", "fixed"] = "scaled"
    elements: Literal["refuse", "cover"] = "refuse"
    reference: str | None = None
    artifacts: bool = True
    extrapolate: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: one is out of range; the message names it.
        """
        if not self.sizes:
            raise ConfigError("learning_curve: sizes is empty; give at least one")
        for size in self.sizes:
            if not (size >= 1 if isinstance(size, int) else 0 < size <= 1):
                raise ConfigError(
                    f"learning_curve: size {size!r}; allowed: whole numbers from 1, or parts of "
                    f"the training part from above 0 to 1.0"
                )
        seeds = self.all_seeds
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ConfigError(
                f"learning_curve: seeds is {self.seeds!r}; give different whole numbers from 0, or "
                f"how many"
            )
        if not self.arms:
            raise ConfigError("learning_curve: arms is empty; name at least one: {scratch: {}}")
        for kind, names in (("arm", self.arms), ("parent", self.parents)):
            for name in names:
                if not name or name.startswith(".") or set(name) & set('/\\:"'):
                    raise ConfigError(
                        f"learning_curve: {kind} {name!r}: its name must do for a folder"
                    )
        if PARENTS in self.arms and self.parents:
            raise ConfigError(f"learning_curve: {PARENTS!r} is the folder of the parents, no arm")
        target, _, measure = (self.metric or "energy_mae").rpartition("_")
        if target not in QUANTITIES or measure not in ("mae", "rmse"):
            raise ConfigError(
                f"learning_curve: metric is {self.metric!r}; allowed: a quantity with _mae or "
                f"_rmse, for example energy_mae"
            )
        if self.reference is not None and self.reference not in self.arms:
            raise ConfigError(
                f"learning_curve: reference {self.reference!r} is no arm; there are "
                f"{', '.join(self.arms)}"
            )

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds as numbers."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)

    def to_config(self) -> dict[str, Any]:
        """Return plain values, ready for JSON or YAML."""
        return {
            "sizes": list(self.sizes),
            "seeds": list(self.all_seeds),
            "arms": {name: dict(changes) for name, changes in self.arms.items()},
            "parents": {name: dict(changes) for name, changes in self.parents.items()},
            "metric": self.metric,
            "valid": self.valid,
            "elements": self.elements,
            "reference": self.reference or next(iter(self.arms)),
            "artifacts": self.artifacts,
            "extrapolate": self.extrapolate,
        }


@dataclass(frozen=True, kw_only=True)
class Also:
    """Further data for the training of an arm.

    Attributes:
        dataset: a path, or a source with options.
        n: so many structures of it, drawn anew for each seed; all by default.
    """

    dataset: Place
    n: int | None = None

    def __post_init__(self) -> None:
        """Check the number.

        Raises:
            ConfigError: it is below 1.
        """
        if self.n is not None and self.n < 1:
            raise ConfigError(f"also: n is {self.n}; allowed: at least 1")


@dataclass(frozen=True, kw_only=True)
class CurveConfig:
    """A learning curve, checked.

    Attributes:
        arms: name -> the training that it means; data, split, seed and output are the same.
        options: sizes, seeds and the like.
        also: name of an arm -> further data that it learns from.
        parents: name -> a training before all others.
    """

    arms: Mapping[str, Config]
    options: CurveOptions
    also: Mapping[str, tuple[Also, ...]] = field(default_factory=dict)
    parents: Mapping[str, Config] = field(default_factory=dict)

    @property
    def base(self) -> Config:
        """The first arm: what all arms share is read from it."""
        return next(iter(self.arms.values()))


def load_curve(
    path: Path | str,
    *,
    overrides: Sequence[str] = (),
    output: Path | str | None = None,
    registry: Registry | None = None,
) -> CurveConfig:
    """Read a config file with a ``learning_curve:`` section; arguments as `load_config`.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong.
    """
    document, lines = read_document(path, overrides=overrides, output=output)
    return read_curve(document, name=str(path), lines=lines, registry=registry)


def read_curve(
    document: Mapping[str, Any],
    *,
    name: str = "config",
    lines: Mapping[str, int] | None = None,
    registry: Registry | None = None,
) -> CurveConfig:
    """Turn the content of a config file into a `CurveConfig`; arguments as `read_config`.

    Raises:
        ConfigError: a key or value is wrong.
    """
    from epitaxy.experiment import ARTIFACT
    from epitaxy.options import check_options

    base = dict(document)
    section = base.pop(SECTION, None)
    if not isinstance(section, Mapping):
        raise ConfigError(
            f"{name}: a learning curve needs the section learning_curve: {{sizes: [...], seeds: "
            f"[...], arms: {{...}}}}"
        )
    options = CurveOptions(**check_options(f"{name}: {SECTION}", CurveOptions, section))
    folder = Path(str(base.get("output", "run"))) / PARENTS
    artifacts = {parent: str(folder / parent / ARTIFACT) for parent in options.parents}
    arms, also, parents = {}, {}, {}
    for parent, changes in options.parents.items():
        _refuse(changes, _PARENT_SECTIONS, f"{name}: {SECTION}: parent {parent!r}")
        merged = _changed(base, changes) | {"output": str(folder / parent)}
        title = f"{name}, parent {parent}"
        parents[parent] = read_config(merged, name=title, lines=lines, registry=registry)
    for arm, changes in options.arms.items():
        _refuse(changes, _ARM_SECTIONS, f"{name}: {SECTION}: arm {arm!r}")
        own = dict(changes or {})
        title = f"{name}, arm {arm}"
        if (more := own.pop("also", None)) is not None:
            also[arm] = _also(more, title)
        merged = _changed(base, own)
        for section in ("model", "strategy"):
            merged[section] = _with_parents(merged.get(section), artifacts)
        merged = {k: v for k, v in merged.items() if v is not None}
        arms[arm] = read_config(merged, name=title, lines=lines, registry=registry)
    return CurveConfig(arms=arms, options=options, also=also, parents=parents)


def _refuse(changes: Mapping[str, Any] | None, allowed: Sequence[str], what: str) -> None:
    """Raise `ConfigError` for sections that must not be changed."""
    if wrong := sorted(set(changes or {}) - set(allowed)):
        raise ConfigError(
            f"{what} changes {', '.join(wrong)}; it may change {', '.join(allowed)}"
            + (": data and test set are the same for all" if "also" in allowed else "")
        )


def _changed(base: Mapping[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**base, **{k: _merged(base.get(k), v) for k, v in (changes or {}).items()}}


def _also(given: Any, title: str) -> tuple[Also, ...]:
    from epitaxy.options import check_options

    if not isinstance(given, Sequence) or not all(isinstance(one, Mapping) for one in given):
        raise ConfigError(f"{title}: also = {given!r}: must be a list of {{dataset: ..., n: ...}}")
    return tuple(Also(**check_options(f"{title}: also", Also, one)) for one in given)


def _with_parents(section: Any, artifacts: Mapping[str, str]) -> Any:
    """Return a section in which the names of parents are their artifacts."""
    if not isinstance(section, Mapping):
        return section
    return {
        key: artifacts.get(value, value)
        if key == "parent" and isinstance(value, str)
        else _with_parents(value, artifacts)
        for key, value in section.items()
    }


def sizes_of(options: CurveOptions, n_train: int) -> list[int]:
    """Return the numbers of training structures, ascending.

    Raises:
        ConfigError: one is larger than the training part, or two are the same.
    """
    found = []
    for size in options.sizes:
        n = size if isinstance(size, int) else max(1, round(size * n_train))
        if n > n_train:
            raise ConfigError(
                f"learning_curve: size {size:,}: the training part has only {n_train:,} structures"
            )
        if n in found:
            raise ConfigError(f"learning_curve: size {size}: {n} structures are there already")
        found.append(n)
    return sorted(found)


def _merged(base: Any, changes: Any) -> Any:
    """Merge a section of an arm into that of the file; another component replaces it."""
    if not isinstance(changes, Mapping):
        return changes
    below = {"use": base} if isinstance(base, str) else base
    if not isinstance(below, Mapping):
        return dict(changes)
    if "use" in changes and changes["use"] != below.get("use"):
        return dict(changes)
    return {**below, **{k: _merged(below.get(k), v) for k, v in changes.items()}}
