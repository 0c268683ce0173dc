"""What the plugin of public and embedded training sets provides."""

from pathlib import Path

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the embedded silicon set and the reader of mlearn's files."""
    return [
        Component(
            name="silicon",
            target="epitaxy_benchmarks.silicon:SiliconSource",
            summary="embedded silicon frames with energies, forces and stresses (GPAW, PBE or LDA)",
        ),
        Component(
            name="mlearn",
            target="epitaxy_benchmarks.mlearn:MlearnSource",
            summary="the mlearn benchmark (Zuo 2020): Li, Ge, Si, Cu, Ni, Mo from its JSON files",
            example={"path": str(Path(__file__).with_name("mlearn_example.json"))},
        ),
    ]


@hookimpl
def identify_path(path: Path) -> str | None:
    """Recognise mlearn's JSON files by what they hold."""
    if not path.is_file() or ".json" not in path.suffixes:
        return None
    import lzma

    opener = lzma.open if path.suffix == ".xz" else Path.open
    try:
        with opener(path, "rb") as stream:
            head = stream.read(65_536)
    except (OSError, EOFError, lzma.LZMAError):
        return None
    keys = (b'"virial_stress"', b'"group"', b'"outputs"')
    return "mlearn" if sum(key in head for key in keys) >= 2 else None
