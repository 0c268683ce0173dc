"""The search page of trained models: filters on the left, a dashboard, a table."""

from __future__ import annotations

from nomad.config.models.ui import (
    App,
    Axis,
    AxisScale,
    Column,
    Dashboard,
    Format,
    Layout,
    Menu,
    MenuItemHistogram,
    MenuItemPeriodicTable,
    MenuItemTerms,
    SearchQuantities,
    WidgetHistogram,
    WidgetPeriodicTable,
    WidgetScatterPlot,
    WidgetTerms,
)

SCHEMA = "epitaxy_nomad.oasis.model.TrainedModel"
ELEMENTS = "results.material.elements"


def _of(name: str) -> str:
    """Return how a search names a quantity of the schema."""
    return f"data.{name}#{SCHEMA}"


def _place(w: int, h: int, x: int, y: int) -> dict[str, Layout]:
    """Return a place on the grid of the dashboard, the same on all screens but the smallest."""
    wide = Layout(w=w, h=h, x=x, y=y, minW=3, minH=3)
    narrow = Layout(w=12, h=h, x=0, y=y + x, minW=3, minH=3)
    return {"sm": narrow, "md": wide, "lg": wide, "xl": wide, "xxl": wide}


def _axis(name: str, title: str, *, unit: str | None = None) -> Axis:
    return Axis(search_quantity=_of(name), title=title, unit=unit)


def build_app() -> App:
    """Return the app."""
    return App(
        label="Trained models",
        path="epitaxy-models",
        category="Machine learning",
        description="Models of atomistic properties that were trained with epitaxy.",
        readme=(
            "Models with what they were trained on, how far they are off, and whether their "
            "error bars can be trusted. Errors are mean absolute errors of structures that the "
            "model has not seen. A model is opened like any entry; its files can be downloaded "
            "and loaded with `epitaxy`, and the action *Predict with a trained model* applies it "
            "to entries of an upload."
        ),
        search_quantities=SearchQuantities(
            include=[f"*#{SCHEMA}", "results.material.*", "results.eln.*", "authors.*"]
        ),
        filters_locked={"section_defs.definition_qualified_name": [SCHEMA]},
        columns=_columns(),
        menu=_menu(),
        dashboard=Dashboard(widgets=_widgets()),
    )


def _columns() -> list[Column]:
    short = Format(decimals=4, mode="standard")
    return [
        Column(search_quantity="entry_name", title="Model", selected=True),
        Column(search_quantity=_of("architecture"), title="Architecture", selected=True),
        Column(search_quantity=_of("kind"), title="Kind"),
        Column(search_quantity=_of("strategy"), title="Strategy"),
        Column(search_quantity=_of("main_target"), title="Quantity", selected=True),
        Column(search_quantity=_of("main_error"), title="Error", format=short, selected=True),
        Column(search_quantity=_of("main_error_unit"), title="Unit", selected=True),
        Column(search_quantity=_of("main_error_split"), title="Error on"),
        Column(search_quantity=_of("energy_error"), title="Energy error", unit="meV", format=short),
        Column(
            search_quantity=_of("force_error"),
            title="Force error",
            unit="meV/angstrom",
            format=short,
        ),
        Column(search_quantity=_of("error_std_ratio"), title="Error / error bar", format=short),
        Column(search_quantity=_of("xc_functional"), title="Functional", selected=True),
        Column(search_quantity=_of("split.n_train"), title="Training structures", selected=True),
        Column(search_quantity="upload_create_time", title="Uploaded"),
    ]


def _menu() -> Menu:
    return Menu(
        title="Filters",
        size="sm",
        items=[
            Menu(
                title="Elements",
                size="xxl",
                items=[
                    MenuItemPeriodicTable(search_quantity=ELEMENTS),
                    MenuItemHistogram(x=_axis("n_elements", "Elements covered")),
                ],
            ),
            Menu(
                title="What it predicts",
                items=[
                    MenuItemTerms(search_quantity=_of("targets.name"), options=20),
                    MenuItemTerms(search_quantity=_of("predicts_forces"), show_input=False),
                    MenuItemTerms(search_quantity=_of("predicts_stress"), show_input=False),
                    MenuItemTerms(search_quantity=_of("composition_only"), show_input=False),
                ],
            ),
            Menu(
                title="Model",
                items=[
                    MenuItemTerms(search_quantity=_of("architecture"), options=20),
                    MenuItemTerms(search_quantity=_of("kind"), show_input=False),
                    MenuItemTerms(search_quantity=_of("strategy"), options=10),
                    MenuItemHistogram(x=_axis("cutoff", "Cutoff", unit="angstrom")),
                    MenuItemTerms(search_quantity=_of("lineage.parent_digest"), options=0),
                ],
            ),
            Menu(
                title="Level of theory",
                items=[
                    MenuItemTerms(
                        search_quantity=_of("levels_of_theory.xc_functional"), options=20
                    ),
                    MenuItemTerms(search_quantity=_of("levels_of_theory.code"), options=20),
                ],
            ),
            Menu(
                title="Error",
                items=[
                    MenuItemTerms(search_quantity=_of("main_target"), options=20),
                    MenuItemHistogram(x=_axis("main_error", "Error, in the quantity's unit")),
                    MenuItemHistogram(x=_axis("energy_error", "Energy per atom", unit="meV")),
                    MenuItemHistogram(
                        x=_axis("force_error", "Force component", unit="meV/angstrom")
                    ),
                ],
            ),
            Menu(
                title="Uncertainty",
                items=[
                    MenuItemTerms(search_quantity=_of("has_uncertainty"), show_input=False),
                    MenuItemHistogram(x=_axis("error_std_ratio", "Error / error bar")),
                    MenuItemHistogram(x=_axis("calibrations.rank_correlation", "Rank correlation")),
                    MenuItemHistogram(x=_axis("n_members", "Members of an ensemble")),
                ],
            ),
            Menu(
                title="Training data",
                items=[
                    MenuItemHistogram(x=_axis("split.n_train", "Training structures")),
                    MenuItemTerms(search_quantity=_of("split.train_digest"), options=0),
                ],
            ),
            Menu(
                title="Files",
                items=[
                    MenuItemTerms(search_quantity=_of("is_complete"), show_input=False),
                    MenuItemTerms(search_quantity=_of("digest"), options=0),
                    MenuItemTerms(search_quantity="authors.name", options=0),
                ],
            ),
        ],
    )


def _widgets() -> list[WidgetPeriodicTable | WidgetTerms | WidgetHistogram | WidgetScatterPlot]:
    return [
        WidgetPeriodicTable(
            title="Elements",
            search_quantity=ELEMENTS,
            layout=_place(12, 9, 0, 0),
        ),
        WidgetTerms(
            title="Predicted quantities",
            search_quantity=_of("targets.name"),
            layout=_place(4, 9, 12, 0),
        ),
        WidgetTerms(
            title="Architecture",
            search_quantity=_of("architecture"),
            layout=_place(4, 9, 16, 0),
        ),
        WidgetTerms(
            title="Functional",
            search_quantity=_of("levels_of_theory.xc_functional"),
            layout=_place(4, 9, 20, 0),
        ),
        WidgetScatterPlot(
            title="Error against training set",
            description="Choose one quantity on the left: errors of different ones do not compare.",
            x=_axis("split.n_train", "Training structures"),
            y=_axis("main_error", "Error, in the quantity's unit"),
            markers={"color": {"search_quantity": _of("architecture")}},
            layout=_place(9, 6, 0, 9),
        ),
        WidgetHistogram(
            title="Energy error per atom",
            x=_axis("energy_error", "Energy per atom", unit="meV"),
            y=AxisScale(),
            autorange=True,
            n_bins=30,
            layout=_place(5, 6, 9, 9),
        ),
        WidgetHistogram(
            title="Force error",
            x=_axis("force_error", "Force component", unit="meV/angstrom"),
            y=AxisScale(),
            autorange=True,
            n_bins=30,
            layout=_place(5, 6, 14, 9),
        ),
        WidgetHistogram(
            title="Error / error bar",
            description="1 is perfect; above 1 the error bars are too small.",
            x=_axis("error_std_ratio", "Error / error bar"),
            y=AxisScale(),
            autorange=True,
            n_bins=30,
            layout=_place(5, 6, 19, 9),
        ),
    ]
