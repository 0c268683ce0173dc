"""The rig itself: a real NOMAD server answers, and nothing outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest


def test_nomad_is_the_real_one_and_has_our_plugin(oasis, service):
    deployment = service.deployment()
    assert deployment.version.startswith("2.0")
    assert deployment.is_oasis
    assert deployment.knows_epitaxy


def test_nomad_finds_a_mongodb(oasis, service):
    assert "MongoDB connection failed" not in (oasis.logs / "appworker.log").read_text()


def test_token_of_the_rig_is_of_the_author(service):
    assert service.whoami().name == "Ada Author"


def test_tokens_cannot_make_tokens(oasis):
    reply = httpx.get(
        f"{oasis.url}/v1/auth/app_token",
        params={"expires_in": 60},
        headers={"Authorization": f"Bearer {oasis.token()}"},
        trust_env=False,
    )
    assert reply.status_code == 403


def test_a_killed_rig_leaves_no_process(tmp_path):
    # A rig of one sleeping part instead of NOMAD: how parts end does not depend on what they are.
    part = "import time; print('up', flush=True); time.sleep(600)"
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from rig import Rig
rig = Rig(folder=Path({str(tmp_path)!r}))
rig.logs.mkdir()
rig.spawn("part", [sys.executable, "-c", {part!r}])
print(rig.processes["part"].pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        group = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("a part of the rig is still there 10 s after its owner was killed")
