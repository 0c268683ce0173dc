"""The compose files of the Oasis, their scripts and the proxy's configuration."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_program import Program

SECRETS = ("NOMAD_SERVICES_API_SECRET", "MONGO_PASSWORD", "ELASTIC_PASSWORD", "POSTGRES_PASSWORD")
GIVEN = dict.fromkeys(SECRETS, "0123456789abcdef" * 4)
ENDS = {"temporal-schema", "temporal-namespace"}
"""Services that do their work and end."""


@pytest.fixture
def copy(oasis: Path, tmp_path: Path) -> Path:
    """Return a copy of deploy/oasis without what an administrator added."""
    hidden = shutil.ignore_patterns(".env", "tls", "backups")
    return shutil.copytree(oasis, tmp_path / "oasis", symlinks=True, ignore=hidden)


@pytest.fixture
def services(oasis: Path, program: Program) -> dict[str, Any]:
    """Return all services as compose understands them."""
    found: dict[str, Any] = composed(oasis, program)["services"]
    return found


def composed(oasis: Path, program: Program, *files: str, **variables: str) -> dict[str, Any]:
    """Return what compose makes of its files."""
    named = [part for name in ("compose.yaml", *files) for part in ("-f", oasis / name)]
    empty = ("--env-file", "/dev/null")
    everything = ("--profile", "gpu", "config", "--format", "json")
    done = program("docker-compose", *empty, *named, *everything, ok=True, **GIVEN, **variables)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_stops_and_says_what_to_do_without_a_secret(
    oasis: Path, program: Program, missing: str
) -> None:
    others = {name: value for name, value in GIVEN.items() if name != missing}
    arguments = ("--env-file", "/dev/null", "-f", oasis / "compose.yaml", "config")
    done = program("docker-compose", *arguments, ok=False, **others)
    assert done.returncode != 0
    assert f"{missing} is missing a value" in done.stderr
    assert "run scripts/make-env.sh" in done.stderr


def test_no_file_holds_a_secret(services: dict[str, Any], oasis: Path) -> None:
    for name, service in services.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"SECRET|PASSWORD|PWD", variable):
                assert value in ("", *GIVEN.values()), f"{name}: {variable}"
    example = (oasis / ".env.example").read_text()
    assert all(re.search(rf"^{name}=$", example, re.MULTILINE) for name in SECRETS)


def test_example_environment_has_every_variable_of_compose(oasis: Path) -> None:
    used = re.findall(
        r"\$\{([A-Z_]+)",
        (oasis / "compose.yaml").read_text() + (oasis / "compose.tls.yaml").read_text(),
    )
    shown = re.findall(r"^([A-Z_]+)=", (oasis / ".env.example").read_text(), re.MULTILINE)
    assert set(used) == set(shown)


def test_every_service_survives_and_is_watched(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name in ENDS:
            assert service["restart"].startswith("on-failure"), name
        else:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"], name
            assert int(service["deploy"]["resources"]["limits"]["memory"]) > 0, name
        assert service["logging"]["options"]["max-size"], name


def test_every_service_has_few_rights(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name


def test_only_the_proxy_is_reachable_and_only_from_this_machine(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports.keys() == {"proxy"}
    assert [port["host_ip"] for port in ports["proxy"]] == ["127.0.0.1"]


def test_databases_have_no_way_out(oasis: Path, program: Program) -> None:
    found = composed(oasis, program)
    assert found["networks"]["back"]["internal"] is True
    for name in ("mongo", "elastic", "postgres", "temporal", *ENDS):
        assert found["services"][name]["networks"].keys() == {"back"}, name


def test_torch_images_run_only_action_workers(services: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in services.items()}
    assert images["app"] == images["worker"] == "epitaxy-oasis:0.1.0"
    assert images["cpu_worker"] == "epitaxy-oasis-cpu-action:0.1.0"
    assert images["gpu_worker"] == "epitaxy-oasis-gpu-action:0.1.0"
    targets = {name: s["build"]["target"] for name, s in services.items() if "build" in s}
    assert targets == {"app": "app", "cpu_worker": "cpu-action", "gpu_worker": "gpu-action"}


def test_gpu_worker_asks_for_a_gpu_and_only_when_wanted(services: dict[str, Any]) -> None:
    gpu = services["gpu_worker"]
    assert gpu["profiles"] == ["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]


def test_everything_that_is_mounted_is_there(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    bound = [Path(mount["source"]) for mount in mounts if mount["type"] == "bind"]
    assert len(bound) > 8
    assert [path for path in bound if not path.is_file()] == []
    assert all(mount["read_only"] for mount in mounts if mount["type"] == "bind")


def test_images_are_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.search(r":v?\d+(\.\d+)*(-alpine)?$", service["image"]), name


def test_https_listens_on_both_ports_with_the_certificate(oasis: Path, program: Program) -> None:
    found = composed(oasis, program, "compose.tls.yaml", OASIS_BIND="0.0.0.0")
    proxy = found["services"]["proxy"]
    assert {port["published"]: port["target"] for port in proxy["ports"]} == {
        "80": 8080,
        "443": 8443,
    }
    server = {mount["target"]: Path(mount["source"]).name for mount in proxy["volumes"]}
    assert server["/etc/nginx/oasis/server.conf"] == "https.conf"
    assert "/etc/nginx/tls" in server


def test_new_environment_has_new_secrets_that_only_its_owner_reads(
    copy: Path, program: Program
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    script = copy / "scripts" / "make-env.sh"
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    made = copy / ".env"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    values = dict(
        line.split("=", 1)
        for line in made.read_text().splitlines()
        if "=" in line and line[0] != "#"
    )
    secrets = [values[name] for name in SECRETS]
    assert len(set(secrets)) == len(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{64}", secret) for secret in secrets)
    before = made.read_bytes()
    again = subprocess.run(["sh", str(script)], check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "stays as it is" in again.stderr
    assert made.read_bytes() == before
    program("docker-compose", "--project-directory", copy, "config", "--quiet")


def test_scripts_are_clean_shell(oasis: Path, program: Program) -> None:
    scripts = sorted((oasis / "scripts").glob("*.sh"))
    assert len(scripts) == 4
    program("shellcheck", *scripts)
    assert all(script.stat().st_mode & stat.S_IXUSR for script in scripts)


def test_yaml_files_are_tidy(oasis: Path, program: Program) -> None:
    files = [*oasis.glob("*.yaml"), *oasis.glob("configs/*.yaml"), *oasis.glob("helm/*/*.yaml")]
    assert len(files) == 6
    rules = (
        "{extends: default, rules: {line-length: {max: 150}, document-start: disable, "
        "comments: {min-spaces-from-content: 1}}}"
    )
    program("yamllint", "--strict", "-d", rules, *files)


@pytest.mark.parametrize("server", ["http.conf", "https.conf"])
def test_nginx_accepts_the_configuration_of_the_proxy(
    oasis: Path, tmp_path: Path, server: str
) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    place = proxy_files(oasis, tmp_path, server, app="127.0.0.1:8000")
    if server == "https.conf":
        make = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=x",
        ]
        tls = place / "tls"
        tls.mkdir()
        keys = ["-keyout", str(tls / "privkey.pem"), "-out", str(tls / "fullchain.pem")]
        subprocess.run([*make, *keys], check=True, capture_output=True)
    done = subprocess.run(
        [nginx, "-t", "-c", str(place / "nginx.conf")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


def proxy_files(oasis: Path, place: Path, server: str, *, app: str) -> Path:
    """Write the proxy's configuration with paths of a test and this address of the app."""
    for name, target in (
        ("nginx.conf", "nginx.conf"),
        ("locations.conf", "oasis/locations.conf"),
        (server, "oasis/server.conf"),
    ):
        text = (oasis / "configs" / "nginx" / name).read_text()
        text = text.replace("/etc/nginx/oasis", f"{place}/oasis").replace(
            "/etc/nginx/tls", f"{place}/tls"
        )
        text = text.replace("server app:8000", f"server {app}")
        (place / target).parent.mkdir(exist_ok=True)
        (place / target).write_text(text)
    return place


def test_proxy_answers_under_the_base_path_of_nomad(oasis: Path) -> None:
    base = yaml.safe_load((oasis / "configs" / "nomad.yaml").read_text())["services"][
        "api_base_path"
    ]
    locations = (oasis / "configs" / "nginx" / "locations.conf").read_text()
    assert set(re.findall(r"/nomad-[a-z]+", locations)) == {base}
