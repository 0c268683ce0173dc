"""The Dockerfile of the Oasis and the versions in its images."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from deploy_program import Program
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

# Versions that the images cannot share with the tests of epitaxy, and why.
OTHER_VERSIONS = {
    "beautifulsoup4": "nomad-lab[infrastructure] wants <= 4.12.3",
    "fastapi": "nomad-lab[infrastructure] wants < 0.137",
    "numpy": "nomad-parser-plugins-electronic wants < 2.4",
    "opentelemetry-api": "nomad-lab[infrastructure] pins the instrumentation that goes with 1.42",
    "optimade": "nomad-lab[infrastructure] wants < 1.4",
    "protobuf": "opentelemetry-proto 1.42 wants < 7",
}


def versions(path: Path) -> dict[str, str]:
    """Return name and version of each `name==version` line."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines]
    assert all(pairs), [line for line, pair in zip(lines, pairs, strict=True) if not pair]
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs if pair}


@pytest.fixture(scope="module")
def app(oasis: Path) -> dict[str, str]:
    return versions(oasis / "requirements" / "app.txt")


@pytest.fixture(scope="module")
def action(oasis: Path) -> dict[str, str]:
    return versions(oasis / "requirements" / "action.txt")


@pytest.fixture(scope="module")
def dockerfile(oasis: Path) -> str:
    """Return the instructions, one a line."""
    lines = (oasis / "Dockerfile").read_text().splitlines()
    return re.sub(
        r"\\\n\s*", "", "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    )


def needs(extras: Iterable[str]) -> list[Requirement]:
    """Return what epitaxy with these extras needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [*project["dependencies"]]
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return [Requirement(text) for text in found]


def unmet(extras: Iterable[str], installed: dict[str, str]) -> list[str]:
    """Return the requirements that these versions do not meet."""
    return [
        str(need)
        for need in needs(extras)
        if canonicalize_name(need.name) not in installed
        or not need.specifier.contains(installed[canonicalize_name(need.name)], prereleases=True)
    ]


def test_app_image_has_what_epitaxy_needs_in_an_oasis(app: dict[str, str]) -> None:
    assert unmet(["oasis"], app) == []


def test_action_image_has_what_epitaxy_needs_to_predict(
    app: dict[str, str], action: dict[str, str]
) -> None:
    assert unmet(["oasis", "graphs"], app | action) == []


def test_torch_is_in_the_action_image_alone(app: dict[str, str], action: dict[str, str]) -> None:
    heavy = re.compile(r"torch|triton|nvidia|cuda")
    assert [name for name in app if heavy.match(name)] == []
    assert "torch" in action
    assert app.keys().isdisjoint(action)


def test_images_have_the_versions_that_the_tests_pass_with(
    app: dict[str, str], action: dict[str, str]
) -> None:
    tested = versions(ROOT / "constraints.txt")
    both = app | action
    differ = {name for name in both.keys() & tested.keys() if both[name] != tested[name]}
    assert differ == OTHER_VERSIONS.keys()


def test_what_an_administrator_chose_is_what_is_installed(oasis: Path, app: dict[str, str]) -> None:
    lines = (oasis / "requirements" / "app.in").read_text().splitlines()
    chosen = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert len(chosen) > 8
    assert [
        str(need) for need in chosen if app[canonicalize_name(need.name)] not in need.specifier
    ] == []


def test_nomad_and_its_interface_have_one_version(oasis: Path, app: dict[str, str]) -> None:
    assert app["nomad-lab"] == app["nomad-gui"] == "2.0.0"
    assert f"nomad-lab: {app['nomad-lab']}" in (oasis / "helm/epitaxy-oasis/Chart.yaml").read_text()


def test_image_builds_epitaxy_with_the_tested_hatchling(dockerfile: str) -> None:
    tested = versions(ROOT / "constraints.txt")["hatchling"]
    assert f"pip install hatchling=={tested}" in dockerfile


def test_images_have_the_python_that_the_versions_were_chosen_for(dockerfile: str) -> None:
    found = re.search(r"ARG PYTHON_IMAGE=python:(\d+\.\d+)-slim", dockerfile)
    assert found
    assert found[1] == "3.11"


def test_everything_that_the_dockerfile_copies_is_there(oasis: Path, dockerfile: str) -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert len(copied) > 6
    assert [source for source in copied if not (ROOT / source).exists()] == []
    let_in = [
        line[1:]
        for line in (oasis / "Dockerfile.dockerignore").read_text().splitlines()
        if line[:1] == "!"
    ]
    assert [
        s for s in copied if not any(s == let or s.startswith(f"{let}/") for let in let_in)
    ] == []


def test_everything_that_the_wheel_needs_is_copied(dockerfile: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"],
    ]
    stage = dockerfile.split(" AS wheel\n")[1].split("\nFROM ")[0]
    assert [
        name for name in needed if not re.search(rf"^COPY .*\b{re.escape(name)}\b", stage, re.M)
    ] == []


def test_stages_that_are_copied_from_exist(dockerfile: str) -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE)
    used = re.findall(r"^COPY --from=(\S+)", dockerfile, re.MULTILINE)
    assert set(used) <= set(stages)
    assert {"app", "cpu-action", "gpu-action"} <= set(stages)


def test_images_do_not_run_as_root(dockerfile: str) -> None:
    runtime = dockerfile.split(" AS runtime\n")[1].split("\nFROM ")[0]
    assert re.search(r"^USER 1000:1000$", runtime, re.MULTILINE)
    after = dockerfile.split(" AS runtime\n")[1]
    assert re.findall(r"^USER (.+)$", after, re.MULTILINE) == ["1000:1000"]
    for stage in ("app", "cpu-action", "gpu-action"):
        assert f"FROM runtime AS {stage}\n" in dockerfile


def test_hadolint_finds_nothing_in_the_dockerfile(oasis: Path, program: Program) -> None:
    program("hadolint", oasis / "Dockerfile")


@pytest.mark.slow
@pytest.mark.parametrize("names", [["app.txt"], ["app.txt", "action.txt"]])
def test_versions_go_together_and_are_complete(
    oasis: Path, tmp_path: Path, names: list[str]
) -> None:
    """Pip, which asks the package index, finds just these packages and no others."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    for name in names:
        command += ["-r", str(oasis / "requirements" / name)]
    done = subprocess.run(
        [*command, "--report", str(report)], capture_output=True, text=True, check=False
    )
    if "No matching distribution" in done.stderr and "(from versions: none)" in done.stderr:
        pytest.skip("no package index")
    assert done.returncode == 0, done.stderr
    found = {
        canonicalize_name(entry["metadata"]["name"]): entry["metadata"]["version"].split("+")[0]
        for entry in json.loads(report.read_text())["install"]
    }
    wanted: dict[str, str] = {}
    for name in names:
        wanted |= versions(oasis / "requirements" / name)
    cuda = {name for name in found if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert not (cuda and names == ["app.txt"])
    assert {name: found[name] for name in found.keys() - cuda} == wanted
