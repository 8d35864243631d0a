"""What the daemon knows of one function, and the environment that its workers get.

The variables are those of the AWS Lambda developer guide ("Working with Lambda environment variables"), except what has
no meaning outside AWS: there is no runtime API to call and no runtime directory.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

VERSION: Final = "$LATEST"
_ACCOUNT: Final = "000000000000"
#: Levels in AWS's words, which libraries read.
_LEVELS: Final = {"debug": "DEBUG", "info": "INFO", "warning": "WARN", "error": "ERROR"}
_INHERITED: Final = ("PATH", "HOME", "LANG", "TZ")


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One function, as configured."""

    name: str
    #: `module.attribute`; folders by dots or slashes.
    handler: str
    #: Folder or .zip archive.
    code: Path
    #: The user's interpreter: a path, or a name looked up on PATH; None = ours.
    python: str | None = None
    timeout_s: float = 3.0
    memory_bytes: int = 128 * 1024 * 1024
    #: Workers at most.
    concurrency: int = 1
    #: Invocations of one worker at once, at most; beyond 1 the handler must be `async def`.
    concurrency_per_worker: int = 1
    #: The function's own variables, secrets included: never shown or logged.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Variables that tell AWS libraries where to go and who they are (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...).
    aws: Mapping[str, str] = field(default_factory=dict, repr=False)
    region: str = "us-east-1"
    #: Is the output of handlers kept?
    logs: bool = True
    #: Least level of the handler's own log: debug, info, warning or error; None = as the handler sets it.
    log_level: str | None = None
    #: Are workers forked from a process that has loaded the function?
    snap_start: bool = False

    @property
    def arn(self) -> str:
        return f"arn:aws:lambda:{self.region}:{_ACCOUNT}:function:{self.name}"

    @property
    def memory_mb(self) -> int:
        return self.memory_bytes // (1024 * 1024)

    def interpreter(self) -> str:
        """Give the interpreter to start; it need not exist."""
        if self.python is None:
            return sys.executable
        return shutil.which(self.python) or self.python

    def variables(self, root: Path) -> dict[str, str]:
        """Give the whole environment of a new worker whose code lies in `root`; each has its own log stream."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        level = {} if self.log_level is None else {"AWS_LAMBDA_LOG_LEVEL": _LEVELS[self.log_level]}
        return {
            **inherited,
            **self.aws,
            **self.environment,
            **level,
            "_HANDLER": self.handler,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": VERSION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start" if self.snap_start else "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": log_stream(),
            "LAMBDA_TASK_ROOT": str(root),
        }


def log_stream() -> str:
    """Name the log stream of a new worker."""
    return time.strftime(f"%Y/%m/%d/[{VERSION}]", time.gmtime()) + secrets.token_hex(16)
