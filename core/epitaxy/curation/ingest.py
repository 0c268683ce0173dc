"""From sources to a checked dataset on disk, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from epitaxy.curation.checking import outlier_warnings
from epitaxy.curation.consistency import check_consistency
from epitaxy.curation.conventions import Conventions
from epitaxy.curation.findings import ConsistencyReport
from epitaxy.curation.frames import FrameChecker, FrameChecks, Rejections
from epitaxy.curation.names import distinct_names
from epitaxy.curation.plausible import doubts_about
from epitaxy.curation.tell import Tell
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import DataError, EntryError
from epitaxy.protocols import Source
from epitaxy.stores.memory_map import Writer

_SUSPICIOUS = 0.05  # share of frames dropped for large labels that looks like another unit

_ADVICE = (
    (
        "|F| >",
        "for a large force: if these are stored in another unit, say so with --forces-unit (and "
        "its companions); if they are right, raise --max-force",
    ),
    (
        "|energy| >",
        "for a large energy: if these are stored in another unit, say so with --energy-unit (and "
        "its companions); if they are right, raise --max-energy",
    ),
    ("looks like joule", "because energies look like joule: say --energy-unit J"),
    ("look fractional", "because positions look fractional: say --positions-unit fractional"),
    ("like metres", "because lengths look like metres: say --positions-unit m"),
    ("like nm", "because lengths look like nm: say --positions-unit nm"),
    (
        "eV/atom",
        "because a value is outside of what is physical: if these are per cell or in another "
        "unit the source has to convert them; if they are right, move the --limit",
    ),
)
"""Part of a reason -> what may help if many frames are dropped for it."""

OnInconsistent = Literal["error", "warn", "skip"]


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What came of it.

    Attributes:
        dataset: the new dataset.
        rejections: frames that were dropped, by reason.
        consistency: what the labels say about each other; None if that was not checked.
        warnings: what the user should know, one sentence each.
    """

    dataset: Dataset
    rejections: Rejections
    consistency: ConsistencyReport | None
    warnings: tuple[str, ...]


def ingest(
    sources: Source | Iterable[Source],
    path: str | Path,
    *,
    checks: FrameChecks | None = None,
    conventions: Conventions | None = None,
    tags: Mapping[str, str] | None = None,
    on_inconsistent: OnInconsistent = "error",
    strict: bool = False,
    keep_going: bool = False,
    overwrite: bool = False,
    tell: Tell | None = None,
    recipes: Sequence[Mapping[str, Any]] = (),
) -> IngestReport:
    """Read sources, check every frame and the set as a whole, and write a dataset.

    Args:
        sources: one or several sources.
        path: of the dataset to make.
        checks: what a usable frame is. Its `require` may be None: where a source offers energies
            with forces, the energy or another property than forces; else nothing.
        conventions: units, signs and orders in which the labels are stored.
        tags: added to every entry.
        on_inconsistent: what to do if labels contradict each other: "error", "warn", or "skip"
            the check.
        strict: stop at the first unusable frame instead of dropping it.
        keep_going: if a source breaks off, keep the complete frames before.
        overwrite: replace a dataset that is there already.
        tell: called now and then with the progress.
        recipes: the specs of the sources, for the history.

    Raises:
        EntryError: a frame is unusable and `strict` is set.
        ConsistencyError: labels contradict each other; the message has culprit and remedy.
        DataError: a source breaks off, or no frame is usable.
        StoreError: the dataset cannot be written; what was at `path` stays as it was.
    """
    source_list = [sources] if isinstance(sources, Source) else list(sources)
    checks = checks or FrameChecks()
    if checks.require is None:
        checks = replace(checks, require=required_of(source_list), or_property=True)
    conventions = conventions or Conventions()
    checker, rejections = FrameChecker(checks), Rejections()
    warnings: list[str] = []
    with Writer(path, overwrite=overwrite) as writer:
        warnings += writer.removed
        renamed = _renamed_files(recipes)
        for i, source in enumerate(source_list):
            try:
                for entry in source:
                    if i in renamed and entry.id.startswith(f"{renamed[i][0]}#"):
                        entry = replace(entry, id=entry.id.replace(*renamed[i], 1))
                    _take(entry, writer, checker, rejections, conventions, tags, strict=strict)
                    if tell:
                        tell(rejections.n_seen, len(writer), getattr(source, "fraction", None))
            except DataError as error:
                if not keep_going or isinstance(error, EntryError):
                    raise
                warnings.append(f"{error} [the frames before were kept]")
        if not len(writer):
            reasons = "; ".join(rejections.lines()) or "the source has no frames"
            said = [reasons, *_notes(source_list), *_hints(source_list, rejections)]
            raise DataError(f"nothing is left to put into {path}: {'; '.join(said)}")
        warnings += _notes(source_list) + _hints(source_list, rejections)
        preview = writer.preview()
        if not preview.targets:
            warnings.append(_nothing_labelled(source_list, len(preview)))
        warnings += [*doubts_about(preview), *outlier_warnings(preview)]
        consistency = None
        if on_inconsistent != "skip":
            consistency = check_consistency(preview)
            if on_inconsistent == "error":
                consistency.raise_if_inconsistent()
            elif consistency.inconsistent:
                warnings.append(consistency.message())
            warnings += consistency.doubts
        writer.record(
            {
                "operation": "ingest",
                "epitaxy": version("epitaxy"),
                "sources": [
                    {**(recipes[i] if i < len(recipes) else {}), "card": asdict(source.card)}
                    for i, source in enumerate(source_list)
                ],
                "checks": asdict(checks),
                "recipe": _recipe(checks),
                "conventions": conventions.changes,
                "tags": dict(tags or {}),
                **rejections.step(),
                "warnings": list(warnings),
            }
        )
        if consistency is not None:
            writer.record(consistency.step())
    return IngestReport(Dataset.open(path), rejections, consistency, tuple(warnings))


def _take(
    entry: Entry,
    writer: Writer,
    checker: FrameChecker,
    rejections: Rejections,
    conventions: Conventions,
    tags: Mapping[str, str] | None,
    *,
    strict: bool,
) -> None:
    name = entry.id or f"frame {rejections.n_seen}"
    rejections.n_seen += 1
    try:
        entry = conventions.apply(entry)
        reason = checker.reason_against(entry)
    except EntryError as error:
        reason = str(error).partition(": ")[2] or str(error)
    if reason is not None:
        if strict:
            raise EntryError(f"{name}: {reason} (strict: nothing was written)")
        rejections.add(reason, name)
        return
    if tags:
        entry = replace(entry, tags=MappingProxyType({**entry.tags, **tags}))
    writer.append(entry)


def _renamed_files(recipes: Sequence[Mapping[str, Any]]) -> dict[int, tuple[str, str]]:
    """Return (name, distinct name) of the sources that read files of the same name."""
    paths = {i: Path(str(recipe["path"])) for i, recipe in enumerate(recipes) if "path" in recipe}
    names = dict(zip(paths, distinct_names(list(paths.values())), strict=True))
    return {i: (path.name, names[i]) for i, path in paths.items() if names[i] != path.name}


def _notes(sources: Sequence[Source]) -> list[str]:
    """Return what sources say about entries that they left out themselves."""
    return [note for source in sources for note in getattr(source, "notes", ())]


def _nothing_labelled(sources: Sequence[Source], n: int) -> str:
    """Return what to say of structures alone."""
    known = {name for source in sources for name in source.card.quantities}
    could = f" ({', '.join(sorted(known))})" if known else ""
    return (
        f"none of the {n:,} entries has a label{could}: they can be grouped, split and compared, "
        "but nothing can be learned from them; labels may be in another file of the same set, or "
        "have names that have to be given as options (`epitaxy show SOURCE` lists these)"
    )


def _hints(sources: Sequence[Source], rejections: Rejections) -> list[str]:
    """Return what may help the user to get dropped frames in."""
    said: list[str] = []
    if any(reason.endswith(" missing") for reason in rejections.counts):
        for source in sources:
            said += getattr(source, "hints", ())
        said.append(
            "`--require none` keeps all entries without the label, `--require NAME` asks for "
            "another"
        )
    for start, advice in _ADVICE:
        n = sum(count for reason, count in rejections.counts.items() if start in reason)
        if n > _SUSPICIOUS * rejections.n_seen:
            share = f"{n / rejections.n_seen:.0%} of the frames were dropped"
            said.append(f"{share} {advice}")
    return said


def required_of(sources: Sequence[Source]) -> tuple[str, ...]:
    """Return what frames need by default: an energy, if they are for potentials.

    A dataset that epitaxy exported comes back as it was.
    """
    new = [source for source in sources if not getattr(source, "exported", False)]
    offered = {name for source in new for name in source.card.quantities}
    return ("energy",) if {"energy", "forces"} <= offered else ()


def _recipe(checks: FrameChecks) -> list[dict[str, Any]]:
    """Return the operations on a dataset that do what was done frame by frame."""
    limits = {name: None if v is None else list(v) for name, v in checks.limits.items()}
    options: dict[str, Any] = {
        "require": list(checks.require or ()),
        "or_property": checks.or_property,
        "max_force": checks.max_force,
        "min_distance": checks.min_distance,
        "max_energy": checks.max_energy,
        "limits": limits,
    }
    steps: list[dict[str, Any]] = [{"operation": "frames", "options": options}]
    if checks.duplicates:
        distance = {"distance": checks.duplicate_distance}
        steps.append({"operation": "duplicates", "options": distance})
    return steps
