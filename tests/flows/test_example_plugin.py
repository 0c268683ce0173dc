"""A stranger's plugin installs as a wheel and editable, is found, and passes its own tests."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from epitaxy.commands.new_plugin import SKETCHES, write_plugin

EXAMPLE = Path(__file__).parents[2] / "docs" / "example-plugin"

pytest.importorskip("hatchling", reason="hatchling builds the example plugin")


class Environment:
    """A virtual environment of its own, in which the packages of this one are visible."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin" / "python"
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        here = sysconfig.get_path("purelib")
        (site / "parent.pth").write_text(f"import site; site.addsitedir({here!r})\n")

    def install(self, *arguments: str | Path) -> None:
        """Install without the network: what is needed is already there."""
        offline = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        self.run_with(
            sys.executable, "-m", "pip", "--python", self.python, "install", *offline, *arguments
        )

    def run(self, *arguments: str | Path, cwd: Path) -> str:
        """Run a Python module in the environment and return what it prints."""
        return self.run_with(self.python, "-m", *arguments, cwd=cwd)

    def run_with(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Run a program that must succeed, and return what it prints."""
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment") / "env")


def install(environment: Environment, project: Path, how: str) -> None:
    """Install a project as a stranger would."""
    if how == "editable":
        environment.install("--editable", project)
        return
    wheels = project / "dist"
    offline = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    environment.run_with(
        sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", wheels, project
    )
    (wheel,) = wheels.glob("*.whl")
    environment.install("--force-reinstall", wheel)


@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_the_example_plugin_is_found_once_it_is_installed(
    environment: Environment, tmp_path: Path, how: str
) -> None:
    project = shutil.copytree(EXAMPLE, tmp_path / "project")
    install(environment, project, how)
    listing = json.loads(_plugins(environment, tmp_path))
    offered = {item["qualified_name"]: item for item in listing["components"]}
    assert offered["rare-gas/argon"]["distribution"] == "epitaxy-rare-gas"
    assert offered["rare-gas/pair-potential"]["state"] == "ready"
    assert "rare-gas" not in [problem["plugin"] for problem in listing["problems"]]
    environment.run("epitaxy", "check", "rare-gas", "--only", "heavy", cwd=tmp_path)


@pytest.mark.parametrize("how", ["wheel", pytest.param("editable", marks=pytest.mark.slow)])
def test_the_example_plugin_passes_its_own_tests(
    environment: Environment, tmp_path: Path, how: str
) -> None:
    project = shutil.copytree(EXAMPLE, tmp_path / "project")
    install(environment, project, how)
    environment.run("pytest", "-q", "-p", "no:cacheprovider", cwd=project)


def _plugins(environment: Environment, folder: Path) -> str:
    """Return the listing, also when some other plugin of this environment is broken."""
    command = [environment.python, "-m", "epitaxy", "plugins", "--json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    "kind",
    [
        "model",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in SKETCHES if kind != "model"),
    ],
)
def test_a_new_plugin_of_each_kind_installs_and_passes_its_tests_at_once(
    environment: Environment, tmp_path: Path, kind: str
) -> None:
    project = tmp_path / "project"
    write_plugin(f"new-{kind}", project, kind=kind)
    install(environment, project, "editable")
    environment.run("epitaxy", "check", f"new-{kind}", cwd=tmp_path)
    environment.run("pytest", "-q", "-p", "no:cacheprovider", cwd=project)
