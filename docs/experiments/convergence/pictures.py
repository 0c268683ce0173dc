"""Pictures of the convergence study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from analyse import Study
    from matplotlib.axes import Axes

DPI = 130
NAMES = {"h-BN": "h-BN", "Si": "silicon"}


def draw(studies: dict[str, Study], document: dict[str, Any], folder: Path) -> None:
    """Write all pictures into a folder."""
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "legend.fontsize": 7.5})
    draw_spectra(studies, folder / "convergence-dos.png")
    draw_matrices(studies, folder / "convergence-matrix.png")
    draw_curves(studies, document, folder / "convergence-curves.png")
    draw_effects(document, folder / "convergence-effects.png")


def colors_of(bases: list[str]) -> dict[str, Any]:
    """One colour for each basis: warm for atomic orbitals, blue for plane waves."""
    orbitals = [b for b in bases if not b.startswith("pw")]
    waves = [b for b in bases if b.startswith("pw")]
    warm = plt.get_cmap("YlOrRd")(np.linspace(0.4, 0.85, len(orbitals)))
    blue = plt.get_cmap("GnBu")(np.linspace(0.4, 1.0, len(waves)))
    return dict(zip([*orbitals, *waves], [*warm, *blue], strict=True))


def label_of(basis: str) -> str:
    """The name of a basis for a person."""
    return f"{basis.removeprefix('pw')} eV" if basis.startswith("pw") else basis


def draw_spectra(studies: dict[str, Study], path: Path) -> None:
    """Densities of states of one basis with more and more k-points."""
    from analyse import ENERGIES, Study

    shown = (2, 4, 8, 12, 24)
    figure, all_axes = plt.subplots(
        len(shown), 2, figsize=(9.5, 6.2), sharex=True, layout="constrained"
    )
    for column, material in zip(all_axes.T, studies, strict=True):
        study = Study(material, dense=True)
        numbers = study.n_kpoints.tolist()
        last = numbers.index(shown[-1])
        for axes, n in zip(column, shown, strict=True):
            row = numbers.index(n)
            axes.fill_between(ENERGIES, study.dos[row], color="#4477aa", lw=0)
            axes.axvline(0, color="black", lw=0.6, ls=":")
            axes.set(xlim=(-10, 10), ylim=(0, 1.8 * study.dos[last].max()), yticks=[])
            text = f"{study.settings['kpoints'][row]}: {study.similarity[row, last]:.2f}"
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
            axes.text(-9.7, axes.get_ylim()[1] * 0.82, text, va="center", bbox=box)
        column[0].set_title(f"{NAMES[material]}, PBE, {label_of(study.bases[0])}")
        column[-1].set_xlabel("energy from the valence band maximum (eV)")
    figure.supylabel(
        "density of states, higher peaks cut (k-points: similarity to the last)", fontsize=9
    )
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def draw_matrices(studies: dict[str, Study], path: Path) -> None:
    """The similarity of all pairs, sorted by functional, k-points and basis."""
    figure, all_axes = plt.subplots(1, 2, figsize=(11.5, 5.4), layout="constrained")
    for axes, (material, study) in zip(all_axes, studies.items(), strict=True):
        image = axes.imshow(study.similarity, vmin=0, vmax=1, cmap="magma", interpolation="nearest")
        mark_blocks(axes, study)
        axes.set_title(f"{NAMES[material]}: {len(study.ids)} calculations")
    figure.colorbar(image, ax=all_axes, label="similarity", shrink=0.85, pad=0.01)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def mark_blocks(axes: Axes, study: Study) -> None:
    """Draw lines between k-point grids and functionals, and name them."""
    n = len(study.ids)
    grids = np.char.add(study.settings["xc"], study.settings["kpoints"])
    starts = np.flatnonzero(np.r_[True, grids[1:] != grids[:-1]])
    ends = np.r_[starts[1:], n]
    for start in starts[1:]:
        new = study.settings["xc"][start] != study.settings["xc"][start - 1]
        for line in (axes.axhline, axes.axvline):
            line(start - 0.5, color="white", lw=1.6 if new else 0.3)
    middles = (starts + ends - 1) / 2
    axes.set_xticks(middles, [str(k) for k in study.n_kpoints[starts]], fontsize=6.5)
    axes.set_yticks(middles, [str(k) for k in study.n_kpoints[starts]], fontsize=6.5)
    axes.tick_params(length=0)
    axes.set_xlabel("k-points along the first axis; inside of each block 8 bases")
    for xc in dict.fromkeys(study.settings["xc"].tolist()):
        middle = float(np.flatnonzero(study.settings["xc"] == xc).mean())
        axes.text(-0.075 * n, middle, xc, rotation=90, va="center", ha="center", fontsize=9)


def draw_curves(studies: dict[str, Study], document: dict[str, Any], path: Path) -> None:
    """Similarity and energy against k-points, and against each other."""
    figure, all_axes = plt.subplots(2, 3, figsize=(11.5, 6.6), layout="constrained")
    for (left, middle, right), (material, study) in zip(all_axes, studies.items(), strict=True):
        found = document["materials"][material]
        colors = colors_of(study.bases)
        for basis in study.bases:
            curve = found["curves"][f"PBE {basis}"]
            n, similarity = curve["n_kpoints"], curve["similarity"]
            style = {"color": colors[basis], "marker": "o", "ms": 3, "lw": 1.2}
            left.plot(n[:-1], similarity[:-1], label=label_of(basis), **style)
            error = 1000 * np.abs(curve["energy_error"][:-1])
            middle.plot(n[:-1], np.maximum(error, 1e-3), **style)
        for name, curve in found["curves"].items():
            basis = name.split()[1]
            error = 1000 * np.abs(np.array(curve["energy_error"][:-1]))
            right.plot(
                np.maximum(error, 1e-3), curve["similarity"][:-1], "o", ms=3, color=colors[basis]
            )
        tolerance = 1000 * document["energy_tolerance_ev_per_atom"]
        middle.axhline(tolerance, color="grey", lw=0.8, ls="--")
        right.axvline(tolerance, color="grey", lw=0.8, ls="--")
        best = found["separation"]["kpoints, energy"].get("best")
        if best:
            right.axhline(best["threshold"], color="grey", lw=0.8, ls=":")
        left.set(
            ylabel="similarity to 12 points", title=f"{NAMES[material]}: spectrum, PBE", ylim=(0, 1)
        )
        middle.set(
            ylabel="|energy - energy at 12| (meV/atom)", yscale="log", title="total energy, PBE"
        )
        right.set(
            xscale="log",
            xlabel="|energy - energy at 12| (meV/atom)",
            ylabel="similarity to 12 points",
            ylim=(0, 1),
            title="LDA and PBE, all bases",
        )
        for axes in (left, middle):
            axes.set(xlabel="k-points along the first axis", xticks=n[:-1])
        left.legend(ncols=2, title="basis", title_fontsize=7.5)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def draw_effects(document: dict[str, Any], path: Path) -> None:
    """Other functional or other basis by k-points; cutoffs; ways of broadening."""
    figure, all_axes = plt.subplots(2, 3, figsize=(11.5, 6.6), layout="constrained")
    for (left, middle, right), (material, found) in zip(
        all_axes, document["materials"].items(), strict=True
    ):
        numbers = [int(n) for n in found["by_kpoints"]]
        for key, text, color in (
            ("other_functional", "same basis, other functional", "#4477aa"),
            ("other_basis", "same functional, other basis", "#cc6677"),
            ("two_largest_cutoffs", "same functional, two largest cutoffs", "#ddaa33"),
        ):
            values = [found["by_kpoints"][str(n)][key] for n in numbers]
            left.plot(numbers, values, "o-", ms=4, color=color, label=text)
        left.set(
            title=f"{NAMES[material]}: what changes the spectrum",
            xlabel="k-points along the first axis, same for both",
            ylabel="mean similarity of pairs",
            xticks=numbers,
        )
        for xc, curve in found["cutoff"].items():
            cutoffs = [int(b.removeprefix("pw")) for b in curve["basis"] if b.startswith("pw")]
            similarity = curve["similarity"][-len(cutoffs) :]
            middle.plot(cutoffs, similarity, "o-", ms=4, label=xc)
        middle.set(
            title="plane waves, 12 k-points",
            xlabel="cutoff (eV)",
            ylabel=f"similarity to {cutoffs[-1]} eV",
            xticks=cutoffs,
        )
        dense = found["dense"]
        points = dense["n_kpoints"]
        for name, values in dense["by_integration"].items():
            right.plot(points[:-1], values["to_densest"][:-1], "o-", ms=4, label=name)
        right.set(
            title=f"ways of integration, PBE, {label_of(dense['basis'])}",
            xlabel="k-points along the first axis",
            ylabel=f"similarity to {points[-1]} points",
            xticks=points[:-1],
        )
        for axes in (left, middle, right):
            axes.set_ylim(0, 1.02)
            axes.legend(loc="lower right")
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
