"""Our plugin inside a real NOMAD: the action that predicts, the app, the example upload."""

import io
import json
import subprocess
import sys
import time
import zipfile

import httpx
import numpy as np
import pytest
from nomad_service import EV, run_archive, strained

from epitaxy.artifact import load_artifact
from epitaxy.dataset import Dataset
from epitaxy.spectra import OLD_GRID, Grid, fingerprints
from epitaxy_nomad.oasis.fingerprint_text import heights_of
from epitaxy_nomad.publisher import NomadPublisher

PREDICT = "epitaxy_nomad.oasis.entry_points:predict_action"
EXAMPLE = "epitaxy_nomad.oasis.entry_points:example_upload"
ENDED = {"COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT"}
DEADLINE = 240  # seconds; the worker imports NOMAD and torch first
# Prints the search quantities of the app; a process of its own, because NOMAD warns at import.
QUANTITIES = """
import json
from epitaxy_nomad.oasis.app import build_app
app = build_app()
widgets = app.dashboard.widgets
print(json.dumps({
    "columns": [column.search_quantity for column in app.columns],
    "widgets": [w.search_quantity for w in widgets if getattr(w, "search_quantity", None)],
    "axes": [w.x.search_quantity for w in widgets if getattr(w, "x", None)],
    "locked": app.filters_locked,
}))
"""


@pytest.fixture
def act(oasis, asked):
    """Return a function that runs our action; it returns the last status, result and log."""
    oasis.start_cpu_worker()

    def call(**data) -> tuple[str, dict, str]:
        started = asked.post(f"actions/{PREDICT}/start", json={"data": {"user_id": "", **data}})
        assert started.status_code == 200, started.text
        instance = started.json()["action_instance_id"]
        end = time.monotonic() + DEADLINE
        status = ""
        while status not in ENDED and time.monotonic() < end:
            oasis.check_alive()
            time.sleep(0.5)
            status = asked.get(f"actions/{instance}/status").json()["status"]
        result = asked.get(f"actions/{instance}/result") if status == "COMPLETED" else None
        about = asked.get(f"actions/{instance}/logs").text
        return status, {} if result is None else result.json(), about

    return call


@pytest.fixture
def model(author, trained, copy) -> tuple[str, str]:
    """Upload and folder of the trained ensemble."""
    publisher = NomadPublisher(url=f"{author.url}/v1", requests_per_second=50)
    receipt = publisher.publish(copy(trained / "run" / "artifact"))
    return receipt.identifier, receipt.facts["folder"]


def test_action_predicts_on_the_entries_of_an_upload(
    act, model, calculations, service, asked, trained
):
    upload_id, frames = calculations
    model_upload, folder = model
    status, result, about = act(
        upload_id=upload_id, model=folder, model_upload_id=model_upload, name="mine"
    )
    assert status == "COMPLETED", about
    assert result["n_structures"] == 6  # of copper and aluminium
    assert result["n_skipped"] == 1  # nickel is unknown to the model
    assert "the model does not know Ni" in result["reasons"]
    assert result["has_uncertainty"]

    assert service.wait(upload_id, deadline=120).status == "SUCCESS"
    entries = {entry.entry_id: entry for entry in service.entries(upload_id)}
    written = entries[result["entry_id"]]
    assert (written.mainfile, written.status) == ("predictions/mine.archive.json", "SUCCESS")
    assert written.errors == ()
    reply = asked.post(f"entries/{written.entry_id}/archive/query", json={"required": "*"})
    archive = reply.json()["data"]["archive"]
    predictions = archive["data"]
    assert predictions["n_structures"] == 6
    # NOMAD has understood what the predictions refer to: the model and the structures.
    targets = {found.get("target_entry_id") for found in archive["metadata"]["entry_references"]}
    assert set(predictions["entry_ids"]) <= targets
    assert any(
        f"{model_upload}" == e.get("target_upload_id")
        for e in archive["metadata"]["entry_references"]
    )

    # What the same model says here about the same structures.
    ids = predictions["entry_ids"]
    structures = Dataset.from_entries([frames[id][-1] for id in ids])
    expected = load_artifact(trained / "run" / "artifact").model.predict(structures)
    found = {target["name"]: target for target in predictions["targets"]}
    assert sorted(found) == ["energy", "forces", "stress"]
    np.testing.assert_allclose(found["energy"]["values"], expected.mean["energy"], rtol=1e-5)
    np.testing.assert_allclose(found["energy"]["std"], expected.std["energy"], rtol=1e-3)
    np.testing.assert_allclose(
        found["forces"]["components"], expected.mean["forces"], rtol=1e-3, atol=1e-5
    )


def test_action_that_cannot_be_done_says_why(act, calculations):
    upload_id, _ = calculations
    status, _, about = act(upload_id=upload_id, model="no-such-folder")
    assert status == "FAILED"
    assert "neither the entry of a trained model nor the folder of one" in about


def test_action_needs_a_token(oasis):
    reply = httpx.post(
        f"{oasis.url}/v1/actions/{PREDICT}/start", json={"data": {}}, trust_env=False
    )
    assert reply.status_code == 401


def test_all_quantities_of_the_app_can_be_searched(oasis, asked, model):
    printed = subprocess.run(
        [sys.executable, "-c", QUANTITIES],
        env=oasis.environment,
        capture_output=True,
        check=True,
        text=True,
    )
    named = json.loads(printed.stdout.splitlines()[-1])
    query = {f"{name}:all": values for name, values in named["locked"].items()}
    for name in named["columns"]:
        pagination = {"page_size": 1, "order_by": name}
        reply = asked.post(
            "entries/query", json={"owner": "user", "query": query, "pagination": pagination}
        )
        is_many = reply.status_code == 422 and "must be a scalar" in reply.text
        assert reply.status_code == 200 or is_many, f"{name}: {reply.text}"
    for kind, names in (("terms", named["widgets"]), ("min_max", named["axes"])):
        for name in names:
            reply = asked.post(
                "entries/query",
                json={
                    "owner": "user",
                    "query": query,
                    "aggregations": {"found": {kind: {"quantity": name}}},
                },
            )
            assert reply.status_code == 200, f"{name}: {reply.text}"


def test_density_of_states_gets_its_fingerprint(service, asked):
    energies = np.linspace(-12.0, 8.0, 401)  # eV; a gap from -0.5 to 0.5 eV around 0
    dos = np.where(np.abs(energies) > 0.5, 1.0 + np.cos(energies) ** 2, 0.0)
    section = {
        "energies": (energies * EV).tolist(),
        "energy_fermi": 0.0,
        "total": [{"value": (dos / EV).tolist()}],
    }
    archive = run_archive("", strained("Cu", 1), dos=[section])
    calculation = archive["run"][0]["calculation"][-1]
    calculation["energy"] |= {
        "fermi": 0.0,
        "highest_occupied": -0.5 * EV,
        "lowest_unoccupied": 0.5 * EV,
    }
    del archive["metadata"]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("dos.archive.json", json.dumps(archive))
    upload = service.upload([stream.getvalue()], name="density of states")
    assert service.wait(upload, deadline=120).status == "SUCCESS"
    (entry,) = service.entries(upload)
    assert (entry.errors, entry.warnings) == ((), ())
    reply = asked.post(f"entries/{entry.entry_id}/archive/query", json={"required": "*"})
    (run,) = reply.json()["data"]["archive"]["run"]
    found = run["calculation"][-1]["dos_electronic"][0]["fingerprint"]
    expected = fingerprints(energies + 0.5, dos, grid=OLD_GRID)[0]
    assert Grid.parse(found["grid_id"]) == OLD_GRID
    assert (heights_of(found["bins"], found["indices"], OLD_GRID) == expected).all()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_torch_is_loaded_by_the_action_worker_only(oasis, act, model, calculations):
    upload_id, _ = calculations
    model_upload, folder = model
    act(upload_id=upload_id, model=folder, model_upload_id=model_upload)
    assert oasis.has_loaded("cpu_worker", "libtorch")
    assert not oasis.has_loaded("appworker", "libtorch")


def test_example_upload_is_processed_without_errors(service, asked):
    reply = asked.post("uploads", params={"example_upload_id": EXAMPLE})
    assert reply.status_code == 200, reply.text
    upload = service.wait(reply.json()["upload_id"], deadline=180)
    assert upload.status == "SUCCESS"
    entries = list(service.entries(upload.upload_id))
    assert entries
    assert [(e.mainfile, e.errors) for e in entries if e.errors] == []
    assert {entry.status for entry in entries} == {"SUCCESS"}
