"""What the plugin of files provides."""

from pathlib import Path

from epitaxy import Component, hookimpl

_COMPRESSIONS = (".gz", ".xz", ".bz2")
_TEXT = (".xyz", ".extxyz", ".cif", ".vasp", ".poscar", ".contcar", ".outcar", ".xml", ".cfg")
_CODES = (".gen", ".xsf", ".res", ".castep", ".cell", ".pwo", ".pwi", ".in", ".out", ".cube")
_OTHERS = (".traj", ".db", ".json", ".gpw", ".nc", ".lmp", ".data", ".pdb", ".shelx", ".parquet")
_SUFFIXES = frozenset((*_TEXT, *_CODES, *_OTHERS))
_NAMES = ("poscar", "contcar", "outcar", "vasprun", "xdatcar")


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the readers of files."""
    return [
        Component(
            name="files",
            target="epitaxy_files.source:FileSource",
            summary="structures and labels from every file that ASE reads, extxyz and ASE db",
            example={"path": str(Path(__file__).with_name("example.extxyz"))},
        ),
        Component(
            name="hydragnn",
            target="epitaxy_files.hydragnn:HydraGnnSource",
            summary="training, validation and test set of an ADIOS2 file of HydraGNN",
            needs=("adios2",),
            extra="adios2",
            example={"path": str(Path(__file__).with_name("example-hydragnn.bp"))},
        ),
    ]


@hookimpl
def identify_path(path: Path) -> str | None:
    """Recognise files by their names, BP5 by its parts, JSON if it looks like a db of ASE."""
    if (path / "md.idx").is_file() and (path / "data.0").is_file():
        return "hydragnn"
    if path.is_dir() or not (path.exists() or any(c in str(path) for c in "*?[")):
        return None
    name = path.name.lower()
    for ending in _COMPRESSIONS:
        name = name.removesuffix(ending)
    suffix = Path(name).suffix
    if suffix == ".json":
        return "files" if path.is_file() and _is_ase_json(path) else None
    return "files" if suffix in _SUFFIXES or name.startswith(_NAMES) else None


def _is_ase_json(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(4096)
    return b'"1":' in head and (b'"numbers"' in head or b"__ndarray__" in head)
