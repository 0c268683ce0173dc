"""What the convergence study says: the paper's observations looked for, as numbers and pictures.

    python analyse.py RESULTS

reads the embedded set (`epitaxy_benchmarks.convergence`), writes convergence.json and the
pictures into the folder RESULTS. A minute on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.registry import Registry
from epitaxy.spectra import DEFAULT_GRID, WIDE_GRID, Grid, fingerprints, tanimoto

MATERIALS = ("h-BN", "Si")
SETTINGS = ("xc", "kpoints", "basis")
ENERGIES = np.arange(-1000, 1001) / 100
ENERGY_TOLERANCE = 0.010  # eV/atom: a calculation within it counts as converged
DENSE = 6  # points along the first axis from which on a block of the converged is looked at
BROADENINGS: Mapping[str, Mapping[str, Any]] = {
    "Gaussians 0.05 eV": {"width": 0.05},
    "Gaussians 0.1 eV": {"width": 0.1},
    "Gaussians 0.2 eV": {"width": 0.2},
    "Gaussians 0.4 eV": {"width": 0.4},
    "tetrahedra": {"integration": "tetrahedra"},
}


class Study:
    """The calculations of one material, sorted by functional, k-points and basis.

    Args:
        material: "h-BN" or "Si".
        dense: the one basis and functional with more k-points instead of all combinations.
        options: of the source, such as the width of the Gaussians.
    """

    def __init__(self, material: str, *, dense: bool = False, **options: Any):
        part = "dense" if dense else "combinations"
        registry = Registry.from_entry_points()
        source = registry.build(
            "source", {"use": "gpaw_convergence", "material": material, "part": part, **options}
        )
        entries = list(source)
        self._source = source
        names = sorted({entry.tags["basis"] for entry in entries}, key=basis_rank)
        self.material = material
        self.bases = names
        entries.sort(
            key=lambda e: (e.tags["xc"], int(e.tags["n_kpoints"]), names.index(e.tags["basis"]))
        )
        self.ids = [entry.id for entry in entries]
        self.settings = {s: np.array([entry.tags[s] for entry in entries]) for s in SETTINGS}
        self.n_kpoints = np.array([int(entry.tags["n_kpoints"]) for entry in entries])
        self.waves = np.array([entry.tags["basis_kind"] == "plane waves" for entry in entries])
        self.energy = np.array([entry.targets["energy"] / len(entry) for entry in entries])
        self.gap = np.array([float(entry.targets["band_gap"]) for entry in entries])
        self.dos = np.array([entry.targets["dos"] for entry in entries])

    def matrix(self, grid: Grid = DEFAULT_GRID) -> np.ndarray:
        """The similarity of all pairs (n, n)."""
        found = fingerprints(ENERGIES, self.dos, grid=grid)
        return tanimoto(found, found)

    @cached_property
    def similarity(self) -> np.ndarray:
        """The similarity of all pairs (n, n) on the default grid."""
        return self.matrix()

    def aligned(self, reference: np.ndarray) -> np.ndarray:
        """The similarity (n,) to a reference (n,), both with the reference's zero of energy.

        Eigenvalues of one basis and functional have the same zero in GPAW, so this leaves out
        that coarse k-points miss the valence band maximum.
        """
        calculations = {c["id"]: c for c in self._source.data["calculations"]}
        found = np.empty(len(self.ids))
        for i, best in enumerate(reference):
            own, other = calculations[self.ids[i]], calculations[self.ids[best]]
            shift = own["valence_band_maximum"] - other["valence_band_maximum"]
            shifted = own | {"bands": (np.array(own["bands"]) + shift).tolist()}
            dos = np.array([self._source.density_of_states(shifted), self.dos[best]])
            heights = fingerprints(ENERGIES, dos)
            found[i] = tanimoto(heights[:1], heights[1:])[0, 0]
        return found

    def reference(self, *same: str, cutoff: bool = False) -> np.ndarray:
        """The best-converged calculation (n,) of those that share these settings with each.

        Most k-points; with `cutoff`, of the largest basis as well.
        """
        rank = self.n_kpoints * 100
        if cutoff:
            largest = max((b for b in self.bases if b.startswith("pw")), key=basis_rank)
            rank = rank + (self.settings["basis"] == largest)
        best = np.empty(len(rank), dtype=int)
        for i in range(len(rank)):
            alike = np.ones(len(rank), dtype=bool)
            for name in same:
                alike &= self.settings[name] == self.settings[name][i]
            best[i] = np.flatnonzero(alike)[np.argmax(rank[alike])]
        return best


def basis_rank(name: str) -> tuple[int, int]:
    """Atomic orbitals before plane waves, small before large."""
    if name.startswith("pw"):
        return 1, int(name.removeprefix("pw"))
    return 0, ("sz", "szp", "dzp").index(name)


def pair_means(study: Study, similarity: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """Mean similarity of pairs that have one setting in common, and of those that differ in one.

    "same" takes all pairs that share the setting; "only" those that share all but it; "shared
    alone" those that share nothing but it.
    """
    rows = np.flatnonzero(chosen)
    first, second = np.triu_indices(len(rows), 1)
    pairs = similarity[np.ix_(rows, rows)][first, second]
    differ = {
        name: values[rows][first] != values[rows][second] for name, values in study.settings.items()
    }
    n_differ = sum(d.astype(int) for d in differ.values())
    found = {}
    for name, unlike in differ.items():
        only, alone = unlike & (n_differ == 1), ~unlike & (n_differ == len(differ) - 1)
        found[name] = {
            "same": mean(pairs[~unlike]),
            "different": mean(pairs[unlike]),
            "only": mean(pairs[only]),
            "only_lowest": float(pairs[only].min(initial=1.0)),
            "shared_alone": mean(pairs[alone]),
            "n_only": int(only.sum()),
        }
    return found


def mean(values: np.ndarray) -> float:
    """The mean; nan of nothing."""
    return float(values.mean()) if len(values) else float("nan")


def kpoint_blocks(study: Study, similarity: np.ndarray) -> dict[str, Any]:
    """Mean similarity inside and between k-point grids of one functional, and silhouettes.

    A silhouette near 1 says that a setting cuts the set into groups, 0 that it does not; the
    distance is one minus the similarity. Source: Rousseeuw, J. Comput. Appl. Math. 20, 53 (1987).
    """
    grids = sorted(set(study.settings["kpoints"]), key=lambda g: int(g.split("x")[0]))
    means = []
    for a in grids:
        row = []
        for b in grids:
            pairs = (study.settings["kpoints"] == a)[:, None] & (study.settings["kpoints"] == b)
            pairs &= study.settings["xc"][:, None] == study.settings["xc"]
            np.fill_diagonal(pairs, False)
            row.append(mean(similarity[pairs]))
        means.append(row)
    silhouettes = {}
    for name, values in study.settings.items():
        silhouettes[name] = silhouette(1 - similarity, values)
    return {"kpoints": grids, "mean": means, "silhouette": silhouettes}


def silhouette(distance: np.ndarray, labels: np.ndarray) -> float:
    """The mean silhouette of a partition, (n, n) distances and (n,) labels."""
    names = sorted(set(labels))
    sums = np.array([distance[:, labels == name].sum(axis=1) for name in names]).T
    counts = np.array([(labels == name).sum() for name in names])
    own = np.array([names.index(label) for label in labels])
    rows = np.arange(len(labels))
    inside = sums[rows, own] / (counts[own] - 1)
    outside = sums / counts
    outside[rows, own] = np.inf
    nearest = outside.min(axis=1)
    return float(((nearest - inside) / np.maximum(nearest, inside)).mean())


def separation(score: np.ndarray, converged: np.ndarray) -> dict[str, Any]:
    """How well a similarity tells converged calculations from others.

    Returns:
        Area under the receiver operating characteristic (1: perfectly, 0.5: not at all), the
        threshold with the largest sum of both rates, these rates, and what 0.9 and 0.8 give.
    """
    good, bad = score[converged], score[~converged]
    if not len(good) or not len(bad):
        return {"n_converged": len(good), "n_unconverged": len(bad)}
    area = float(
        ((good[:, None] > bad).sum() + 0.5 * (good[:, None] == bad).sum()) / good.size / bad.size
    )
    thresholds = np.unique(score)
    rates = [((good >= t).mean(), (bad < t).mean()) for t in thresholds]
    best = int(np.argmax([sum(rate) for rate in rates]))
    found: dict[str, Any] = {"n_converged": len(good), "n_unconverged": len(bad), "area": area}
    for name, t in (("best", float(thresholds[best])), ("0.9", 0.9), ("0.8", 0.8), ("0.7", 0.7)):
        found[name] = {
            "threshold": t,
            "converged_kept": float((good >= t).mean()),
            "unconverged_dropped": float((bad < t).mean()),
        }
    return found


def filters(study: Study) -> dict[str, Any]:
    """Similarity to the reference against two criteria of convergence.

    k-points: the reference has the same functional and basis and the most k-points.
    cutoff: of the plane waves, the reference has the same functional and k-points and the
    largest cutoff; the energy, whose zero is the same, and the gap are the criteria.
    """
    by_kpoints = study.reference("xc", "basis")
    others = by_kpoints != np.arange(len(by_kpoints))
    score = study.similarity[np.arange(len(by_kpoints)), by_kpoints]
    off = np.abs(study.energy - study.energy[by_kpoints])
    gap_off = np.abs(study.gap - study.gap[by_kpoints])
    found = {
        "kpoints, energy": separation(score[others], off[others] <= ENERGY_TOLERANCE),
        "kpoints, energy within 1 meV": separation(score[others], off[others] <= 0.001),
        "kpoints, gap within 50 meV": separation(score[others], gap_off[others] <= 0.05),
    }
    by_cutoff = study.reference("xc", "kpoints", cutoff=True)
    others = study.waves & (by_cutoff != np.arange(len(by_cutoff)))
    score = study.similarity[np.arange(len(by_cutoff)), by_cutoff]
    off = np.abs(study.energy - study.energy[by_cutoff])
    gap_off = np.abs(study.gap - study.gap[by_cutoff])
    found["cutoff, energy"] = separation(score[others], off[others] <= ENERGY_TOLERANCE)
    found["cutoff, gap within 50 meV"] = separation(score[others], gap_off[others] <= 0.05)
    return found


def convergence_curves(study: Study) -> dict[str, Any]:
    """Similarity, energy and gap relative to the best of each basis and functional, by k-points."""
    best = study.reference("xc", "basis")
    rows = np.arange(len(best))
    curves: dict[str, Any] = {}
    for xc in sorted(set(study.settings["xc"])):
        for basis in study.bases:
            chosen = np.flatnonzero(
                (study.settings["xc"] == xc) & (study.settings["basis"] == basis)
            )
            chosen = chosen[np.argsort(study.n_kpoints[chosen])]
            curves[f"{xc} {basis}"] = {
                "kpoints": study.settings["kpoints"][chosen].tolist(),
                "n_kpoints": study.n_kpoints[chosen].tolist(),
                "similarity": study.similarity[rows, best][chosen].round(4).tolist(),
                "energy_error": (study.energy - study.energy[best])[chosen].round(6).tolist(),
                "gap_error": (study.gap - study.gap[best])[chosen].round(4).tolist(),
            }
    return curves


def dense_series(material: str) -> dict[str, Any]:
    """One basis and functional to denser k-points: similarity to the densest, and to the next.

    By way of broadening; the energies and gaps are the same for all.
    """
    found: dict[str, Any] = {}
    for name, options in BROADENINGS.items():
        study = Study(material, dense=True, **options)
        last = len(study.ids) - 1
        best = np.full(len(study.ids), last)
        found[name] = {
            "to_densest": study.similarity[last].round(4).tolist(),
            "to_next": np.diag(study.similarity, 1).round(4).tolist(),
        }
        if options == {"width": 0.1}:
            found[name]["to_densest_common_zero"] = study.aligned(best).round(4).tolist()
    return {
        "basis": study.bases[0],
        "n_kpoints": study.n_kpoints.tolist(),
        "kpoints": study.settings["kpoints"].tolist(),
        "energy_error": (study.energy - study.energy[last]).round(7).tolist(),
        "gap": study.gap.round(4).tolist(),
        "by_integration": found,
    }


def alignment(study: Study) -> dict[str, Any]:
    """Mean similarity to the finest k-points: with each one's own zero, and with the finest's."""
    best = study.reference("xc", "basis")
    own, common = study.similarity[np.arange(len(best)), best], study.aligned(best)
    numbers = sorted(set(study.n_kpoints.tolist()))
    return {
        "n_kpoints": numbers,
        "own_maximum": [mean(own[study.n_kpoints == n]) for n in numbers],
        "common_zero": [mean(common[study.n_kpoints == n]) for n in numbers],
    }


def cutoff_curves(study: Study) -> dict[str, Any]:
    """Similarity, energy and gap relative to the largest cutoff on the finest k-points."""
    best = study.reference("xc", "kpoints", cutoff=True)
    finest = study.n_kpoints == study.n_kpoints.max()
    curves: dict[str, Any] = {}
    for xc in sorted(set(study.settings["xc"])):
        chosen = np.flatnonzero((study.settings["xc"] == xc) & finest)
        curves[xc] = {
            "basis": study.settings["basis"][chosen].tolist(),
            "similarity": study.similarity[chosen, best[chosen]].round(4).tolist(),
            "energy_error": [
                round(float(study.energy[i] - study.energy[best[i]]), 6) if study.waves[i] else None
                for i in chosen
            ],
            "gap_error": (study.gap - study.gap[best])[chosen].round(4).tolist(),
        }
    return curves


def observations(study: Study) -> dict[str, Any]:
    """All that is looked for in one material, on the default grid."""
    everything = np.ones(len(study.ids), dtype=bool)
    dense = study.n_kpoints >= DENSE
    return {
        "n_calculations": len(study.ids),
        "pairs": pair_means(study, study.similarity, everything),
        "pairs_dense": pair_means(study, study.similarity, dense),
        "pairs_wide_grid": pair_means(study, study.matrix(WIDE_GRID), everything),
        "blocks": kpoint_blocks(study, study.similarity),
        "separation": filters(study),
        "curves": convergence_curves(study),
        "alignment": alignment(study),
        "cutoff": cutoff_curves(study),
    }


def broadening(material: str) -> dict[str, Any]:
    """The same observations with other ways from eigenvalues to a density of states."""
    found = {}
    for name, options in BROADENINGS.items():
        study = Study(material, **options)
        curves = convergence_curves(study)
        finest = [c["similarity"][-2] for c in curves.values()]
        found[name] = {
            "pairs": pair_means(study, study.similarity, np.ones(len(study.ids), dtype=bool)),
            "second_best_kpoints": mean(np.array(finest)),
            "by_n_kpoints": {
                str(n): mean(
                    np.array([c["similarity"][c["n_kpoints"].index(n)] for c in curves.values()])
                )
                for n in sorted(set(study.n_kpoints.tolist()))
            },
            "silhouette": kpoint_blocks(study, study.similarity)["silhouette"],
        }
    return found


def pairs_by_kpoints(study: Study) -> dict[str, Any]:
    """At each grid: pairs of another functional alone, and of another basis alone.

    "two largest cutoffs" are the pairs of these two, which are nearly converged.
    """
    found = {}
    for n in sorted(set(study.n_kpoints.tolist())):
        at = np.flatnonzero(study.n_kpoints == n)
        functional, basis, largest = [], [], []
        for i, j in combinations(at, 2):
            same_xc = study.settings["xc"][i] == study.settings["xc"][j]
            same_basis = study.settings["basis"][i] == study.settings["basis"][j]
            if same_basis and not same_xc:
                functional.append(study.similarity[i, j])
            elif same_xc and not same_basis:
                basis.append(study.similarity[i, j])
                if {study.settings["basis"][i], study.settings["basis"][j]} == set(
                    study.bases[-2:]
                ):
                    largest.append(study.similarity[i, j])
        found[str(n)] = {
            "other_functional": mean(np.array(functional)),
            "other_basis": mean(np.array(basis)),
            "two_largest_cutoffs": mean(np.array(largest)),
        }
    return found


def main() -> None:
    """Analyse and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    studies = {material: Study(material) for material in MATERIALS}
    document = {
        "grid": DEFAULT_GRID.id,
        "wide_grid": WIDE_GRID.id,
        "broadening": "Gaussians, standard deviation 0.1 eV",
        "energy_tolerance_ev_per_atom": ENERGY_TOLERANCE,
        "materials": {
            name: observations(study)
            | {
                "by_kpoints": pairs_by_kpoints(study),
                "broadening": broadening(name),
                "dense": dense_series(name),
            }
            for name, study in studies.items()
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("epitaxy", "numpy")},
    }
    text = json.dumps(document, indent=1)
    (options.results / "convergence.json").write_text(text + "\n", encoding="utf-8")
    from pictures import draw

    draw(studies, document, options.results)


if __name__ == "__main__":
    main()
