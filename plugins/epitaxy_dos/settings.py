"""What a calculation was made with: its settings by name, as text and as numbers.

A setting is found, in this order, as a tag of that name, as a field of the level of theory
(xc_functional, code, settings), and as a phrase of the free text of its settings: "cutoff" in
"plane waves; cutoff 400 eV; k-mesh 8x8x8" is "400 eV". Spaces, "-" and "_" are the same.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from itertools import takewhile
from operator import attrgetter

import numpy as np

from epitaxy.composition import compositions
from epitaxy.dataset import Dataset
from epitaxy.entry import Method
from epitaxy.errors import DataError
from epitaxy_dos.table import Spectra

_FIELDS = ("xc_functional", "code", "settings")
_ALIASES = {
    "functional": "xcfunctional",
    "xc": "xcfunctional",
    "kpoints": "kmesh",
    "kpoint": "kmesh",
    "kgrid": "kmesh",
    "formula": "composition",
}
_NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
_MESH = re.compile(r"\d+(?:\s*[x×,* ]\s*\d+){1,2}")
_MISSING = "-"


def setting(dataset: Spectra, name: str) -> np.ndarray:
    """Return one setting of every entry, (n,) str; "-" where an entry does not say it.

    Raises:
        DataError: no entry says it; the message lists what there is.
    """
    wanted = _plain(name)
    if wanted == "composition" and isinstance(dataset, Dataset):  # of structures too
        return _or_missing(compositions(dataset))
    for tag in dataset.tags:
        if _plain(tag) == wanted:
            return _or_missing(dataset.tag(tag))
    for field in _FIELDS:
        if _plain(field) == wanted:
            found = _of_methods(dataset, attrgetter(field))
            if (found != _MISSING).any():
                return found
    found = _of_methods(dataset, lambda method: _phrase(method.settings, wanted))
    if (found != _MISSING).any():
        return found
    names = offered(dataset)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise DataError(f"no entry says its {name!r}; there are: {', '.join(names)}.{hint}")


def offered(dataset: Spectra) -> list[str]:
    """Return names of settings by which entries of this dataset differ, and all its tags."""
    names = list(dataset.tags)
    names += [f for f in _FIELDS if any(getattr(m, f) for m in dataset.methods)]
    for method in dataset.methods:
        for words in _phrases(method.settings):
            name = list(takewhile(lambda word: not re.search(r"\d", word), words[:-1]))
            names += [" ".join(name)] if name else []
    return list(dict.fromkeys([*names, "composition"]))


def magnitude(text: str) -> float:
    """Return the number in a setting: "400 eV" is 400, "8x8x4" is 256, "tight" is nan."""
    mesh = _MESH.search(text)
    if mesh:
        return float(math.prod(int(n) for n in re.findall(r"\d+", mesh.group())))
    number = _NUMBER.search(text)
    return float(number.group()) if number else math.nan


def magnitudes(texts: np.ndarray) -> np.ndarray:
    """Return `magnitude` of every text, (n,) float64."""
    words, where = np.unique(texts, return_inverse=True)
    return np.array([magnitude(str(word)) for word in words], dtype=np.float64)[where]


def ordered(texts: np.ndarray) -> list[str]:
    """Return the distinct texts by their numbers, those without a number last, by alphabet."""
    return sorted({str(text) for text in texts}, key=_natural)


def order_by(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return the rows (n,) sorted by the first setting, then the second, and so on; stable."""
    keys = []
    for texts in columns:
        place = {text: i for i, text in enumerate(ordered(texts))}
        keys.append(np.array([place[str(text)] for text in texts]))
    return np.lexsort(keys[::-1])


def _natural(text: str) -> tuple[int, float, str]:
    if not re.match(r"[-+]?\d", text):
        return 1 + (text == _MISSING), 0.0, text
    return 0, magnitude(text), text


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_-]", "", name).lower()
    return _ALIASES.get(plain, plain)


def _phrases(settings: str) -> list[list[str]]:
    return [part.replace("=", " ").split() for part in re.split(r"[;,]", settings)]


def _phrase(settings: str, wanted: str) -> str:
    for words in _phrases(settings):
        for end in range(1, len(words)):
            if _plain("".join(words[:end])) == wanted:
                return " ".join(words[end:])
    return ""


def _of_methods(dataset: Spectra, say: Callable[[Method], str]) -> np.ndarray:
    known: dict[Method, str] = {}
    texts = []
    for i in range(len(dataset)):
        method = dataset.method(i)
        if method not in known:
            known[method] = say(method)
        texts.append(known[method])
    return _or_missing(np.array(texts, dtype=str))


def _or_missing(texts: np.ndarray) -> np.ndarray:
    return np.where(texts == "", _MISSING, texts)
