"""Formation energies from total energies and the energies of the elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epitaxy.curation.methods import labels_by
from epitaxy.curation.step import recorded
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError, OptionError
from epitaxy.references import Compositions


def scales(dataset: Dataset, by: str = "method") -> np.ndarray:
    """Return the scale of energies of each structure, (n,) str.

    That is its level of theory; once levels of theory are aligned it is the one that they were
    aligned onto. Entries that were merged or appended afterwards have scales of their own.

    Args:
        dataset: structures.
        by: "method" or a tag; levels that were aligned by something else stay apart.
    """
    labels = labels_by(dataset, by)
    onto, aligned = _aligned(dataset.history, by)
    return np.where(np.isin(labels, aligned), onto, labels) if aligned else labels


def _aligned(history: Sequence[Mapping[str, Any]], by: str) -> tuple[str, list[str]]:
    """Return the level that others were aligned onto, and these."""
    for step in reversed(history):
        if step.get("operation") in ("append", "merge", "ingest", "convert"):
            break
        if step.get("operation") == "align":
            options = step.get("options", {})
            if options.get("by") == by:
                return str(options["onto"]), [str(label) for label in step.get("shifts", {})]
            break
    return "", []


def elemental_references(dataset: Dataset, *, by: str = "method") -> dict[str, dict[str, float]]:
    """Return the lowest energy per atom of each element's own entries, per level of theory.

    Args:
        dataset: with entries of pure elements.
        by: "method" or a tag.

    Returns:
        level of theory -> symbol -> eV/atom; levels that were aligned are one, that which they
        were aligned onto.
    """
    from ase.data import chemical_symbols

    values, mask = dataset.target("energy")
    (known,) = mask.nonzero()
    labels = scales(dataset, by)[known]
    counts = Compositions.of(dataset, known)
    n_elements = np.bincount(counts.structures, minlength=len(counts))
    per_atom = values[known] / counts.n_atoms
    element = np.zeros(len(counts), dtype=np.int64)
    element[counts.structures] = counts.elements[counts.columns]
    found: dict[str, dict[str, float]] = {str(label): {} for label in np.unique(labels)}
    for row in (n_elements == 1).nonzero()[0].tolist():
        energies = found[str(labels[row])]
        symbol = chemical_symbols[int(element[row])]
        energies[symbol] = min(energies.get(symbol, np.inf), float(per_atom[row]))
    return found


def formation_energy(
    dataset: Dataset,
    *,
    references: Mapping[str, float] | None = None,
    by: str = "method",
    overwrite: bool = False,
) -> Dataset:
    """Add formation energies, eV/atom: energies less those of the elements.

    Args:
        dataset: with energies.
        references: symbol -> eV/atom, for all levels of theory; by default the lowest energy
            per atom among the entries of each pure element, per level of theory. Levels that
            `align` has put on one scale share them.
        by: "method" or a tag: what has references of its own.
        overwrite: replace formation energies that are there already.

    Raises:
        DataError: no entry has references for all of its elements, or there are formation
            energies and `overwrite` is not set.
        OptionError: a reference is for no element.
    """
    from ase.data import atomic_numbers, chemical_symbols

    if "energy" not in dataset.targets:
        raise DataError("formation_energy: no entry has an energy")
    if "formation_energy" in dataset.targets and not overwrite:
        raise DataError(
            "formation_energy: there are formation energies already; to replace them set "
            "overwrite: true"
        )
    if unknown := [s for s in references or {} if s not in atomic_numbers or s == "X"]:
        raise OptionError(f"formation_energy: {', '.join(unknown)}: not the symbol of an element")
    values, mask = dataset.target("energy")
    (known,) = mask.nonzero()
    labels = scales(dataset, by)[known]
    counts = Compositions.of(dataset, known)
    tables = (
        {str(label): dict(references) for label in np.unique(labels)}
        if references is not None
        else elemental_references(dataset, by=by)
    )
    result = np.zeros(len(dataset))
    done = np.zeros(len(dataset), dtype=bool)
    missing: dict[str, set[str]] = {}
    symbols = [chemical_symbols[z] for z in counts.elements]
    for label in np.unique(labels):
        table = tables[str(label)]
        energies = np.array([table.get(symbol, np.nan) for symbol in symbols])
        (members,) = (labels == label).nonzero()
        left = values[known] / counts.n_atoms - counts.mean(energies)
        ok = members[np.isfinite(left[members])]
        result[known[ok]] = left[ok]
        done[known[ok]] = True
        lacking = np.zeros(len(symbols), dtype=bool)
        lacking[counts.columns[np.isin(counts.structures, members)]] = True
        if names := {symbols[j] for j in (lacking & ~np.isfinite(energies)).nonzero()[0]}:
            missing[str(label)] = names
    said = [
        f"{label}: no reference energy for {', '.join(sorted(names))}"
        for label, names in missing.items()
    ]
    if not done.any():
        raise DataError(
            f"formation_energy: no entry has references for all of its elements ({'; '.join(said)}"
            f"); give them, for example references: {{Si: -5.42}}, or add the elements' entries"
        )
    onto, aligned = _aligned(dataset.history, by)
    if aligned and references is None:
        shared = "; ".join(sorted([onto, *aligned]))
        said.append(f"references are shared by levels of theory that were aligned: {shared}")
    n_without = len(known) - int(done.sum())
    if n_without:
        said.insert(0, f"{n_without:,} of {len(dataset):,} without: an element has no reference")
    return recorded(
        dataset,
        dataset.with_target("formation_energy", result, done),
        "formation_energy",
        options={
            "references": None if references is None else dict(references),
            "by": by,
            "overwrite": overwrite,
        },
        counts={"n_seen": len(dataset), "n_changed": int(done.sum())},
        facts={"said": said, "references": tables},
    )
