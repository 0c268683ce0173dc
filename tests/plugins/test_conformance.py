"""Every first-party plugin passes the kit that third parties use; the kit finds what is wrong."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import SkipTest

import numpy as np
import pytest

from epitaxy import Card, Component, Entry, Origin, Registry, hookimpl
from epitaxy.errors import PluginError, UnknownComponentError
from epitaxy.testing import Check, checks_for

Install = Callable[..., Path]

REGISTRY = Registry.from_entry_points()
FIRST_PARTY = sorted(
    {offer.plugin for offer in REGISTRY if offer.distribution == "epitaxy"}
    | {problem.plugin for problem in REGISTRY.problems if problem.distribution == "epitaxy"}
)


@pytest.mark.parametrize(
    "check", [check for name in FIRST_PARTY for check in checks_for(name)], ids=str
)
def test_conformance(check: Check) -> None:
    check()


@pytest.fixture
def extxyz(tmp_path: Path) -> Path:
    """Write strained copper with EMT's labels, as a user's file would hold it."""
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    path = tmp_path / "copper.extxyz"
    for index in range(70):
        atoms = bulk("Cu", a=3.6 * (1 + 0.0005 * index), cubic=True)
        atoms.calc = EMT()
        labels = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
        write(path, atoms, append=True)
    return path


def test_the_file_source_passes_on_a_file(extxyz: Path) -> None:
    found = outcomes("source/files/files", example={"path": str(extxyz)})
    assert len(found) > 10
    assert {outcome for outcome, _ in found.values()} == {"passed"}, found


def test_features_of_a_parent_are_checked_with_a_parent_that_the_kit_makes() -> None:
    for level in ("V0", "V1"):
        example = {"parent": "not-there", "level": level}
        found = outcomes("featurizer/atomsets/parent_features", example=example)
        assert len(found) == 11
        assert {outcome for outcome, _ in found.values()} == {"passed"}, found


def outcomes(name: str, **arguments: object) -> dict[str, tuple[str, str]]:
    """Run all the checks of a plugin: last part of the name -> how it went."""
    found = checks_for(name, **arguments)  # type: ignore[arg-type]
    return {check.name.rpartition(": ")[2]: check.outcome() for check in found}


def test_a_plugin_that_does_not_load_fails(install_plugin: Install) -> None:
    install_plugin("import_error")
    outcome, reason = outcomes("import-error")["loads"]
    assert outcome == "failed"
    assert "package_that_is_not_there" in reason


def test_a_plugin_that_imports_something_heavy_or_prints_fails(install_plugin: Install) -> None:
    site = install_plugin("heavy", distribution="stranger")
    check = "imports nothing heavy and prints nothing"
    assert outcomes("heavy")[check] == (
        "failed",
        "heavy prints while it is loaded: 'hello from heavy'",
    )
    (site / "heavy.py").write_text((site / "heavy.py").read_text().replace("print(", "str("))
    sys.modules.pop("heavy")
    assert "imports numpy" in outcomes("heavy")[check][1]


@pytest.mark.parametrize(
    ("component", "check", "reason"),
    [
        ("positional", "options are keyword-only, typed and documented", "must be keyword-only"),
        ("untyped", "options are keyword-only, typed and documented", "'width' has no type"),
        ("unresolvable", "options are keyword-only, typed and documented", "cannot be evaluated"),
        ("absent", "target can be imported", "did you mean 'Positional'"),
        ("nowhere", "target can be imported", "does not exist"),
        ("untyped", "target does what its kind asks", "Untyped has no method fit"),
    ],
)
def test_badly_declared_components_fail(
    install_plugin: Install, component: str, check: str, reason: str
) -> None:
    install_plugin("wrong_options")
    outcome, text = outcomes(f"featurizer/{component}")[check]
    assert outcome == "failed"
    assert reason in text


def test_what_needs_a_missing_package_is_skipped_with_the_pip_command(
    install_plugin: Install,
) -> None:
    site = install_plugin("missing_extra")
    shutil.copy(Path(__file__).parents[1] / "core/broken_plugins/missing_extra_model.py", site)
    (outcome, reason) = outcomes("wants-extra")["target can be imported"]
    assert (outcome, "pip install 'stranger[gpu]'" in reason) == ("skipped", True)


class Lattice:
    """A source that is right; `fault` makes it wrong.

    Args:
        fault: what is wrong.
        n_entries: how many.
    """

    def __init__(self, *, fault: str = "", n_entries: int = 100) -> None:
        self.fault = fault
        self.n_entries = n_entries
        self.n_iterations = 0
        self.shared = iter(())
        self.kept: list[Entry] = []

    @property
    def card(self) -> Card:
        quantities = ("enrgy",) if self.fault == "card" else ("energy", "forces")
        return Card(title="" if self.fault == "title" else "lattice", quantities=quantities)

    def __iter__(self) -> Iterator[Entry]:
        self.n_iterations += 1
        if self.fault == "once" and self.n_iterations > 1:
            return iter(())
        if self.fault == "shared":
            self.shared = self.entries(0)
            return iter(lambda: next(self.shared), None)
        return self.entries(self.n_iterations)

    def entries(self, iteration: int) -> Iterator[Entry]:
        for index in range(self.n_entries):
            yield self.entry(index, iteration)

    def entry(self, index: int, iteration: int) -> Entry:
        fault = self.fault if index == 1 else ""
        entry = Entry(
            numbers=np.array([14, 14], dtype=np.int64 if fault == "dtype" else np.uint8),
            positions=np.full((2, 3), np.nan) if fault == "nan" else np.eye(3)[:2] * (index + 1),
            cell=np.diag([5.0, 5.0, 0.0]) if fault == "cell" else 5.0 * np.eye(3),
            pbc=np.ones(3, dtype=bool),
            targets={
                "energy": np.array(-1.0 * (iteration if self.fault == "order" else index)),
                **({"stress": np.zeros(6)} if fault == "promise" else {}),
                **({"forces": np.zeros((3, 2))} if fault == "shape" else {}),
                **({"forces": np.full((2, 3), np.inf)} if fault == "inf" else {}),
            },
            id="0" if fault == "id" else str(index),
            origin=Origin(database="" if fault == "origin" else "made up"),
        )
        if self.fault == "memory":
            self.kept.append(entry)
        return entry


class LatticePlugin:
    """Offers the source with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    @hookimpl
    def provide_sources(self) -> list[Component]:
        return [
            Component(
                name="lattice",
                target=f"{Lattice.__module__}:Lattice",
                summary="a lattice",
                example={"fault": self.fault},
            )
        ]


def lattice_outcomes(fault: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, _this_module()))
    registry = Registry()
    registry.add("lattice", LatticePlugin(fault))
    return outcomes("source/lattice", registry=registry)


def _this_module() -> object:
    from types import SimpleNamespace

    return SimpleNamespace(Lattice=Lattice)


def test_a_good_source_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = lattice_outcomes("", monkeypatch)
    assert len(found) > 10
    assert {outcome for outcome, _ in found.values()} == {"passed"}, found


@pytest.mark.parametrize(
    ("fault", "check", "reason"),
    [
        ("title", "has a card with title, license and known quantities", "no title"),
        ("card", "has a card with title, license and known quantities", "Did you mean 'energy'"),
        ("dtype", "entries are valid", "entry 1 (1): numbers is int64, not uint8"),
        ("nan", "entries are valid", "entry 1 (1): positions is not finite"),
        ("cell", "entries are valid", "periodic along [True, True, True]"),
        ("promise", "targets are known, finite and on the card", "stress is not on the card"),
        ("shape", "targets are known, finite and on the card", "has shape (3, 2), not (2, 3)"),
        ("inf", "targets are known, finite and on the card", "forces is not finite"),
        ("id", "ids are unique", "entries 0 and 1 are both '0'"),
        ("origin", "entries say where they come from", "entry 1 (1) names neither"),
        ("once", "iterates again in the same order", "100 entries at first, then 0"),
        ("order", "iterates again in the same order", "changes its energy"),
        ("shared", "two iterations do not disturb each other", "another one is going on"),
        ("memory", "entries do not pile up in memory", "of 100 entries are still in memory"),
    ],
)
def test_a_source_with_one_fault_fails_the_check_for_it(
    monkeypatch: pytest.MonkeyPatch, fault: str, check: str, reason: str
) -> None:
    outcome, text = lattice_outcomes(fault, monkeypatch)[check]
    assert outcome == "failed"
    assert reason in text


def test_expected_failures_are_skipped_with_their_reason_and_must_fail(
    install_plugin: Install,
) -> None:
    install_plugin("wrong_options")
    name = "options are keyword-only, typed and documented"
    (check,) = (
        check
        for check in checks_for("featurizer/untyped", expected_failures={name: "issue 12"})
        if check.name.endswith(name)
    )
    with pytest.raises(SkipTest, match="fails as expected: issue 12"):
        check()
    passes = {"summary is one short line": "issue 13"}
    (check,) = (
        check
        for check in checks_for("featurizer/untyped", expected_failures=passes)
        if check.expected_failure
    )
    with pytest.raises(AssertionError, match="remove it from expected_failures"):
        check()


def test_an_expected_failure_must_name_a_check(install_plugin: Install) -> None:
    install_plugin("wrong_options")
    with pytest.raises(
        PluginError, match=r"names 'wrong-options: load', .* 'wrong-options: loads'"
    ):
        checks_for("wrong-options", expected_failures={"wrong-options: load": "typo"})


def test_a_plugin_declares_its_own_expected_failures(install_plugin: Install) -> None:
    site = install_plugin("wrong_options")
    with (site / "wrong_options.py").open("a") as file:
        file.write('\nexpected_failures = {"target can be imported": "written on purpose"}\n')
    sys.modules.pop("wrong_options", None)
    assert outcomes("featurizer/absent")["target can be imported"][0] == "expected"


def test_an_unknown_name_is_explained() -> None:
    with pytest.raises(UnknownComponentError, match="no component named 'grahps'"):
        checks_for("grahps")
