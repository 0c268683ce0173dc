"""What the plugin of densities of states provides."""

from epitaxy import Component, hookimpl


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
