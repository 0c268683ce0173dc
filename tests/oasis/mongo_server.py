"""Serves mongoeco's in-memory emulation of MongoDB over MongoDB's wire protocol.

Runs in its own environment, because mongoeco needs Python 3.13 and NOMAD needs older ones.

    python mongo_server.py PORT
"""

from __future__ import annotations

import asyncio
import sys

from mongoeco.engines.memory import MemoryEngine
from mongoeco.wire.proxy import AsyncMongoEcoProxyServer


async def serve(port: int) -> None:
    """Serve until the process ends."""
    async with AsyncMongoEcoProxyServer(engine=MemoryEngine(), host="127.0.0.1", port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
