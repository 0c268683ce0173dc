"""What the plugin of OPTIMADE provides."""

from pathlib import Path

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the reader of OPTIMADE."""
    return [
        Component(
            name="optimade",
            target="epitaxy_optimade.source:OptimadeSource",
            summary="structures of any OPTIMADE provider by a filter, or from a JSON-lines dump",
            needs=("httpx", "tenacity"),
            extra="sources",
            example={
                "path": str(Path(__file__).with_name("example.jsonl")),
                "mapping": {"energy": "_exmpl_energy"},
            },
        )
    ]


@hookimpl
def identify_path(path: Path) -> str | None:
    """Recognise dumps by what they hold."""
    if not path.is_file() or not {".json", ".jsonl"} & set(path.suffixes):
        return None
    import bz2
    import gzip
    import lzma
    import re

    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    try:
        with openers.get(path.suffix, open)(path, "rb") as stream:  # type: ignore[operator]
            head = stream.read(65_536)
    except (OSError, EOFError, lzma.LZMAError):
        return None
    is_structures = re.search(rb'"type"\s*:\s*"structures"', head) is not None
    return "optimade" if b'"x-optimade"' in head[:200] or is_structures else None
