"""What NOMAD itself says of the configuration and of the commands that the containers run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

PROBE = """
import json, sys
import click
sys.modules["torch"] = None  # as in the app image
from nomad.config import config
config.load_plugins()
from nomad.cli.admin.run import run
refused = {}
for words in json.loads(sys.argv[1]):
    try:
        run.commands[words[0]].make_context(words[0], list(words[1:]))
    except (KeyError, click.ClickException) as error:
        refused[" ".join(words)] = repr(error)
failed = {}
for key, value in config.plugins.entry_points.filtered_items():
    kinds = ("schema_package", "parser", "normalizer", "action")
    if key.startswith("epitaxy_nomad") and value.entry_point_type in kinds:
        try:
            value.load()
        except Exception as error:
            failed[key] = repr(error)
points, mongo, elastic = config.plugins.entry_points, config.mongo, config.elastic
print("FOUND" + json.dumps({
    "refused": refused,
    "failed": failed,
    "entry_points": {
        key: value.model_dump(mode="json") for key, value in points.filtered_items()
        if key.startswith("epitaxy_nomad")
    },
    "unknown": [key for key, value in points.options.items() if isinstance(value, dict)],
    "secret": config.services.api_secret.get_secret_value(),
    "mongo": [mongo.host, mongo.username, mongo.password.get_secret_value()],
    "elastic": [elastic.version, elastic.host, elastic.password.get_secret_value()],
    "temporal": [config.temporal.host, config.temporal.cpu_worker.pool_size],
    "url": config.services.api_url(),
    "mode": config.services.mode.value,
    "oasis": config.oasis.is_oasis,
    "north": config.north.enabled,
}))
"""


def variables(oasis: Path) -> dict[str, str]:
    """Return NOMAD's variables of the app in compose.yaml, with a value for each secret."""
    service = yaml.safe_load((oasis / "compose.yaml").read_text())["services"]["app"]
    found = {}
    for name, value in service["environment"].items():
        text = re.sub(r"\$\{\w+:\?[^}]*\}", "0123456789abcdef" * 4, str(value))
        found[name] = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return found


def commands(oasis: Path) -> list[list[str]]:
    """Return what follows `nomad admin run` in the Dockerfile, compose.yaml and the chart."""
    texts = [
        (oasis / name).read_text()
        for name in ("Dockerfile", "compose.yaml", "helm/epitaxy-oasis/templates/app.yaml")
    ]
    found = []
    for text in texts:
        for words in re.findall(r'\["nomad", "admin", "run", (.+)\]', text):
            words = re.sub(r"\{\{.*?\}\}", '"2"', words)
            found.append([word.strip().strip('"') for word in words.split(",")])
    workers = (oasis / "helm/epitaxy-oasis/templates/workers.yaml").read_text()
    found += [[word] for word in re.findall(r'"command" "([a-z-]+)"', workers)]
    return found


@pytest.fixture(scope="module")
def nomad(oasis: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what NOMAD reads out of nomad.yaml and the environment, in a process of its own."""
    pytest.importorskip("nomad")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("NOMAD_")
    }
    environment |= variables(oasis) | {"NOMAD_CONFIG": str(oasis / "configs" / "nomad.yaml")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(commands(oasis))],
        env=environment,
        cwd=tmp_path_factory.mktemp("app"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, _, found = done.stdout.partition("FOUND")
    result: dict[str, Any] = json.loads(found)
    return result | {"said": before + done.stderr}


def test_nomad_knows_every_option_and_variable(nomad: dict[str, Any]) -> None:
    assert "unsupported keys" not in nomad["said"]
    assert "deprecated" not in nomad["said"].lower()
    assert nomad["unknown"] == []


def test_all_our_entry_points_load(nomad: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["nomad.plugin"]
    assert nomad["entry_points"].keys() == set(declared.values())


def test_our_entry_points_work_without_torch(nomad: dict[str, Any]) -> None:
    # Every worker loads every action, also those that it will not run.
    assert nomad["failed"] == {}


def test_options_of_our_entry_points_exist_and_arrive(oasis: Path, nomad: dict[str, Any]) -> None:
    written = yaml.safe_load((oasis / "configs" / "nomad.yaml").read_text())
    options = written["plugins"]["entry_points"]["options"]
    assert options
    for key, values in options.items():
        arrived = nomad["entry_points"][key]
        assert {name: arrived.get(name) for name in values} == values


def test_secrets_and_hosts_arrive_from_the_environment(nomad: dict[str, Any]) -> None:
    secret = "0123456789abcdef" * 4
    assert nomad["secret"] == secret
    assert nomad["mongo"] == ["mongo", "nomad", secret]
    assert nomad["elastic"] == ["9", "elastic", secret]
    assert nomad["temporal"] == ["temporal", 2]


def test_oasis_runs_in_production_mode_under_its_address(nomad: dict[str, Any]) -> None:
    assert nomad["mode"] == "production"  # it refuses NOMAD's built-in secret
    assert nomad["url"] == "http://localhost/nomad-oasis/api"
    assert nomad["oasis"] is True
    assert nomad["north"] is False


def test_commands_of_the_containers_exist_as_written(oasis: Path, nomad: dict[str, Any]) -> None:
    assert len(commands(oasis)) == 11
    assert nomad["refused"] == {}


def test_search_engine_has_the_version_that_nomad_expects(oasis: Path) -> None:
    version = yaml.safe_load((oasis / "configs" / "nomad.yaml").read_text())["elastic"]["version"]
    for name in ("compose.yaml", "helm/epitaxy-oasis/values.yaml"):
        found = re.findall(r"elasticsearch/elasticsearch:(\d+)\.", (oasis / name).read_text())
        assert found == [version], name
