"""The one picture of the demo: forces against DFT, the equation of state, the trajectory."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.evaluation.plots import COLORS, draw_parity, new_figure, write_figure

if TYPE_CHECKING:
    from epitaxy.evaluation.eos import EquationOfState
    from epitaxy.evaluation.metrics import Evaluation


def plot_demo(
    path: Path,
    *,
    evaluation: Evaluation,
    reference: EquationOfState,
    labels: tuple[np.ndarray, np.ndarray],
    n_atoms: int,
    folder: Path,
) -> Path:
    """Draw the three panels.

    Args:
        path: PNG file to write.
        evaluation: of the test part.
        reference: equation of state of the DFT energies.
        labels: volumes (n,) Å^3 and DFT energies (n,) eV of the diamond cell.
        n_atoms: atoms in that cell.
        folder: of the demo; holds eos/eos.csv and md/md.csv.
    """
    figure, (left, middle, right) = new_figure(4.4, 4.1, columns=3)
    draw_parity(left, evaluation, "forces")

    volumes, energies = labels
    table = _table(folder / "eos" / "eos.csv")
    lowest = table["energy_eV"].min()
    std = 1000 * table["energy_std_eV"] / n_atoms if "energy_std_eV" in table else None
    middle.errorbar(
        table["volume_A3"] / n_atoms,
        1000 * (table["energy_eV"] - lowest) / n_atoms,
        yerr=std,
        color=COLORS[0],
        label="model ± std of its members",
    )
    middle.plot(
        volumes / n_atoms,
        1000 * (energies - reference.energy) / n_atoms,
        "o",
        ms=4,
        color=COLORS[1],
        label="DFT",
    )
    margin = 0.3 * np.ptp(table["volume_A3"]) / n_atoms
    middle.set_xlim(
        table["volume_A3"].min() / n_atoms - margin / 5,
        table["volume_A3"].max() / n_atoms + margin / 5,
    )
    inside = (volumes >= table["volume_A3"].min()) & (volumes <= table["volume_A3"].max())
    middle.set_ylim(-3, 1.3 * 1000 * (energies[inside] - reference.energy).max() / n_atoms)
    middle.set_xlabel("volume (Å³/atom)")
    middle.set_ylabel("energy above the minimum (meV/atom)")
    middle.set_title("diamond phase, never trained on as such", fontsize=10)
    middle.legend(frameon=False, fontsize=8)

    steps = _table(folder / "md" / "md.csv")
    right.plot(steps["time_fs"], steps["temperature_K"], color="0.6")
    right.set_xlabel("time (fs)")
    right.set_ylabel("temperature (K)", color="0.4")
    right.set_title("molecular dynamics, 64 atoms", fontsize=10)
    if "max_force_std_eV_per_A" in steps:
        twin = right.twinx()
        twin.plot(steps["time_fs"], steps["max_force_std_eV_per_A"], color=COLORS[1])
        twin.set_ylabel("largest uncertainty of a force (eV/Å)", color=COLORS[1])
        twin.set_ylim(bottom=0)
        twin.spines[["top"]].set_visible(False)
    return write_figure(figure, path)


def _table(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
