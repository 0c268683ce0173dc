"""Dividing a dataset into parts for training, validation and test."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError

FORMAT = "epitaxy-split"
VERSION = 1
PARTS = ("train", "valid", "test")


class Split:
    """Three parts of one dataset that share no structure.

    Args:
        dataset: the dataset that is divided.
        train: rows of `dataset` to learn from, (n_train,) int.
        valid: rows to choose by (early stopping, options), (n_valid,) int.
        test: rows to touch once, at the end, (n_test,) int.
        method: how the parts were chosen, plain values.

    Raises:
        SplitError: a structure is in two parts, or twice in one, or not in the dataset.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        train: np.ndarray,
        valid: np.ndarray,
        test: np.ndarray,
        method: Mapping[str, Any] | None = None,
    ):
        self.dataset = dataset
        self.rows = {
            name: np.asarray(rows, dtype=np.int64).reshape(-1)
            for name, rows in zip(PARTS, (train, valid, test), strict=True)
        }
        self.method = dict(method or {})
        self._check()
        self.train = dataset[self.rows["train"]]
        self.valid = dataset[self.rows["valid"]]
        self.test = dataset[self.rows["test"]]

    def _check(self) -> None:
        n = len(self.dataset)
        owner = np.full(n, -1)
        for k, (name, rows) in enumerate(self.rows.items()):
            if len(rows) and (rows.min() < 0 or rows.max() >= n):
                wrong = rows[(rows < 0) | (rows >= n)][0]
                raise SplitError(f"{name}: row {wrong} is not in a dataset of {n} structures")
            unique, counts = np.unique(rows, return_counts=True)
            if (counts > 1).any():
                repeated = [self.dataset.ids[int(i)] for i in unique[counts > 1]]
                raise SplitError(f"{name}: {_some(repeated)} given more than once")
            taken = owner[rows] >= 0
            if taken.any():
                other = PARTS[int(owner[rows[taken][0]])]
                shared = [self.dataset.ids[int(i)] for i in rows[taken]]
                raise SplitError(
                    f"{len(shared)} structures are both in {other} and in {name}: {_some(shared)}; "
                    "each may be in one part only"
                )
            owner[rows] = k

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(rows)}" for name, rows in self.rows.items())
        return f"<Split of {len(self.dataset)} structures: {sizes}>"

    @property
    def digest(self) -> str:
        """sha256 over the data and which structures are in which part."""
        hashed = hashlib.sha256(self.dataset.digest.encode())
        for name, rows in self.rows.items():
            hashed.update(f"{name} {len(rows)}".encode())
            hashed.update(rows.tobytes())
        return hashed.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, to the side, then renamed.

        Structures are named by their ids where these are unique, by their row otherwise.
        """
        path = Path(path)
        ids = list(self.dataset.ids)
        by = "ids" if len(set(ids)) == len(ids) else "rows"
        document = {
            "format": FORMAT,
            "version": VERSION,
            "digest": self.digest,
            "dataset": {
                "digest": self.dataset.digest,
                "ids_digest": ids_digest(ids),
                "n_structures": len(ids),
            },
            "method": self.method,
            "by": by,
            "parts": {
                name: [ids[i] for i in rows] if by == "ids" else rows.tolist()
                for name, rows in self.rows.items()
            },
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        try:
            with partial.open("w", encoding="utf-8") as stream:
                json.dump(document, stream, indent=1, ensure_ascii=False)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        except OSError as error:
            raise SplitError(f"{path}: the split could not be written: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, dataset: Dataset) -> Split:
        """Read what `save` wrote and apply it to the same dataset.

        Raises:
            SplitError: the file is not a split, is of a newer format or was edited, or
                `dataset` is not the one that was split.
        """
        path = Path(path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SplitError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise SplitError(f"{path}: not JSON: {error}") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise SplitError(f"{path}: not a split (make one with `epitaxy split`)")
        version = document.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise SplitError(
                f"{path}: format version {version}, this epitaxy reads up to {VERSION}: upgrade"
            )
        try:
            facts, parts, by = document["dataset"], document["parts"], document["by"]
            found, wanted = dataset.digest, facts["digest"]
            ids = list(dataset.ids)
            if found != wanted or facts["ids_digest"] != ids_digest(ids):
                what = "data" if found != wanted else "ids"
                raise SplitError(
                    f"{path}: made for another dataset: its {what} differ (there "
                    f"{facts['n_structures']} structures, digest {wanted[:12]}…; here "
                    f"{len(dataset)}, digest {found[:12]}…); split this dataset anew or open the "
                    "one it was made for"
                )
            if by == "ids":
                split = split_by_ids(
                    dataset, train=parts["train"], valid=parts["valid"], test=parts["test"]
                )
            else:
                rows = {name: np.array(parts[name], dtype=np.int64) for name in PARTS}
                split = cls(dataset, train=rows["train"], valid=rows["valid"], test=rows["test"])
        except (KeyError, TypeError, AttributeError) as error:
            raise SplitError(f"{path}: incomplete or edited: {error!r}") from error
        split.method = dict(document.get("method", {}))
        if split.digest != document.get("digest"):
            raise SplitError(f"{path}: edited: its parts do not match its digest")
        return split


def ids_digest(ids: Iterable[str]) -> str:
    """Return the sha256 over ids in order."""
    text = json.dumps(list(ids), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def split_random(
    dataset: Dataset, *, valid: float | int = 0.1, test: float | int = 0.1, seed: int = 0
) -> Split:
    """Divide at random.

    Args:
        dataset: what to divide.
        valid: part for validation: a fraction below 1 or a number of structures.
        test: part for the test: a fraction below 1 or a number of structures.
        seed: of the permutation; the same seed gives the same split on any machine.

    Raises:
        SplitError: the parts are negative or leave nothing to train on.
    """
    n = len(dataset)
    n_valid, n_test = _sizes(n, valid, test, "structures")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(n)
    return Split(
        dataset,
        test=np.sort(order[:n_test]),
        valid=np.sort(order[n_test : n_test + n_valid]),
        train=np.sort(order[n_test + n_valid :]),
        method={"method": "random", "valid": valid, "test": test, "seed": seed},
    )


def split_by_group(
    dataset: Dataset,
    groups: str | Sequence[str] | np.ndarray = "composition",
    *,
    valid: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
) -> Split:
    """Divide so that structures of one group stay together.

    Groups are taken in random order and put where they bring the sizes nearest to those
    asked for, large groups into the training part.

    Args:
        dataset: what to divide.
        groups: name of a tag, "composition" (reduced formula), or one label per structure.
            Structures without the tag are groups of their own.
        valid: part for validation: a fraction below 1 or a number of structures.
        test: part for the test: a fraction below 1 or a number of structures.
        seed: of the order of the groups.

    Raises:
        SplitError: there are too few groups, or labels of the wrong number.
        DataError: there is no such tag.
    """
    labels, name = group_labels(dataset, groups)
    n = len(dataset)
    wanted = dict(zip(("valid", "test"), _sizes(n, valid, test, "structures"), strict=True))
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    needed = 1 + sum(size > 0 for size in wanted.values())
    if len(counts) < needed:
        raise SplitError(
            f"{len(counts)} groups by {name} cannot fill {needed} parts: choose another tag or "
            "split at random"
        )
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(counts))
    part_of = np.full(len(counts), PARTS.index("train"))
    for part in ("test", "valid"):
        filled = 0
        for group in order:
            if part_of[group] != PARTS.index("train"):
                continue
            left = int((part_of == PARTS.index("train")).sum())
            if left <= 1 + (part == "test" and wanted["valid"] > 0):
                break
            # Take the group if that brings the size nearer to the one asked for.
            if abs(filled + counts[group] - wanted[part]) < abs(filled - wanted[part]):
                part_of[group] = PARTS.index(part)
                filled += int(counts[group])
        if wanted[part] and not filled:
            candidates = [g for g in order if part_of[g] == PARTS.index("train")]
            smallest = min(candidates, key=lambda g: int(counts[g]))
            part_of[smallest] = PARTS.index(part)
    part_of_row = part_of[codes]
    rows = {part: (part_of_row == k).nonzero()[0] for k, part in enumerate(PARTS)}
    return Split(
        dataset,
        train=rows["train"],
        valid=rows["valid"],
        test=rows["test"],
        method={"method": "group", "groups": name, "valid": valid, "test": test, "seed": seed},
    )


def split_by_ids(
    dataset: Dataset,
    *,
    train: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
) -> Split:
    """Divide by given ids.

    Args:
        dataset: what to divide.
        train: ids to train on; all that are in no other part by default.
        valid: ids to validate on.
        test: ids to test on.

    Raises:
        SplitError: ids are unknown, ambiguous or in two parts; the message names them.
    """
    row_of: dict[str, int] = {}
    ambiguous: set[str] = set()
    for i, name in enumerate(dataset.ids):
        if name in row_of:
            ambiguous.add(name)
        row_of[name] = i
    given = {"train": train, "valid": valid, "test": test}
    rows: dict[str, np.ndarray] = {}
    for part, names in given.items():
        if names is None:
            continue
        if unknown := [name for name in names if name not in row_of]:
            raise SplitError(
                f"{part}: {len(unknown)} ids are not in the dataset: {_some(unknown)}; "
                f"it has ids like {_some(list(dataset.ids[:2]))}"
            )
        if double := [name for name in names if name in ambiguous]:
            raise SplitError(
                f"{part}: the dataset has several structures called {_some(double)}; ingest it "
                "with unique ids or split by rows"
            )
        rows[part] = np.array([row_of[name] for name in names], dtype=np.int64)
    if train is None:
        used = np.concatenate([rows["valid"], rows["test"]])
        rows["train"] = np.setdiff1d(np.arange(len(dataset)), used)
    if not len(rows["train"]):
        raise SplitError("nothing is left to train on")
    return Split(
        dataset,
        train=rows["train"],
        valid=rows["valid"],
        test=rows["test"],
        method={"method": "ids"},
    )


def group_labels(
    dataset: Dataset, groups: str | Sequence[str] | np.ndarray
) -> tuple[np.ndarray, str]:
    """Return one label per structure, (n,) str, and what the labels are called."""
    n = len(dataset)
    if not isinstance(groups, str):
        labels = np.asarray(groups).astype(str)
        if labels.shape != (n,):
            raise SplitError(f"groups: {labels.shape} labels for {n} structures")
        return labels, "given labels"
    if groups == "composition" and groups not in dataset.tags:
        return compositions(dataset), groups
    labels = dataset.tag(groups)
    missing = labels == ""
    if missing.any():
        own = np.array([f"\0{i}" for i in range(n)])
        labels = np.where(missing, own, labels)
    return labels, groups


def compositions(dataset: Dataset) -> np.ndarray:
    """Return the reduced formula of every structure, (n,) str, elements by atomic number."""
    from ase.data import chemical_symbols

    numbers = dataset.gather().numbers
    structure = np.repeat(np.arange(len(dataset)), dataset.n_atoms)
    elements = np.array(sorted(dataset.elements), dtype=np.int64)
    counts = np.zeros((len(dataset), len(elements)), dtype=np.int64)
    np.add.at(counts, (structure, np.searchsorted(elements, numbers)), 1)
    divisor = np.gcd.reduce(counts, axis=1, keepdims=True) if len(elements) else 1
    counts //= np.maximum(divisor, 1)
    unique, codes = np.unique(counts, axis=0, return_inverse=True)
    formulas = np.array(
        [
            "".join(
                f"{chemical_symbols[z]}{count if count > 1 else ''}"
                for z, count in zip(elements, row, strict=True)
                if count
            )
            for row in unique
        ],
        dtype=str,
    )
    return formulas[codes.reshape(-1)]


def _sizes(n: int, valid: float | int, test: float | int, what: str) -> tuple[int, int]:
    sizes = []
    for name, size in (("valid", valid), ("test", test)):
        if not size >= 0 or (isinstance(size, float) and size >= 1 and not size.is_integer()):
            raise SplitError(f"{name} = {size}: give a fraction below 1 or a number of {what}")
        if 0 < size < 1:
            sizes.append(max(1, round(size * n)))
        else:
            sizes.append(int(size))
    if sum(sizes) >= n:
        raise SplitError(
            f"valid ({sizes[0]}) and test ({sizes[1]}) leave nothing of {n} {what} to train on"
        )
    return sizes[0], sizes[1]


def _some(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
