"""Run ministack in this process, listening on the loopback address only. Runs in its own environment."""

import asyncio
import os

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack.app import app

config = Config()
config.bind = [f"{os.environ['MINISTACK_HOST']}:{os.environ['GATEWAY_PORT']}"]
asyncio.run(serve(app, config))
