"""The program that is the demo's AWS: the emulator ministack on a loopback port of its own.

Run as `python -I ministack_program.py`. It is a process of its own because the emulator is one: it sets up logging,
starts threads, and does all its work on one loop. It prints its URL once it takes connections, and ends when its
standard input does, so that it goes with the demo however that ends.

Two ways of the emulator are put right here, as the demo depends on both:
- It does not notice that a poller has gone: its poll would go on, and what it takes be away for a visibility timeout.
- At its start it looks for start scripts, removes containers and opens more ports. It is only handed requests.
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
            await _while_somebody_waits(app, scope, receive, send)

    asyncio.get_running_loop().add_reader(sys.stdin, _end_with_input)
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.loglevel = "ERROR"
    print(url, flush=True)
    await hypercorn.serve(requests, config)


async def _while_somebody_waits(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Let the application answer a request, until its client goes."""
    body: asyncio.Queue[Any] = asyncio.Queue()

    async def pass_on() -> None:
        while (message := await receive())["type"] == "http.request":
            body.put_nowait(message)
        answering.cancel()

    answering = asyncio.create_task(app(scope, body.get, send))
    passing = asyncio.create_task(pass_on())
    await asyncio.wait([answering])
    passing.cancel()
    if not answering.cancelled():
        answering.result()


def _end_with_input() -> None:
    """End at once when the input has ended: nothing here outlives the demo, and polls would hold up a gentle end."""
    if not os.read(sys.stdin.fileno(), 1024):
        os._exit(0)


if __name__ == "__main__":
    main()
