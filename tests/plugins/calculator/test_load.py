"""From an artifact on disk to atoms.calc; and what ASE's plugin group finds."""

import copy
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from epitaxy.artifact import load_artifact, save_artifact
from epitaxy.calculator import load
from epitaxy.errors import ArtifactError, OptionError, UnknownComponentError
from epitaxy.registry import Registry
from epitaxy.spec import Spec
from epitaxy.testing.calculator_checks import sample_structure, write_sample_artifact


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_entry_points()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    return write_sample_artifact(tmp_path_factory.mktemp("model") / "artifact", registry=registry)


def test_one_line_gives_the_calculator_of_an_artifact(artifact: Path) -> None:
    atoms = bulk("Si", cubic=True)
    atoms.calc = load(artifact)
    assert type(atoms.get_potential_energy()) is float
    assert atoms.get_forces().shape == (8, 3)
    assert atoms.calc.todict()["artifact"] == str(artifact.resolve())


def test_a_loaded_artifact_gives_the_same_as_its_path(artifact: Path) -> None:
    by_path = load(str(artifact), dtype="float64")
    by_artifact = load(load_artifact(artifact), dtype="float64")
    for calculator in (by_path, by_artifact):
        calculator.calculate(sample_structure())
    assert np.array_equal(by_path.results["forces"], by_artifact.results["forces"])
    assert by_path.todict() == by_artifact.todict()


def test_options_of_the_calculator_are_checked(artifact: Path, registry: Registry) -> None:
    wide = load(artifact, calculator={"use": "potential", "skin": 2.0}, registry=registry)
    assert wide.skin == 2.0
    with pytest.raises(OptionError, match="skln"):
        load(artifact, calculator={"use": "potential", "skln": 2.0}, registry=registry)
    with pytest.raises(UnknownComponentError, match="potential"):
        load(artifact, calculator="potentail", registry=registry)


def test_something_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not an artifact"):
        load(tmp_path)


def test_a_pickle_holds_the_path_and_not_the_weights(artifact: Path) -> None:
    calculator = load(artifact)
    calculator.calculate(sample_structure())
    text = pickle.dumps(calculator)
    assert len(text) < 5_000
    assert str(artifact.resolve()).encode() in text
    assert pickle.loads(text).results["energy"] == calculator.results["energy"]


def test_a_pickle_notices_that_its_artifact_was_replaced(artifact: Path, tmp_path: Path) -> None:
    place = tmp_path / "artifact"
    shutil.copytree(artifact, place)
    text = pickle.dumps(load(place))
    model = load_artifact(place).model
    save_artifact(model, place, strategy=Spec("direct"), overwrite=True)
    with pytest.raises(ArtifactError, match="has changed"):
        pickle.loads(text)


def test_a_deep_copy_shares_the_weights(artifact: Path) -> None:
    calculator = load(artifact)
    other = copy.deepcopy(calculator)
    assert other.members is calculator.members


def test_ase_lists_the_calculator() -> None:
    plugins = pytest.importorskip("ase._4.plugins").plugins
    found = [p for p in plugins.calculators if p.name == "epitaxy"]
    assert len(found) == 1
    assert found[0].display().split()[:2] == ["epitaxy", "(epitaxy"]
    assert found[0]().__name__ == "PotentialCalculator"


def test_ase_info_shows_the_plugin() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ase", "info", "--plugins"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized arguments" in done.stderr:
        pytest.skip("this version of ASE has no plugin list")
    assert done.returncode == 0, done.stderr
    assert "epitaxy" in done.stdout


def test_the_ase_plugin_loads_no_torch_and_survives_without_ases_private_module() -> None:
    probe = (
        "import sys\n"
        "sys.modules['ase._4.plugins.plugin'] = None\n"
        "import epitaxy_calculator.ase_plugin as plugin\n"
        "assert plugin.__ase_plugins__ == set(), plugin.__ase_plugins__\n"
        "del sys.modules['ase._4.plugins.plugin'], sys.modules['epitaxy_calculator.ase_plugin']\n"
        "import epitaxy_calculator.ase_plugin as plugin\n"
        "print(len(plugin.__ase_plugins__), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["1", "False"], ["0", "False"])
