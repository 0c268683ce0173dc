"""One look at a dataset of spectra: order, groups, effects of settings, clusters, convergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import DataError, OptionError
from epitaxy_dos.clusters import Clusters, find_clusters
from epitaxy_dos.convergence import Best, Curve, best_converged, curves, joined
from epitaxy_dos.matrix import picture
from epitaxy_dos.settings import offered, order_by, ordered, setting
from epitaxy_dos.spectra import Fingerprints, fingerprints_of, grid_of
from epitaxy_dos.statistics import Effect, Groups, effects, group_statistics
from epitaxy_dos.table import Spectra

_USUAL = ("composition", "xc_functional", "code")
_MOST_GROUPS = 400
_OWN = ("cluster", "mean-energy")
"""What entries can be sorted by that is found here, not a setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What is looked at.

    Attributes:
        target: "dos" or "phonon_dos".
        grid: short name or id; "" for the usual one of the target.
        per: "cell" or "atom".
        group_by: settings by which entries are grouped, the first outermost; empty for those of
            composition, xc_functional and code that differ.
        sort_by: settings by which entries are ordered inside groups; also "cluster", and
            "mean-energy": the mean over the spectrum, on the grid.
        structure: setting or tag that names the structure: only entries that agree in it are
            compared with a reference or one setting at a time.
        parameters: settings whose larger values are better converged.
        reference: id of the entry that all others are compared with; "" for the best-converged
            entry of each structure with otherwise the same settings.
        threshold: similarity from which on two entries count as the same.
        clusters: "complete", "average", "connected", or "" for what is affordable.
        leave_out_empty: name entries with an empty fingerprint instead of refusing them.
        n_workers: threads; 0 for all processors.
    """

    target: str = "dos"
    grid: str = ""
    per: str = "cell"
    group_by: Sequence[str] = ()
    sort_by: Sequence[str] = ()
    structure: str = "composition"
    parameters: Sequence[str] = ()
    reference: str = ""
    threshold: float = 0.9
    clusters: str = ""
    leave_out_empty: bool = False
    n_workers: int = 0


@dataclass(frozen=True, slots=True)
class Study:
    """What was found; entries are in the order of the matrix.

    Attributes:
        options: what was asked for.
        digest: of the dataset.
        fingerprints: (n), sorted by groups, then by settings.
        ids: (n,) names of the entries.
        settings: name -> (n,) texts: of groups, parameters and the order.
        structures: (n,) texts.
        group_names: settings that make the groups.
        groups: similarity inside and between groups.
        member: (n,) number of each entry's group.
        effects: of each setting by itself.
        clusters: homogeneous subsets.
        best: the best-converged entries; None without parameters and reference.
        curves: against each parameter.
        image: (m, m) the matrix, or means of its blocks if it is large.
    """

    options: StudyOptions
    digest: str
    fingerprints: Fingerprints
    ids: tuple[str, ...]
    settings: dict[str, np.ndarray]
    structures: np.ndarray
    group_names: tuple[str, ...]
    groups: Groups
    member: np.ndarray
    effects: list[Effect]
    clusters: Clusters
    best: Best | None
    curves: list[Curve]
    image: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        found = self.fingerprints
        return {
            "options": {**asdict(self.options), "grid": found.grid.id},
            "digest": self.digest,
            "n_entries": len(found),
            "n_without_spectrum": found.n_without,
            "empty": list(found.empty),
            "covered_in_part": {
                self.ids[i]: round(float(found.fraction[i]), 4)
                for i in np.nonzero(found.fraction < 1)[0]
            },
            "group_by": list(self.group_names),
            "groups": [
                {"name": name, "n": int(n), "mean": _plain(mean), "lowest": _plain(low)}
                for name, n, mean, low in zip(
                    self.groups.names,
                    self.groups.sizes,
                    self.groups.mean,
                    self.groups.lowest,
                    strict=True,
                )
            ],
            "effects": [_effect(effect) for effect in self.effects],
            "clusters": {
                "kind": self.clusters.kind,
                "threshold": self.clusters.threshold,
                "sizes": self.clusters.sizes.tolist(),
            },
            "curves": [
                {
                    "parameter": curve.parameter,
                    "label": curve.label,
                    "values": list(curve.texts),
                    "similarity": [round(float(x), 6) for x in curve.similarity],
                    "reference": self.ids[curve.reference],
                    "converged_from": curve.converged_from(self.options.threshold),
                }
                for curve in self.curves
            ],
        }

    def cluster_lists(self) -> list[dict[str, Any]]:
        """Return each cluster with its entries, the largest first."""
        lists: list[dict[str, Any]] = []
        for number, size in enumerate(self.clusters.sizes):
            (members,) = np.nonzero(self.clusters.labels == number)
            values = {
                name: ordered(texts[members])
                for name, texts in self.settings.items()
                if len(np.unique(texts[members])) <= 20
            }
            lists.append(
                {
                    "cluster": number,
                    "n": int(size),
                    "settings": values,
                    "ids": [self.ids[i] for i in members],
                }
            )
        return lists


def study(dataset: Spectra, options: StudyOptions | None = None) -> Study:
    """Look at the spectra of a dataset.

    Raises:
        DataError: no entry has the spectrum, one has an empty fingerprint, or a setting is
            unknown.
        OptionError: an option is not allowed.
    """
    options = options or StudyOptions()
    grid = grid_of(options.grid, options.target)
    if not 0 < options.threshold <= 1:
        raise OptionError(f"threshold {options.threshold}: above 0 and up to 1")
    found = fingerprints_of(
        dataset,
        target=options.target,
        grid=grid,
        per=options.per,
        leave_out_empty=options.leave_out_empty,
    )
    used = dataset[found.rows]
    group_names = tuple(options.group_by) or usual_groups(used)
    names = tuple(dict.fromkeys((*group_names, *options.sort_by, *options.parameters)))
    clusters = find_clusters(found, threshold=options.threshold, kind=options.clusters)
    own = dict(zip(_OWN, (clusters.labels.astype(str), mean_energies(found)), strict=True))
    settings = {n: own[n] if n in own else setting(used, n) for n in names}
    structures = _structures(used, options.structure)
    inside = [n for n in names if n not in group_names]
    order = order_by([settings[n] for n in (*group_names, *inside)]) if names else None
    if order is not None:
        found = found.take(order)
        settings = {name: texts[order] for name, texts in settings.items()}
        structures = structures[order]
        clusters = replace(clusters, labels=clusters.labels[order])
    ids = tuple(dataset.ids[int(row)] for row in found.rows)
    member_texts = joined([settings[n] for n in group_names], len(found))
    labels = list(dict.fromkeys(member_texts.tolist()))
    if len(labels) > _MOST_GROUPS:
        raise OptionError(
            f"{len(labels):,} groups by {', '.join(group_names)}; up to {_MOST_GROUPS} are "
            f"allowed: group by something else, of {', '.join(offered(used))}"
        )
    place = {label: i for i, label in enumerate(labels)}
    member = np.array([place[text] for text in member_texts])
    best, found_curves = _convergence(found, settings, structures, ids, options)
    return Study(
        options=options,
        digest=dataset.digest,
        fingerprints=found,
        ids=ids,
        settings=settings,
        structures=structures,
        group_names=group_names,
        groups=group_statistics(found, tuple(labels), member, n_workers=options.n_workers),
        member=member,
        effects=effects(
            found,
            {
                n: t
                for n, t in settings.items()
                if n not in own and n != options.structure and len(np.unique(t)) > 1
            },
            structures,
            n_workers=options.n_workers,
        ),
        clusters=clusters,
        best=best,
        curves=found_curves,
        image=picture(found, n_workers=options.n_workers),
    )


def mean_energies(found: Fingerprints) -> np.ndarray:
    """Return the mean energy of the filled pixels of each fingerprint, (n,) texts."""
    edges = found.grid.edges
    # Pixels differ in size from column to column: what they stand for is weighed.
    states = found.heights * found.grid.pixels[:, 0]
    means = states @ ((edges[1:] + edges[:-1]) / 2) / states.sum(axis=1)
    return np.array([f"{mean:.3f}" for mean in means])


def _structures(dataset: Spectra, name: str) -> np.ndarray:
    """Return what tells structures apart; all are one where that cannot be known."""
    try:
        return setting(dataset, name)
    except DataError:
        if isinstance(dataset, Dataset) or name != "composition":
            raise
        return np.full(len(dataset), "-")


def usual_groups(dataset: Spectra) -> tuple[str, ...]:
    """Return which of composition, functional and code tell entries apart, but not too many."""
    names = []
    for name in _USUAL:
        try:
            n_words = len(np.unique(setting(dataset, name)))
        except DataError:
            continue
        if 1 < n_words <= min(40, max(2, len(dataset) // 2)):
            names.append(name)
    return tuple(names)


def _convergence(
    found: Fingerprints,
    settings: dict[str, np.ndarray],
    structures: np.ndarray,
    ids: tuple[str, ...],
    options: StudyOptions,
) -> tuple[Best | None, list[Curve]]:
    if not options.parameters and not options.reference:
        return None, []
    parameters = {name: settings[name] for name in options.parameters}
    reference = None
    if options.reference:
        if options.reference not in ids:
            raise DataError(
                f"the reference {options.reference!r} is no entry with a {options.target}; the "
                f"first are {', '.join(ids[:3])}"
            )
        reference = ids.index(options.reference)
    others = [texts for n, texts in settings.items() if n not in parameters and n not in _OWN]
    sets = joined(others, len(found))
    with_structures = joined([structures, *others], len(found))
    if len(np.unique(with_structures)) > len(np.unique(sets)):  # the settings do not tell them
        sets = with_structures
    best = best_converged(found, parameters, sets, reference=reference)
    return best, curves(parameters, best)


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        key: (None if isinstance(value, float) and np.isnan(value) else value)
        for key, value in asdict(effect).items()
    }


def _plain(numbers: np.ndarray) -> list[float | None]:
    return [None if np.isnan(x) else round(float(x), 6) for x in numbers]
