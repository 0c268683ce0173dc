"""Starts a real NOMAD Oasis on substitutes for the services around it, and stops all of it.

NOMAD's app, internal worker and CPU worker are nomad-lab's own programs, unchanged; so is the
Temporal server. MongoDB is emulated, Elasticsearch and the central user management are stubs and
Keycloak is left out (docs/oasis-rig.md). Everything listens on free ports of 127.0.0.1.

To look around by hand (runs until Ctrl-C; prints address, token and folder of the logs):

    .venv-oasis/bin/python tests/oasis/rig.py
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import user_stub
import yaml

HERE = Path(__file__).resolve().parent
BASE_PATH = "/nomad-oasis"
# Needs nomad-ml-workflows[cpu-action]; an action that cannot be loaded ends every worker.
EXCLUDED = ("nomad_ml_workflows.actions:export_forces",)
UPLOAD_LIMIT = 3  # small, so that a test can reach it
START_LIMIT = 300  # seconds for the app; a loaded machine took 135
# Kills the process groups whose ids come on its input as soon as that input ends, that is, also
# when the program that started them was killed.
GUARD = """
import os, signal, sys
groups = [int(line) for line in sys.stdin]
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class RigError(RuntimeError):
    """The rig did not start, or a part of it died."""


@dataclass(frozen=True)
class Programs:
    """Where the programs are: both environments are made by `make test-oasis`."""

    python: Path
    mongo_python: Path

    @classmethod
    def of_environment(cls) -> Programs:
        """Return those of the running interpreter, and MONGO_VENV for MongoDB's emulation."""
        root = HERE.parents[1]
        mongo = Path(os.environ.get("MONGO_VENV", root / ".venv-mongoeco"))
        return cls(Path(sys.executable), mongo / "bin" / "python")

    def beside(self, name: str) -> str:
        """Return the path of a program of NOMAD's environment."""
        return str(self.python.parent / name)

    def missing(self) -> str:
        """Return what is not there and how to get it, or an empty text."""
        absent = [
            path
            for path in (self.beside("nomad"), self.beside("temporal"), str(self.mongo_python))
            if not Path(path).exists()
        ]
        return f"not there: {', '.join(absent)}; run make test-oasis" if absent else ""


def free_ports(*names: str) -> dict[str, int]:
    """Return a free port for each name; all are held until each has one."""
    sockets = {name: socket.socket() for name in names}
    try:
        for held in sockets.values():
            held.bind(("127.0.0.1", 0))
        return {name: held.getsockname()[1] for name, held in sockets.items()}
    finally:
        for held in sockets.values():
            held.close()


@dataclass
class Rig:
    """One Oasis in a folder; `start` and `stop` it, or use it as a context manager."""

    programs: Programs = field(default_factory=Programs.of_environment)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="oasis-rig-")))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = free_ports("app", "temporal", "temporal_metrics", "elastic", "mongo", "users")
        self.secret = secrets.token_urlsafe(32)
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Address of the server, without a path."""
        return f"http://127.0.0.1:{self.ports['app']}"

    @property
    def url(self) -> str:
        """Address that clients use: it ends in /api, as in NOMAD's own configuration."""
        return f"{self.host}{BASE_PATH}/api"

    @property
    def logs(self) -> Path:
        """Folder with one file per process."""
        return self.folder / "logs"

    @property
    def config_file(self) -> Path:
        """The nomad.yaml of the rig."""
        return self.folder / "nomad.yaml"

    def token(self, user: dict[str, Any] = user_stub.AUTHOR, *, expires_in: float = 86400) -> str:
        """Return what NOMAD calls a simple token: signed by the server's secret, as its own are."""
        payload = {"user": user["user_id"], "exp": time.time() + expires_in}
        return jwt.encode(payload, self.secret, algorithm="HS256")

    def config(self) -> dict[str, Any]:
        """Return the content of nomad.yaml."""
        local = "127.0.0.1"
        return {
            "services": {
                "mode": "development",
                "api_host": local,
                "api_port": self.ports["app"],
                "api_base_path": BASE_PATH,
                "api_secret": self.secret,
                "upload_limit": UPLOAD_LIMIT,
                "optimade_enabled": False,
                "dcat_enabled": False,
                "h5grove_enabled": False,
                "collect_server_stats": False,
            },
            "oasis": {
                "is_oasis": True,
                "uses_central_user_management": True,
                "central_nomad_deployment_url": f"http://{local}:{self.ports['users']}/api",
            },
            "keycloak": {"server_url": f"http://{local}:9/", "realm_name": "none"},
            "temporal": {
                "host": local,
                "port": self.ports["temporal"],
                "cpu_worker": {"pool_size": 1},
            },
            "elastic": {"host": local, "port": self.ports["elastic"], "version": "9"},
            "mongo": {"host": local, "port": self.ports["mongo"], "db_name": "rig"},
            "fs": {"working_directory": str(self.folder), "local_tmp": str(self.folder / "tmp")},
            "north": {"enabled": False},
            "plugins": {"entry_points": {"exclude": list(EXCLUDED)}},
            "client": {"url": self.url},
        }

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every process of NOMAD, its clients included."""
        loopback = "127.0.0.1,localhost"
        return {
            **os.environ,
            "NOMAD_CONFIG": str(self.config_file),
            "NO_PROXY": loopback,
            "no_proxy": loopback,
            "HF_HUB_OFFLINE": "1",  # nomad-ml-workflows asks Hugging Face at import
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self) -> Rig:
        """Start everything but the CPU worker, and wait until the app is healthy.

        Raises:
            RigError: a program is missing, died or did not answer in time; with its last lines.
        """
        if missing := self.programs.missing():
            raise RigError(missing)
        self.logs.mkdir(parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        self.config_file.write_text(yaml.safe_dump(self.config()))
        began = time.monotonic()
        try:
            self._start_services()
            self.spawn(
                "appworker",
                self._nomad(
                    "appworker",
                    "--dev",
                    "--app-host",
                    "127.0.0.1",
                    "--app-port",
                    str(self.ports["app"]),
                ),
            )
            self._wait_for_health()
        except BaseException:
            self.stop()
            raise
        self.seconds["start"] = time.monotonic() - began
        return self

    def _start_services(self) -> None:
        port = {name: str(number) for name, number in self.ports.items()}
        python = str(self.programs.python)
        self.spawn(
            "temporal",
            [
                self.programs.beside("temporal"),
                "server",
                "start-dev",
                "--headless",
                "--ip",
                "127.0.0.1",
                "--port",
                port["temporal"],
                "--metrics-port",
                port["temporal_metrics"],
                "--log-level",
                "error",
            ],
        )
        self.spawn("elastic", [python, str(HERE / "elasticsearch_stub.py"), port["elastic"]])
        self.spawn("users", [python, str(HERE / "user_stub.py"), port["users"]])
        mongo = str(self.programs.mongo_python)
        self.spawn("mongo", [mongo, str(HERE / "mongo_server.py"), port["mongo"]])
        for name in ("temporal", "elastic", "users", "mongo"):
            self._wait_for_port(name)

    def start_cpu_worker(self) -> None:
        """Start the worker that runs Actions of the task queue CPU; wait until it listens."""
        if "cpu_worker" not in self.processes:
            self.spawn("cpu_worker", self._nomad("action-cpu-worker"))

    def _nomad(self, *arguments: str) -> list[str]:
        return [self.programs.beside("nomad"), "admin", "run", *arguments]

    def spawn(self, name: str, command: list[str]) -> None:
        """Start a program in a process group of its own, with a log file."""
        if self._guard is None:
            self._guard = subprocess.Popen(
                [sys.executable, "-c", GUARD], stdin=subprocess.PIPE, start_new_session=True
            )
        with (self.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{process.pid}\n".encode())
        self._guard.stdin.flush()
        self.processes[name] = process

    def _wait_for_port(self, name: str, *, limit: float = 60) -> None:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            self.check_alive()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.ports[name]), 1):
                return
            time.sleep(0.1)
        raise RigError(f"{name} did not listen within {limit} s: {self.last_lines(name)}")

    def _wait_for_health(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            self.check_alive()
            request = urllib.request.Request(f"{self.host}/-/health")
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with (
                suppress(OSError, urllib.error.URLError),
                opener.open(request, timeout=10) as reply,
            ):
                if reply.status == 200:
                    return
            time.sleep(0.5)
        raise RigError(f"no health within {START_LIMIT} s: {self.last_lines('appworker')}")

    def check_alive(self) -> None:
        """Raise RigError when a process ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RigError(
                    f"{name} ended with code {process.returncode}: {self.last_lines(name)}"
                )

    def last_lines(self, name: str, n: int = 30) -> str:
        """Return the end of a process's log."""
        text = (self.logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(["", *text.splitlines()[-n:], f"(logs: {self.logs})"])

    def _members(self) -> Iterator[tuple[str, Path]]:
        """Yield the part and the folder in /proc of each process (Linux only)."""
        names = {process.pid: name for name, process in self.processes.items()}
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError, KeyError):
                yield names[os.getpgid(int(entry.name))], entry

    def resident_memory(self) -> dict[str, float]:
        """Return the proportional memory of each part's process group, in GB (Linux only)."""
        sums = dict.fromkeys(self.processes, 0.0)
        for name, entry in self._members():
            with suppress(OSError):
                lines = (entry / "smaps_rollup").read_text().splitlines()
                kilobytes = next(line.split()[1] for line in lines if line.startswith("Pss:"))
                sums[name] += int(kilobytes) / 1e6
        return sums

    def has_loaded(self, part: str, library: str) -> bool:
        """Tell whether a process of a part has a shared library in memory (Linux only)."""
        return any(
            library in (entry / "maps").read_text()
            for name, entry in self._members()
            if name == part
        )

    def stop(self) -> None:
        """End every process group, first kindly; leave the logs."""
        for process in reversed(self.processes.values()):
            signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            signal_group(process.pid, signal.SIGKILL)  # children outlive the parent of appworker
            process.wait()
        self.processes.clear()
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def remove(self) -> None:
        """Delete the folder: configuration, uploads and logs."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Rig:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group that may be gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def main() -> None:
    """Run the rig until Ctrl-C."""
    with Rig() as rig:
        facts = {
            "url": rig.url,
            "token": rig.token(),
            "logs": str(rig.logs),
            "start_seconds": round(rig.seconds["start"], 1),
        }
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main()
