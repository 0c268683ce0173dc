"""Many datasets to one, and more entries for a dataset that exists; in bounded memory.

    report = merge({"mp": first, "oqmd": second}, "both", tag_source=True)
    report = append("both", third, name="aflow")

Columns are copied block by block. An id that several datasets use gets the name of its dataset in
front ("mp:17"); targets that a dataset lacks are masked; the history holds those of all inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.composition import TAG as FORMULA_TAG
from epitaxy.curation.tell import Tell
from epitaxy.dataset import Dataset
from epitaxy.entry import Method
from epitaxy.errors import DataError, StoreError
from epitaxy.stores.columns import Columns, Strings, Tag, blocks
from epitaxy.stores.memory_map import Writer, read_manifest
from epitaxy.stores.repeated import n_shared

SOURCE_TAG = "source"
"""Tag that `tag_source` adds; where an entry has it already it is kept."""

_SHOWN = 5  # levels of theory that a warning names


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What was merged.

    Attributes:
        dataset: the new one.
        n_structures: of each input, by name.
        n_renamed: entries whose id several inputs use, of each input.
        examples: some of the new ids.
        warnings: what the user should know: mixed levels of theory, structures that are there
            twice, formulas among structures.
    """

    dataset: Dataset
    n_structures: Mapping[str, int]
    n_renamed: Mapping[str, int]
    examples: tuple[str, ...]
    warnings: tuple[str, ...]


def merge(
    datasets: Mapping[str, Dataset],
    path: str | Path,
    *,
    tag_source: bool = False,
    keep_identical: bool = False,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> MergeReport:
    """Write several datasets as one.

    Args:
        datasets: name -> dataset, in the order in which they follow each other.
        path: dataset to make.
        tag_source: add the tag "source" with the name of the dataset.
        keep_identical: accept datasets that hold the same data.
        overwrite: replace a dataset that is there.
        tell: called with the progress.

    Raises:
        DataError: none or unusable names, or two datasets hold the same data.
        StoreError: something is at `path` already, it is one of the inputs that is not
            complete, or the disk refuses; what was there stays as it was.
    """
    if not datasets:
        raise DataError("nothing to merge: give at least one dataset")
    _check_names(datasets)
    if not keep_identical:
        _check_identical(datasets)
    clashing = _clashing_ids(list(datasets.values()))
    warnings = _warnings(datasets)
    progress = _Progress(datasets, tell)
    with Writer(path, overwrite=overwrite) as writer:
        for name, dataset in datasets.items():
            source = name if tag_source else None
            for part in _parts(dataset, name, clashing, source, progress):
                writer.extend(part)
        writer.record(
            {
                "operation": "merge",
                "options": {"tag_source": tag_source},
                "counts": {
                    "n_structures": len(writer),
                    "n_renamed": sum(progress.n_renamed.values()),
                },
                "inputs": [_input(name, dataset) for name, dataset in datasets.items()],
                "warnings": list(warnings),
            }
        )
    return progress.report(Path(path), (*writer.removed, *warnings))


def append(
    path: str | Path,
    dataset: Dataset,
    *,
    name: str = "",
    tag_source: bool = False,
    keep_identical: bool = False,
    tell: Tell | None = None,
) -> MergeReport:
    """Add the entries of a dataset to one that is on disk.

    The old one stays as it is until the longer one is complete, and readers that have it open
    keep seeing it. The ids of old entries do not change.

    Args:
        path: dataset to make longer.
        dataset: what to add.
        name: of what is added; by default the name of its folder.
        tag_source: add the tag "source" to what is added.
        keep_identical: accept data that are in `path` already.
        tell: called with the progress.

    Raises:
        DataError: the dataset was appended already.
        StoreError: `path` is not a memory-mapped dataset, another process changed it meanwhile,
            or the disk refuses; the old dataset is intact.
    """
    path = Path(path)
    read_manifest(path)  # a dataset of the kind that can be written here
    old = Dataset.open(path)
    name = name or (dataset.path.name if dataset.path is not None else "appended")
    known = {old.digest, *_digests_in(old.history)}
    if not keep_identical and dataset.digest in known:
        raise DataError(
            f"{name} (digest {dataset.digest[:12]}) is in {path} already; to have its entries "
            "twice use --keep-identical (keep_identical=True)"
        )
    old_name = path.name if path.name != name else f"{path.name} (before)"
    datasets = {old_name: old, name: dataset}
    clashing = _clashing_ids(list(datasets.values()))
    taken = _hashes_of(old)
    warnings = _warnings(datasets)
    progress = _Progress(datasets, tell)
    with Writer(path, overwrite=True) as writer:
        for part in _parts(old, old_name, np.zeros(0, dtype=np.uint64), None, progress):
            writer.extend(part)
        source = name if tag_source else None
        for part in _parts(dataset, name, clashing, source, progress, taken=taken):
            writer.extend(part)
        for step in old.history:
            writer.record(step)
        writer.record(
            {
                "operation": "append",
                "options": {"tag_source": tag_source},
                "counts": {
                    "n_before": len(old),
                    "n_structures": len(writer),
                    "n_renamed": progress.n_renamed[name],
                },
                "digest_before": old.digest,
                "inputs": [_input(name, dataset)],
                "warnings": list(warnings),
            }
        )
        writer.preview()
        if read_manifest(path)["digest"] != old.digest:
            raise StoreError(
                f"{path}: another process changed it while entries were appended; it was left as "
                "that process wrote it, append again"
            )
    return progress.report(path, (*writer.removed, *warnings))


# --- checks ---


def _check_names(datasets: Mapping[str, Dataset]) -> None:
    for name in datasets:
        if not name.strip():
            raise DataError("every dataset needs a name: it goes before ids that clash")


def _check_identical(datasets: Mapping[str, Dataset]) -> None:
    found: dict[str, str] = {}
    for name, dataset in datasets.items():
        if dataset.digest in found and len(dataset):
            raise DataError(
                f"{found[dataset.digest]} and {name} hold the same data (digest "
                f"{dataset.digest[:12]}): leave one of them out, or use --keep-identical "
                "(keep_identical=True) to have every entry twice"
            )
        found[dataset.digest] = name


def _digests_in(history: Any) -> Iterator[str]:
    for step in history:
        for fact in step.get("inputs", ()) if isinstance(step, Mapping) else ():
            if isinstance(fact, Mapping) and "digest" in fact:
                yield str(fact["digest"])
                yield from _digests_in(fact.get("history", ()))


def _input(name: str, dataset: Dataset) -> dict[str, Any]:
    return {
        "name": name,
        "digest": dataset.digest,
        "n_structures": len(dataset),
        "history": list(dataset.history),
    }


def _warnings(datasets: Mapping[str, Dataset]) -> tuple[str, ...]:
    """Say what does not belong together."""
    found = []
    mixed: dict[str, list[str]] = {}
    for target in sorted({name for dataset in datasets.values() for name in dataset.targets}):
        by_method: dict[Method, dict[str, int]] = {}
        for name, dataset in datasets.items():
            for method, count in methods_of(dataset, target).items():
                by_method.setdefault(method, {})[name] = count
        if len(by_method) > 1:
            mixed.setdefault(_listed(by_method), []).append(target)
    for listed, targets in mixed.items():
        *most, last = targets
        named = f"{', '.join(most)} and {last} come" if most else f"{last} comes"
        found.append(
            f"{named} from {listed}. Do not learn from them as one: see docs/data.md on levels of "
            "theory"
        )
    if n_twice := n_shared(datasets.values()):
        found.append(
            f"{n_twice:,} structures are in more than one of the datasets, at the same level of "
            "theory, and are kept each time: `epitaxy clean` drops what is repeated"
        )
    formulas = {name: _n_formulas(dataset) for name, dataset in datasets.items()}
    n_formulas, n_all = sum(formulas.values()), sum(map(len, datasets.values()))
    if 0 < n_formulas < n_all:
        listed = ", ".join(f"{name} {count:,}" for name, count in formulas.items() if count)
        found.append(f"formulas without a structure are among the structures: {listed}")
    return tuple(found)


def _listed(by_method: Mapping[Method, Mapping[str, int]]) -> str:
    """Return "2 levels of theory: PBE (a 2); LDA (b 1)", the most common first, few of many."""
    order = sorted(by_method.items(), key=lambda item: -sum(item[1].values()))
    parts = [
        f"{describe_method(method)} ({', '.join(f'{n} {c:,}' for n, c in counts.items())})"
        for method, counts in order[:_SHOWN]
    ]
    if rest := order[_SHOWN:]:
        n_rest = sum(sum(counts.values()) for _, counts in rest)
        parts.append(f"and {len(rest):,} more ({n_rest:,} entries)")
    return f"{len(by_method):,} levels of theory: {'; '.join(parts)}"


def methods_of(dataset: Dataset, target: str) -> dict[Method, int]:
    """Return how many structures have a target at which level of theory, the most common first."""
    if target not in dataset.targets:
        return {}
    columns, rows = dataset._columns, dataset._rows
    mask = columns.targets[target].mask if rows is None else columns.targets[target].mask[rows]
    codes = columns.method_codes if rows is None else columns.method_codes[rows]
    counts = np.bincount(codes[mask], minlength=len(columns.methods))
    order = np.argsort(-counts, kind="stable")
    return {columns.methods[k]: int(counts[k]) for k in order if counts[k]}


def describe_method(method: Method) -> str:
    """Return a level of theory in a few words."""
    words = [word for word in (method.xc_functional, method.code, method.settings) if word]
    return ", ".join(words) or "not recorded"


def _n_formulas(dataset: Dataset) -> int:
    if FORMULA_TAG not in dataset.tags:
        return 0
    columns, rows = dataset._columns, dataset._rows
    codes = columns.tags[FORMULA_TAG].codes
    return int((codes[rows if rows is not None else slice(None)] >= 0).sum())


# --- ids ---


def _hash(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _hashes_of(dataset: Dataset) -> np.ndarray:
    """Return the distinct hashes of the ids of a dataset, (k,) uint64, sorted.

    Eight bytes per id instead of the text: two ids with one hash, of 10^8 once in 4,000 times,
    get a name in front that they do not need.
    """
    found = np.fromiter((_hash(text.encode()) for text in dataset.ids), np.uint64, len(dataset))
    distinct: np.ndarray = np.unique(found)
    return distinct


def _clashing_ids(datasets: list[Dataset]) -> np.ndarray:
    """Return the hashes of ids that more than one dataset uses, (k,) uint64, sorted."""
    together = np.concatenate([_hashes_of(dataset) for dataset in datasets])
    together.sort()
    clashing: np.ndarray = np.unique(together[1:][together[1:] == together[:-1]])
    return clashing


class _Progress:
    """What was copied and renamed so far."""

    def __init__(self, datasets: Mapping[str, Dataset], tell: Tell | None):
        self._n = {name: len(dataset) for name, dataset in datasets.items()}
        self._tell = tell
        self._done = 0
        self.n_renamed = dict.fromkeys(datasets, 0)
        self.examples: list[str] = []

    def copied(self, n: int) -> None:
        """Take notice of `n` more structures."""
        self._done += n
        if self._tell is not None:
            self._tell(self._done, self._done, self._done / max(1, sum(self._n.values())))

    def renamed(self, name: str, new: str) -> None:
        """Take notice of a new id."""
        self.n_renamed[name] += 1
        if len(self.examples) < 5:
            self.examples.append(new)

    def report(self, path: Path, warnings: tuple[str, ...]) -> MergeReport:
        """Return what was done."""
        return MergeReport(
            dataset=Dataset.open(path),
            n_structures=self._n,
            n_renamed=self.n_renamed,
            examples=tuple(self.examples),
            warnings=warnings,
        )


def _parts(
    dataset: Dataset,
    name: str,
    clashing: np.ndarray,
    source: str | None,
    progress: _Progress,
    *,
    taken: np.ndarray | None = None,
) -> Iterator[Dataset]:
    """Yield a dataset in parts of bounded size, with new ids and tags."""
    for block in blocks(dataset._columns, dataset._rows):
        if len(clashing):
            block = _with_ids(block, name, clashing, progress, taken)
        if source is not None:
            block = _with_source(block, source)
        yield Dataset(block)
        progress.copied(len(block))


def _with_ids(
    block: Columns,
    name: str,
    clashing: np.ndarray,
    progress: _Progress,
    taken: np.ndarray | None,
) -> Columns:
    ids = list(block.ids)
    hashes = np.fromiter((_hash(text.encode()) for text in ids), np.uint64, len(ids))
    rows = np.isin(hashes, clashing).nonzero()[0]
    if not len(rows):
        return block
    for row in rows:
        new, k = f"{name}:{ids[row]}", 1
        while taken is not None and _is_in(_hash(new.encode()), taken):
            k += 1
            new = f"{name}#{k}:{ids[row]}"
        ids[row] = new
        progress.renamed(name, new)
    return replace(block, ids=Strings.of(ids))


def _is_in(value: int, values: np.ndarray) -> bool:
    place = int(np.searchsorted(values, np.uint64(value)))
    return place < len(values) and int(values[place]) == value


def _with_source(block: Columns, source: str) -> Columns:
    old = block.tags.get(SOURCE_TAG)
    if old is None:
        tag = Tag(np.zeros(len(block), dtype=np.int32), (source,))
    else:
        words = [*old.words, source]
        tag = Tag(np.where(old.codes < 0, len(words) - 1, old.codes).astype(np.int32), words)
    return replace(block, tags={**block.tags, SOURCE_TAG: tag})
