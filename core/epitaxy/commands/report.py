"""`epitaxy report RUN`: how a training went, as a table and learning curves."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Lines = Sequence[Mapping[str, Any]]

_PANELS = (
    ("loss", (("train_loss", "training"), ("valid_loss", "validation")), 1.0, "loss"),
    ("energy", (("valid_energy_mae", "MAE"), ("valid_energy_rmse", "RMSE")), 1e3, "meV/atom"),
    ("forces", (("valid_forces_mae", "MAE"), ("valid_forces_rmse", "RMSE")), 1.0, "eV/Å"),
    ("stress", (("valid_stress_mae", "MAE"), ("valid_stress_rmse", "RMSE")), 1e3, "meV/Å^3"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("-o", "--output", type=Path, help="PNG file [RUN/learning_curves.png]")
    parser.add_argument("--rows", type=int, default=12, help="lines of the table per training")
    parser.add_argument("--no-plot", action="store_true", help="only the table")


def run(args: Namespace) -> int:
    """Print the tables and write the plot."""
    if not args.no_plot:
        import matplotlib  # noqa: F401  # said to be missing before the work, not after it

    journals = find_journals(args.run)
    for name, lines in journals.items():
        print_table(name, lines, n_rows=args.rows)
    if not args.no_plot:
        path = plot_curves(journals, args.output or args.run / "learning_curves.png")
        print(f"wrote {path}")
    return 0


def find_journals(directory: Path) -> dict[str, Lines]:
    """Return name of training -> lines of its metrics.jsonl, for a run and its members.

    Raises:
        ConfigError: there is no training in the folder.
    """
    from epitaxy.errors import ConfigError
    from epitaxy.training.journal import FILE_NAME, read_journal

    found: dict[str, Lines] = {}
    for path in sorted(directory.rglob(FILE_NAME)):
        if lines := read_journal(path):
            name = path.parent.relative_to(directory).as_posix()
            found["training" if name == "." else name] = lines
    if not found:
        raise ConfigError(
            f"{directory} holds no {FILE_NAME} with an epoch in it: give the folder of a run that "
            f"`epitaxy train` made"
        )
    return found


def print_table(name: str, lines: Lines, *, n_rows: int = 12) -> None:
    """Print some epochs of a training: first, last, best, and some in between."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    shown = set(np.linspace(0, len(lines) - 1, min(max(n_rows, 2), len(lines))).astype(int))
    validated = [k for k, line in enumerate(lines) if "valid_loss" in line]
    best = min(validated, key=lambda k: float(lines[k]["valid_loss"])) if validated else None
    if best is not None:
        shown.add(best)
    total = lines[-1]
    table = Table(
        title=f"{name}: {total['epoch']} epochs, {total['step']} steps, {total['seconds']:.0f} s",
        title_justify="left",
    )
    columns = [("epoch", "epoch", 1.0, "d"), ("train_loss", "train loss", 1.0, ".3g")]
    for kind, series, factor, unit in _PANELS:
        for key, label in series:
            if key.startswith("valid") and any(key in line for line in lines):
                heading = "valid loss" if kind == "loss" else f"{kind} {label} {unit}"
                columns.append((key, heading, factor, ".4g"))
    columns.append(("lr", "lr", 1.0, ".2g"))
    for _, heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for k in sorted(shown):
        cells = []
        for key, _, factor, form in columns:
            value = lines[k].get(key)
            cells.append(
                "" if value is None else format(value * factor if form != "d" else value, form)
            )
        table.add_row(*cells, style="bold" if k == best else None)
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    if best is not None:
        console.print(f"lowest validation loss: epoch {lines[best]['epoch']}", highlight=False)


def plot_curves(journals: Mapping[str, Lines], path: Path) -> Path:
    """Plot loss and errors against epochs, all members of an ensemble together."""
    from epitaxy.evaluation.plots import COLORS, new_figure, write_figure

    everything = [line for lines in journals.values() for line in lines]
    panels = [p for p in _PANELS if any(key in line for key, _ in p[1] for line in everything)]
    figure, axes = new_figure(4.4, 3.6, columns=len(panels))
    faint = 1.0 if len(journals) == 1 else 0.55
    for axis, (kind, series, factor, unit) in zip(_as_list(axes), panels, strict=True):
        for color, (key, label) in zip(COLORS, series, strict=False):
            for k, lines in enumerate(journals.values()):
                points = [(line["epoch"], line[key] * factor) for line in lines if key in line]
                if points:
                    axis.plot(
                        *zip(*points, strict=True),
                        color=color,
                        alpha=faint,
                        linewidth=1.2,
                        label=label if k == 0 else None,
                    )
        axis.set_yscale("log")
        axis.set_xlabel("epoch")
        axis.set_ylabel("loss" if kind == "loss" else f"{kind} error ({unit})")
        axis.legend(frameon=False, fontsize=8)
    return write_figure(figure, path)


def _as_list(axes: Any) -> list[Any]:
    import numpy as np

    return list(np.atleast_1d(axes))
