"""Serves mongoeco's in-memory emulation of MongoDB over MongoDB's wire protocol.

Runs in its own environment, because mongoeco needs Python 3.13 and NOMAD needs older ones.

    python mongo_server.py PORT
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Any

from mongoeco.engines.memory import MemoryEngine
from mongoeco.wire import proxy
from mongoeco.wire.protocol import OpMsgRequest, decode_op_msg

OLD_NAMES = {"buildinfo": "buildInfo"}
"""MongoDB takes both; mongoeco 4.11.0 only the second. NOMAD asks in the first way whether there
is a MongoDB at all, and collects no references between entries if the answer is an error."""


def decode(*args: Any, **options: Any) -> OpMsgRequest:
    """Return a command, by the name that mongoeco knows."""
    request = decode_op_msg(*args, **options)
    body = {OLD_NAMES.get(name, name): value for name, value in request.body.items()}
    return replace(request, body=body)


async def serve(port: int) -> None:
    """Serve until the process ends."""
    proxy.decode_op_msg = decode
    engine = MemoryEngine()
    async with proxy.AsyncMongoEcoProxyServer(engine=engine, host="127.0.0.1", port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
