"""The options of every method of splitting, as config files, commands and records give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from epitaxy.errors import SplitError

Method = Literal["random", "group", "ids", "stratified", "element", "forward", "folds", "kfold"]

_SIZES = {"valid": 0.1, "test": 0.1}
_WHOLE = {"groups": "composition"}
_REQUIRED = object()

METHODS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "random": _SIZES,
        "group": {**_SIZES, **_WHOLE, "assignment": "sizes"},
        "ids": {"train": None, "valid": None, "test": None},
        "stratified": {**_SIZES, **_WHOLE, "by": _REQUIRED, "n_bins": 10},
        "element": {"valid": 0.1, **_WHOLE, "elements": _REQUIRED},
        "forward": {
            **_SIZES,
            **_WHOLE,
            "target": _REQUIRED,
            "direction": "high",
            "low_test": False,
        },
        "folds": {"valid": 0.1, **_WHOLE, "folds": _REQUIRED, "fold": 0, "by": None},
        "kfold": {"valid": 0.1, **_WHOLE, "n_folds": 5, "fold": 0, "n_inner": None, "inner": 0},
    }
)
"""Method -> its options and their defaults."""


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How a dataset is divided: the ``split:`` section.

    Attributes:
        method: "group" (the default), which keeps structures of one group together; "stratified",
            "element", "forward", "kfold", which do so too; "random", which does not; "ids" and
            "folds", as given.
        valid: part for validation: a fraction below 1 or a number of structures (10 % by
            default); for method "ids" a file of ids, one per line.
        test: part for the test, likewise.
        seed: of the division; the seed of the training does not change it.
        groups: what stays together: a tag of the dataset, "spacegroup", "matched" or "prototype"
            (`epitaxy groups`), "composition" (the default), or "none".
        assignment: for "group": "sizes", near the sizes asked for, or "hash", where a group keeps
            its part when the dataset grows.
        by: for "stratified": a target or a tag; for "folds" of MatBench: the classes.
        n_bins: for "stratified": quantiles of the target (10).
        elements: for "element": symbols; structures that have one are the test.
        target: for "forward": the target whose extreme values are the test.
        direction: for "forward": "high" or "low".
        low_test: for "forward": whether the test also gets as many structures of the rest.
        folds: for "folds": a file with the fold of each structure, or "matbench".
        fold: for "folds" and "kfold": which fold is the test, from 0.
        n_folds: for "kfold": how many (5).
        n_inner: for "kfold": inner folds of a nested cross-validation.
        inner: for "kfold": which inner fold is for validation, from 0.
        train: for "ids": a file of ids; all others by default.
        file: a split saved before (`epitaxy split`); then nothing else may be given.
    """

    method: Method = "group"
    valid: float | int | str | None = None
    test: float | int | str | None = None
    seed: int = 0
    groups: str | None = None
    assignment: Literal["sizes", "hash"] | None = None
    by: str | None = None
    n_bins: int | None = None
    elements: Sequence[str] | str | None = None
    target: str | None = None
    direction: Literal["high", "low"] | None = None
    low_test: bool | None = None
    folds: str | None = None
    fold: int | None = None
    n_folds: int | None = None
    n_inner: int | None = None
    inner: int | None = None
    train: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if self.file is not None:
            return
        allowed = METHODS[self.method]
        for name, value in self._given.items():
            if name not in allowed:
                methods = [method for method, options in METHODS.items() if name in options]
                raise SplitError(
                    f"option {name} = {value!r}: method {self.method} has no such option, it has "
                    f"{', '.join([*allowed, 'seed'])}; {name} is for {', '.join(methods)}"
                )
            if name in ("valid", "test") and isinstance(value, str) != (self.method == "ids"):
                wanted = "a file of ids" if self.method == "ids" else "a fraction or a number"
                raise SplitError(f"option {name} = {value!r}: method {self.method} needs {wanted}")
        if self.inner and self.n_inner is None:
            raise SplitError(f"option inner = {self.inner}: it needs n_inner, the number of folds")
        if isinstance(self.elements, str):
            object.__setattr__(self, "elements", tuple(self.elements.replace(",", " ").split()))
        for name, default in allowed.items():
            if getattr(self, name) is not None or default is None:
                continue
            if default is _REQUIRED:
                raise SplitError(f"method {self.method} needs the option {name}")
            object.__setattr__(self, name, default)

    @property
    def _given(self) -> dict[str, Any]:
        names = [field.name for field in fields(self) if field.name not in ("method", "seed")]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def files(self) -> tuple[str, ...]:
        """Files that the division reads."""
        if self.file is not None:
            return (self.file,)
        given = [self.train, self.valid, self.test] if self.method == "ids" else [self.folds]
        return tuple(str(file) for file in given if file is not None and file != "matbench")

    def complete(self) -> dict[str, Any]:
        """Return the options of the method with their defaults, without the method and the seed."""
        return {name: getattr(self, name) for name in METHODS[self.method]}

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values that make the same options again, defaults written out."""
        if self.file is not None:
            return {"file": self.file}
        options = {k: v for k, v in self.complete().items() if v is not None}
        if "elements" in options:
            options["elements"] = list(options["elements"])
        if "n_inner" in options:
            options.pop("valid", None)
        elif self.method == "kfold":
            options.pop("inner", None)
        return {"method": self.method, **options, "seed": self.seed}


def options_of(method: Mapping[str, Any]) -> SplitOptions:
    """Return the options that a split records in `Split.method`.

    Raises:
        SplitError: it was made with labels or sets that only its maker has.
    """
    names = {field.name for field in fields(SplitOptions)}
    if method.get("groups") == "given labels" or method.get("folds") == "given folds":
        raise SplitError(
            "this split was made with labels that are not in the dataset: give them to the "
            "function that made it, or keep them as a tag"
        )
    if method.get("own"):
        raise SplitError(f"this split has sets of its own for {', '.join(method['own'])}")
    if method.get("method") not in METHODS:
        raise SplitError(f"method {method.get('method')!r}: there are {', '.join(METHODS)}")
    if method["method"] == "ids" and not {"train", "valid", "test"} & set(method):
        raise SplitError("this split was made with given ids, which are in the split itself")
    return SplitOptions(**{name: value for name, value in method.items() if name in names})
