"""What the plugin of the Materials Project provides."""

from pathlib import Path

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the reader of the Materials Project."""
    return [
        Component(
            name="mp",
            target="epitaxy_mp.source:MaterialsProjectSource",
            summary="the Materials Project: energies, gaps, elasticity and calculations by level",
            example={"path": str(Path(__file__).with_name("example.json"))},
        )
    ]


@hookimpl(tryfirst=True)
def identify_path(path: Path) -> str | None:
    """Recognise documents of the Materials Project by names that no other database uses."""
    from epitaxy_mp.documents import looks_like_ours

    return "mp" if looks_like_ours(path) else None
