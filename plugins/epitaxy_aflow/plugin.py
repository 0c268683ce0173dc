"""What the plugin of AFLOW provides."""

from pathlib import Path

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the reader of AFLOW."""
    return [
        Component(
            name="aflow",
            target="epitaxy_aflow.source:AflowSource",
            summary="AFLOW: energies, gaps and elasticity by its search service or entry files",
            example={"path": str(Path(__file__).with_name("example.json"))},
        )
    ]


@hookimpl(tryfirst=True)
def identify_path(path: Path) -> str | None:
    """Recognise entries of AFLOW and saved answers of AFLUX."""
    from epitaxy_aflow.files import looks_like_ours

    return "aflow" if looks_like_ours(path) else None
