"""Begins a campaign, and adds to it what has been finished since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from epitaxy.errors import OptionError
from epitaxy_nomad.campaign.codes import CODES, own_code
from epitaxy_nomad.campaign.find import Rules, Survey, survey
from epitaxy_nomad.campaign.ledger import Ledger
from epitaxy_nomad.campaign.plan import Limits, parts


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a campaign looks for, and how large its uploads may be; the same to its end.

    Attributes:
        mainfile: regular expression for the whole names of main outputs, instead of the known
            codes; "" for those.
        finished: regular expression that such a file has in its last 64 kB if it ended well.
        leave_out: patterns of names of files and folders that stay at home.
        follow_links: pack the files that symbolic links point to.
        path_key: key of a database's rows that holds the folder of the calculation.
        max_bytes: of one upload.
        max_files: of one upload.
    """

    mainfile: str = ""
    finished: str = ""
    leave_out: tuple[str, ...] = ()
    follow_links: bool = False
    path_key: str = "folder"
    max_bytes: int = Limits().max_bytes
    max_files: int = Limits().max_files

    def __post_init__(self) -> None:
        """Check.

        Raises:
            OptionError: a limit is not positive, a pattern is wrong, or `finished` stands alone.
        """
        if self.finished and not self.mainfile:
            raise OptionError("--finished is about your own main outputs: give --mainfile, too")
        self.limits()
        self.rules()

    def limits(self) -> Limits:
        """Return how large an upload may be."""
        return Limits(self.max_bytes, self.max_files)

    def rules(self) -> Rules:
        """Return what counts as a calculation."""
        codes = (own_code(self.mainfile, self.finished or None),) if self.mainfile else CODES
        return Rules(codes, self.leave_out, self.follow_links)

    @classmethod
    def of(cls, ledger: Ledger) -> Recipe:
        """Return the recipe of a campaign."""
        facts: Mapping[str, Any] = ledger.facts["rules"]
        return cls(**{**facts, "leave_out": tuple(facts["leave_out"])})


@dataclass(slots=True)
class News:
    """What planning has found.

    Attributes:
        found: all finished calculations, and what was left out.
        new_parts: numbers of the uploads that are planned and not begun.
        n_sent: calculations that were sent, or begun to be, before.
        changed: calculations that differ from what was sent.
    """

    found: Survey
    new_parts: list[int] = field(default_factory=list)
    n_sent: int = 0
    changed: list[str] = field(default_factory=list)


def plan(
    folder: Path,
    source: Path | None = None,
    *,
    recipe: Recipe | None = None,
    name: str = "",
    tell: Callable[[int], None] | None = None,
) -> News:
    """Plan the uploads of what is finished and was not sent yet.

    What was planned before and not begun is planned anew. What was sent stays where it is.

    Args:
        folder: of the campaign; with its ledger, or to be made.
        source: folder tree or ASE database; None for that of the campaign.
        recipe: of a new campaign; None for the usual one, or that of the campaign.
        name: that the uploads of a new campaign begin with; by default that of the source.
        tell: called with the number of calculations found so far.

    Raises:
        OptionError: the source does not exist, or another recipe or source is given than before.
        StoreError: the ledger is damaged, or in use.
    """
    if Ledger.is_begun(folder):
        ledger = Ledger.open(folder, to_write=True)
        try:
            _check_same(ledger, source, recipe, name)
        except OptionError:
            ledger.close()
            raise
    else:
        if source is None:
            raise OptionError(f"{folder} holds no campaign: name a folder or database to pack")
        if not source.exists():
            raise OptionError(f"{source} does not exist; give a folder or an ASE database")
        source = source.resolve()
        if folder.resolve().is_relative_to(source):
            raise OptionError(
                f"{folder} lies in {source}, and would be packed with it: choose another place"
            )
        rules = asdict(recipe or Recipe())
        ledger = Ledger.create(folder, name=name or source.stem, source=source, rules=rules)
    with ledger:
        used = Recipe.of(ledger)
        found = survey(
            Path(ledger.facts["source"]),
            rules=used.rules(),
            path_key=used.path_key,
            rows_folder=folder / "rows",
            tell=tell,
        )
        return _planned(ledger, found, used.limits())


def _planned(ledger: Ledger, found: Survey, limits: Limits) -> News:
    news = News(found)
    begun = {
        name: calculation
        for part in ledger.parts.values()
        if part.has("packed")
        for name, calculation in part.calculations.items()
    }
    todo = []
    for calculation in found.calculations:
        if (earlier := begun.get(calculation.name)) is None:
            todo.append(calculation)
            continue
        news.n_sent += 1
        if earlier.listing != calculation.listing:
            news.changed.append(calculation.name)
    filled, too_large = parts(todo, limits)
    found.left_out.update(too_large)
    for name, reason in found.left_out.items():
        if ledger.left_out.get(name) != reason:
            ledger.record("left out", 0, {"calculation": name, "reason": reason})
    waiting = [part for part in ledger.parts.values() if not part.has("packed")]
    if [list(part.calculations.values()) for part in waiting] == filled:
        news.new_parts = [part.number for part in waiting]
        return news
    for part in waiting:
        ledger.record("dropped", part.number, {})
    news.new_parts = [ledger.add_part(calculations).number for calculations in filled]
    return news


def _check_same(ledger: Ledger, source: Path | None, recipe: Recipe | None, name: str) -> None:
    facts = ledger.facts
    asked = {
        "source": (str(source.resolve()) if source else facts["source"], facts["source"]),
        "name": (name or facts["name"], facts["name"]),
        "options": (recipe or Recipe.of(ledger), Recipe.of(ledger)),
    }
    for what, (now, before) in asked.items():
        if now != before:
            raise OptionError(
                f"the campaign in {ledger.folder} has the {what} {before}, not {now}: leave it "
                "out, or begin another campaign elsewhere"
            )
