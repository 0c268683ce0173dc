"""What the plugin of NOMAD provides."""

from pathlib import Path

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the reader of NOMAD."""
    return [
        Component(
            name="nomad",
            target="epitaxy_nomad.source:NomadSource",
            summary="calculations of NOMAD or an Oasis by a query, or from downloaded archives",
            needs=("httpx", "tenacity"),
            extra="sources",
            example={
                "path": str(Path(__file__).with_name("example.json")),
                "frames": "all",
                "dos": True,
            },
        )
    ]


@hookimpl
def provide_publishers() -> list[Component]:
    """Offer the way into NOMAD."""
    return [
        Component(
            name="nomad",
            target="epitaxy_nomad.publisher:NomadPublisher",
            summary="artifacts and datasets into NOMAD or an Oasis, once and findable",
            needs=("httpx", "tenacity"),
            extra="sources",
        )
    ]


@hookimpl
def provide_commands() -> list[Component]:
    """Offer the verbs that look after uploads, and that make many of them."""
    return [
        Component(
            name="nomad",
            target="epitaxy_nomad.commands.nomad",
            summary="look after what is in NOMAD: status, list, wait, download, delete",
            needs=("httpx", "tenacity"),
            extra="sources",
        ),
        Component(
            name="campaign",
            target="epitaxy_nomad.commands.campaign",
            summary="pack many finished calculations into uploads of a NOMAD, and keep a ledger",
            needs=("httpx", "tenacity"),
            extra="sources",
        ),
    ]


@hookimpl
def identify_path(path: Path) -> str | None:
    """Recognise archives by what they hold."""
    if not path.is_file() or not {".json", ".jsonl"} & set(path.suffixes):
        return None
    import bz2
    import gzip
    import lzma

    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    try:
        with openers.get(path.suffix, open)(path, "rb") as stream:  # type: ignore[operator]
            head = stream.read(65_536)
    except (OSError, EOFError, lzma.LZMAError):
        return None
    is_archive = b'"entry_id"' in head and (b'"archive"' in head or b'"metadata"' in head)
    is_results = b'"chemical_formula_hill"' in head and b'"structure_original"' in head
    return "nomad" if is_archive or is_results else None
