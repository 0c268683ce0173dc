"""The section of a config file that names databases to compare, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from epitaxy.config import Config, Place, read_config, read_document
from epitaxy.errors import ConfigError
from epitaxy.quantities import quantity

if TYPE_CHECKING:
    from epitaxy.registry import Registry

SECTION = "cross_database"
UNGROUPED, GROUPED = "ungrouped", "grouped"  # trainings of the database that is divided in two ways


@dataclass(frozen=True, kw_only=True)
class CrossOptions:
    """The ``cross_database:`` section.

    Attributes:
        datasets: name -> where it is: two or more.
        target: one number per structure.
        n_train: entries of each that are learnt from.
        n_valid: further ones, by which the best weights are chosen.
        n_test: entries of each that are tested on.
        test: part of the groups that is held out of all.
        groups: what stays together: "composition" or a tag.
        seeds: of the choice and of the trainings, or how many (3 means 0, 1, 2).
        flattered: the database that is also divided row by row; by default the first, if enough of
            its groups occur again.
    """

    datasets: Mapping[str, Place]
    target: str
    n_train: int = 3000
    n_valid: int = 300
    n_test: int = 800
    test: float = 0.2
    groups: str = "composition"
    seeds: Sequence[int] | int = 3
    flattered: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: one is out of range; the message names it.
        """
        rule = quantity(self.target)
        if len(self.datasets) < 2:
            raise ConfigError(f"{SECTION}: datasets: give two or more, not {len(self.datasets)}")
        if rule.per == "atom" or rule.shape or rule.extensive or rule.is_claim:
            raise ConfigError(
                f"{SECTION}: target {self.target} is not one intensive number per structure, as "
                f"band_gap or formation_energy"
            )
        if min(self.n_train, self.n_test) < 1 or self.n_valid < 0 or not 0 < self.test < 1:
            raise ConfigError(
                f"{SECTION}: n_train {self.n_train}, n_valid {self.n_valid}, n_test {self.n_test}, "
                f"test {self.test}: expected numbers of entries, and a part between 0 and 1"
            )
        if not self.all_seeds or min(self.all_seeds) < 0:
            raise ConfigError(f"{SECTION}: seeds is {self.seeds!r}; allowed: whole numbers from 0")
        if len(set(self.all_seeds)) < len(self.all_seeds):
            raise ConfigError(f"{SECTION}: seeds is {self.seeds!r}: one is there twice")
        if wrong := [n for n in self.datasets if n in (UNGROUPED, GROUPED) or set(n) & set("/\\")]:
            raise ConfigError(
                f"{SECTION}: datasets: {', '.join(wrong)}: a name is that of a folder, without a "
                f"slash, and not {UNGROUPED} or {GROUPED}: choose another"
            )
        if self.flattered is not None and self.flattered not in self.datasets:
            raise ConfigError(
                f"{SECTION}: flattered {self.flattered!r} is none of {', '.join(self.datasets)}"
            )

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds as numbers."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)


@dataclass(frozen=True, kw_only=True)
class CrossConfig:
    """The file, checked: how to train, and on what."""

    training: Config
    options: CrossOptions


def load_cross(
    path: Path | str,
    *,
    overrides: Sequence[str] = (),
    output: Path | str | None = None,
    registry: Registry | None = None,
) -> CrossConfig:
    """Read a config file with a ``cross_database:`` section; arguments as `load_config`.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong.
    """
    from epitaxy.options import check_options

    document, lines = read_document(path, overrides=overrides, output=output)
    section = document.pop(SECTION, None)
    if not isinstance(section, Mapping):
        raise ConfigError(f"{path}: it needs the section {SECTION}: {{datasets: {{...}}, ...}}")
    if wrong := sorted({"dataset", "split", "valid", "test"} & set(document)):
        raise ConfigError(
            f"{path}: {', '.join(wrong)}: the data are those of {SECTION}.datasets, divided by it"
        )
    options = CrossOptions(**check_options(f"{path}: {SECTION}", CrossOptions, section))
    first = next(iter(options.datasets.values()))
    config = read_config(
        {"dataset": first, **document}, name=str(path), lines=lines, registry=registry
    )
    return CrossConfig(training=config, options=options)
