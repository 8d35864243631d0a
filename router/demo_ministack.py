"""The program that is the demo's AWS: the emulator ministack on a loopback port of its own.

Run as `python -I demo_ministack.py`. It is a process of its own because the emulator is one: it sets up logging,
starts threads, and does all its work on one loop. It prints its URL once it takes connections, and ends when its
standard input does, so that it goes with the demo however that ends.

Two ways of the emulator that the demo has to do with:
- It does not notice that a poller has gone: the poll goes on until its time is up, and what it takes then is back after
  the visibility timeout. So the demo sends nothing once it has stopped the service.
- At its own start it looks for start scripts, removes containers and opens more ports. It is only handed requests.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any, Final

HOST: Final = "127.0.0.1"
#: Longer than clients keep connections, so that none is closed under a request.
KEEP_ALIVE_S: Final = 120.0


def main() -> None:
    with socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]
        # Read by the emulator when it is imported.
        os.environ.update(GATEWAY_PORT=str(port), MINISTACK_HOST=HOST, LOG_LEVEL="ERROR")
        asyncio.run(serve(listening.fileno(), f"http://{HOST}:{port}"))


async def serve(descriptor: int, url: str) -> None:
    """Answer on a listening socket until standard input ends."""
    from hypercorn import asyncio as hypercorn  # noqa: PLC0415 - see main
    from hypercorn.config import Config  # noqa: PLC0415
    from ministack.app import app  # noqa: PLC0415

    async def requests(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)

    asyncio.get_running_loop().add_reader(sys.stdin, _end_with_input)
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.loglevel = "ERROR"
    print(url, flush=True)
    await hypercorn.serve(requests, config)


def _end_with_input() -> None:
    """End at once when the input has ended: nothing here outlives the demo, and polls would hold up a gentle end."""
    if not os.read(sys.stdin.fileno(), 1024):
        os._exit(0)


if __name__ == "__main__":
    main()
