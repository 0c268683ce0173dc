"""The Helm chart of the Oasis: rendered, validated and consistent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_program import Program

SECRET = ("--set", "existingSecret=oasis-secrets")
KEYS = {
    "api-secret",
    "mongo-password",
    "elastic-password",
    "postgres-password",
    "keycloak-password",
}

VARIANTS: dict[str, list[str]] = {
    "as it comes": [],
    "with a GPU": ["gpuWorker.replicas=1", "gpuWorker.nodeSelector.gpu=yes"],
    "own databases": [
        "mongo.host=mongo.example.org",
        "elastic.host=elastic.example.org",
        "temporal.host=temporal.example.org",
    ],
    "one node": [
        "files.accessMode=ReadWriteOnce",
        "files.storageClass=local",
        "ingress.enabled=false",
        "cpuWorker.replicas=0",
    ],
    "own volume and registry": [
        "files.existingClaim=uploads",
        "image.pullSecrets[0].name=registry",
        "ingress.tlsSecret=tls",
        "ingress.className=nginx",
    ],
}


def render(oasis: Path, program: Program, *values: str) -> list[dict[str, Any]]:
    """Return the objects that Helm makes with these values."""
    chosen = [part for value in values for part in ("--set", value)]
    chart = oasis / "helm" / "epitaxy-oasis"
    done = program("helm", "template", "test", chart, *SECRET, *chosen)
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the pod templates by component."""
    return {
        found["metadata"]["labels"]["app.kubernetes.io/component"]: found["spec"]["template"]
        for found in objects
        if found["kind"] in ("Deployment", "StatefulSet")
    }


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def test_helm_finds_no_fault(oasis: Path, program: Program) -> None:
    program("helm", "lint", "--strict", oasis / "helm" / "epitaxy-oasis", *SECRET)


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_kubernetes_knows_every_field(
    oasis: Path, program: Program, tmp_path: Path, version: str
) -> None:
    objects = [found for values in VARIANTS.values() for found in render(oasis, program, *values)]
    assert len(objects) > 80
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(yaml.safe_dump_all(objects))
    program("kubernetes-validate", "--strict", "--kubernetes-version", version, manifest)


def test_chart_stops_without_a_secret(oasis: Path, program: Program) -> None:
    done = program("helm", "template", "test", oasis / "helm" / "epitaxy-oasis", ok=False)
    assert done.returncode != 0
    assert "existingSecret is empty: make a Secret with the keys" in done.stderr


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("host=https://example.org", "does not match pattern"),
        ("image.tga=1", "additional properties 'tga' not allowed"),
        ("worker.replicas=-1", "want 0"),
        ("nomadConfig.services.api_secret=abc", "/nomadConfig"),
    ],
)
def test_chart_refuses_wrong_values(oasis: Path, program: Program, value: str, said: str) -> None:
    chart = oasis / "helm" / "epitaxy-oasis"
    done = program("helm", "template", "test", chart, *SECRET, "--set", value, ok=False)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_objects_refer_to_exists(oasis: Path, program: Program, variant: str) -> None:
    objects = render(oasis, program, *VARIANTS[variant])
    names = {(found["kind"], found["metadata"]["name"]) for found in objects}
    maps = {f["metadata"]["name"]: f["data"].keys() for f in objects if f["kind"] == "ConfigMap"}
    for pod in pods(objects).values():
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim == "uploads" or ("PersistentVolumeClaim", claim) in names
        for container in containers(pod):
            for mount in container.get("volumeMounts", []):
                assert mount["name"] == "data" or mount["name"] in volumes
                if "subPath" in mount:
                    assert mount["subPath"] in maps[volumes[mount["name"]]["configMap"]["name"]]
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                assert reference is None or reference["key"] in KEYS
                assert reference is None or reference["name"] == "oasis-secrets"
    services = {f["metadata"]["name"]: f for f in objects if f["kind"] == "Service"}
    for service in services.values():
        wanted = service["spec"]["selector"].items()
        chosen = [p for p in pods(objects).values() if wanted <= p["metadata"]["labels"].items()]
        assert len(chosen) == 1
        ports = {port["name"] for c in containers(chosen[0]) for port in c.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for found in objects:
        if found["kind"] == "Ingress":
            (rule,) = found["spec"]["rules"]
            backend = rule["http"]["paths"][0]["backend"]["service"]["name"]
            assert backend in services


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_run_without_root_within_limits(oasis: Path, program: Program, variant: str) -> None:
    for name, pod in pods(render(oasis, program, *VARIANTS[variant])).items():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True, name
        assert pod["spec"]["enableServiceLinks"] is False, name
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        for container in containers(pod):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["resources"]["limits"]["memory"], name
            assert ":" in container["image"], name
        for container in pod["spec"]["containers"]:
            assert "livenessProbe" in container, name


def test_elasticsearch_may_write_its_keystore(oasis: Path, program: Program) -> None:
    security = pods(render(oasis, program))["elastic"]["spec"]["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (1000, 0)  # as in its image


def test_containers_reach_the_services_that_there_are(oasis: Path, program: Program) -> None:
    objects = render(oasis, program)
    services = {found["metadata"]["name"] for found in objects if found["kind"] == "Service"}
    app = pods(objects)["app"]["spec"]["containers"][0]
    hosts = {v["value"] for v in app["env"] if v["name"].endswith("_HOST")} - {"localhost"}
    assert hosts == {
        "test-epitaxy-oasis-mongo",
        "test-epitaxy-oasis-elastic",
        "test-epitaxy-oasis-temporal",
    }
    assert hosts <= services


def test_own_databases_are_used_and_none_is_run(oasis: Path, program: Program) -> None:
    objects = render(oasis, program, *VARIANTS["own databases"])
    assert [found["metadata"]["name"] for found in objects if found["kind"] == "StatefulSet"] == []
    app = pods(objects)["app"]["spec"]["containers"][0]
    hosts = {v["name"]: v.get("value") for v in app["env"]}
    assert hosts["NOMAD_MONGO_HOST"] == "mongo.example.org"
    assert hosts["NOMAD_TEMPORAL_HOST"] == "temporal.example.org"


def test_gpu_worker_asks_for_a_gpu(oasis: Path, program: Program) -> None:
    pod = pods(render(oasis, program, *VARIANTS["with a GPU"]))["gpu-worker"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["image"] == "epitaxy-oasis-gpu-action:0.1.0"
    assert pod["spec"]["nodeSelector"] == {"gpu": "yes"}


def test_cluster_gets_the_same_settings_as_compose(oasis: Path, program: Program) -> None:
    objects = render(oasis, program)
    maps = {f["metadata"]["name"]: f["data"] for f in objects if f["kind"] == "ConfigMap"}
    configs = oasis / "configs"
    nomad = yaml.safe_load(maps["test-epitaxy-oasis-nomad"]["nomad.yaml"])
    assert nomad == yaml.safe_load((configs / "nomad.yaml").read_text())
    proxy = maps["test-epitaxy-oasis-proxy"]
    nginx = (configs / "nginx" / "nginx.conf").read_text()
    nginx = nginx.replace("server app:8000;", "server test-epitaxy-oasis-app:8000;")
    assert proxy["nginx.conf"].strip() == nginx.strip()
    assert (
        proxy["locations.conf"].strip()
        == (configs / "nginx" / "locations.conf").read_text().strip()
    )
    setup = maps["test-epitaxy-oasis-temporal"]["temporal-setup.sh"]
    assert setup.strip() == (oasis / "scripts" / "temporal-setup.sh").read_text().strip()


def test_settings_of_an_administrator_go_over_ours(oasis: Path, program: Program) -> None:
    chosen = (
        "nomadConfig.services.upload_limit=3",
        "nomadConfig.oasis.uses_central_user_management=false",
    )
    objects = render(oasis, program, *chosen)
    (text,) = [
        f["data"]["nomad.yaml"]
        for f in objects
        if f["kind"] == "ConfigMap" and "nomad.yaml" in f["data"]
    ]
    nomad = yaml.safe_load(text)
    assert nomad["services"] == {"api_base_path": "/nomad-oasis", "upload_limit": 3}
    assert nomad["oasis"] == {"is_oasis": True, "uses_central_user_management": False}


def test_cluster_runs_the_images_of_compose(oasis: Path) -> None:
    values = yaml.safe_load((oasis / "helm" / "epitaxy-oasis" / "values.yaml").read_text())
    services = yaml.safe_load((oasis / "compose.yaml").read_text())["services"]
    for name in ("proxy", "mongo", "elastic", "postgres", "temporal"):
        assert values[name]["image"] == services[name]["image"], name
    assert values["temporal"]["toolsImage"] == services["temporal-schema"]["image"]
