"""What the plugin of densities of states provides."""

from pathlib import Path

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the reader of densities of states."""
    return [
        Component(
            name="dos",
            target="epitaxy_dos.source:DosSource",
            summary="densities of states: DOSCAR, dos.xml, CompleteDos, AFLOW, arrays",
            needs=("scipy",),
            extra="dos",
            example={"path": str(Path(__file__).with_name("example.npz"))},
        )
    ]


@hookimpl
def provide_commands() -> list[Component]:
    """Offer the verb that compares spectra."""
    return [
        Component(
            name="similarity",
            target="epitaxy_dos.commands.similarity",
            summary="how alike the spectra of a dataset are: matrix, clusters, convergence",
            needs=("scipy", "matplotlib"),
            extra="dos",
        )
    ]


@hookimpl(tryfirst=True)
def identify_path(path: Path) -> str | None:
    """Recognise DOSCAR and dos.xml by name, JSON by content, .npz by its arrays."""
    name = path.name.lower()
    if not path.exists() and any(c in str(path) for c in "*?["):
        return "dos" if name.startswith("doscar") or name == "dos.xml" else None
    if not path.is_file() or not any(w in name for w in ("doscar", "dos.xml", ".json", ".npz")):
        return None
    if name.endswith(".npz"):
        import zipfile

        try:
            with zipfile.ZipFile(path) as stored:
                return "dos" if {"dos.npy", "energies.npy"} <= set(stored.namelist()) else None
        except (OSError, zipfile.BadZipFile):
            return None
    from epitaxy_dos.readers.files import format_of

    return "dos" if format_of(path) else None
