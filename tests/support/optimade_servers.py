"""Starts real OPTIMADE servers (optimade-python-tools on mongomock) on free ports of this machine.

Run as a program: ``python optimade_servers.py FOLDER FD``; FOLDER/servers.json is a list of
``{"prefix": ..., "jsonl": ..., "fields": [...], "page_limit": ...}``. When all servers answer,
their ports are written to the file descriptor FD; they run until the process is ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import warnings
from pathlib import Path


async def serve(folder: Path, descriptor: int) -> None:
    """Serve until cancelled."""
    import uvicorn
    from optimade.server.config import ServerConfig
    from optimade.server.create_app import create_app

    specs = json.loads((folder / "servers.json").read_text())
    servers, ports = [], []
    for number, spec in enumerate(specs):
        config = ServerConfig(
            insert_test_data=False,
            insert_from_jsonl=Path(spec["jsonl"]),
            mongo_database=f"test_{number}",
            log_dir=folder,
            log_level="error",
            page_limit_max=spec.get("page_limit", 50),
            provider={
                "prefix": spec["prefix"],
                "name": f"Tests of {spec['prefix']}",
                "description": "Structures of epitaxy, served for its tests.",
            },
            provider_fields={"structures": spec["fields"]},
        )
        app = create_app(config, logger_tag=spec["prefix"])
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        ports.append(sock.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        servers.append((server, asyncio.create_task(server.serve(sockets=[sock]))))
    while not all(server.started for server, _ in servers):
        await asyncio.sleep(0.02)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(json.dumps(ports))
    await asyncio.gather(*(task for _, task in servers))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
