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
import nomad.cli
from nomad.cli.cli import cli
refused = {}
for words in json.loads(sys.argv[1]):
    command, rest = cli, list(words)
    try:
        while isinstance(command, click.Group):
            command = command.commands[rest.pop(0)]
        command.make_context(words[-1], rest)
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
    """Return what follows `nomad` in the Dockerfile, compose.yaml and the chart."""
    found = []
    for name in ("Dockerfile", "compose.yaml", "helm/epitaxy-oasis/templates/app.yaml"):
        for words in re.findall(r'\["nomad", (.+)\]', (oasis / name).read_text()):
            words = re.sub(r"\{\{.*?\}\}", '"2"', words)
            found.append([word.strip().strip('"') for word in words.split(",")])
    workers = (oasis / "helm/epitaxy-oasis/templates/workers.yaml").read_text()
    found += [["admin", "run", word] for word in re.findall(r'"command" "([a-z-]+)"', workers)]
    return found


def told(oasis: Path) -> list[list[str]]:
    """Return what follows `nomad` in the scripts and on the administrator's page."""
    texts = [(ROOT / "docs" / "oasis-admin.md").read_text()]
    texts += [script.read_text() for script in (oasis / "scripts").glob("*.sh")]
    lines = [
        line for text in texts for line in re.findall(r"\bnomad ((?:admin|dev) [^`\n]+)", text)
    ]
    return [line.split() for line in lines]


@pytest.fixture(scope="module")
def nomad(oasis: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what NOMAD reads out of nomad.yaml and the environment, in a process of its own."""
    pytest.importorskip("nomad")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("NOMAD_")
    }
    environment |= variables(oasis) | {"NOMAD_CONFIG": str(oasis / "configs" / "nomad.yaml")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(commands(oasis) + told(oasis))],
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


def test_commands_of_containers_scripts_and_page_exist_as_written(
    oasis: Path, nomad: dict[str, Any]
) -> None:
    assert len(commands(oasis)) == 11
    assert len(told(oasis)) > 6
    assert nomad["refused"] == {}


def test_page_names_files_and_services_that_there_are(oasis: Path) -> None:
    page = (ROOT / "docs" / "oasis-admin.md").read_text()
    named = set(re.findall(r"(?:configs|scripts|requirements|helm)/[\w./-]*\w", page))
    assert len(named) > 6
    assert [name for name in sorted(named) if not (oasis / name).exists()] == []
    services = yaml.safe_load((oasis / "compose.yaml").read_text())["services"]
    used = re.findall(r"(?:run --rm --no-deps|exec(?: -T)?|logs|--force-recreate) ([a-z_]+)", page)
    assert set(used) <= services.keys()
    table = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? ", page, re.MULTILINE)
    shown = {name for row in table for name in row if name}
    assert services.keys() - {"temporal-schema", "temporal-namespace"} <= shown


def test_search_engine_has_the_version_that_nomad_expects(oasis: Path) -> None:
    version = yaml.safe_load((oasis / "configs" / "nomad.yaml").read_text())["elastic"]["version"]
    for name in ("compose.yaml", "helm/epitaxy-oasis/values.yaml"):
        found = re.findall(r"elasticsearch/elasticsearch:(\d+)\.", (oasis / name).read_text())
        assert found == [version], name
