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

from router.core.model import partition_of

LATEST: Final = "$LATEST"
NO_ACCOUNT: Final = "000000000000"
#: Levels in AWS's words, which libraries read.
_LEVELS: Final = {"debug": "DEBUG", "info": "INFO", "warning": "WARN", "error": "ERROR"}
#: What workers get of the daemon's environment, and where it lacks that. The time zone is that of AWS Lambda; a locale
#: must be there, and its is not everywhere.
_INHERITED: Final = {"PATH": os.defpath, "HOME": None, "LANG": "C.UTF-8", "TZ": ":UTC"}


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
    #: Log group that handlers are told of; None = it goes by the function's name.
    log_group: str | None = None
    #: Are lines of the handler's own log objects of JSON, as those around them?
    json_logs: bool = False
    #: LATEST, or the number of a published version.
    version: str = LATEST
    account_id: str = NO_ACCOUNT
    #: In AWS's words ("python3.12"), as it is told to handlers; None = what the interpreter is.
    runtime: str | None = None

    @property
    def arn(self) -> str:
        """The ARN under which it is invoked where nothing else is told."""
        arn = f"arn:{partition_of(self.region)}:lambda:{self.region}:{self.account_id}:function:{self.name}"
        return arn if self.version == LATEST else f"{arn}:{self.version}"

    @property
    def memory_mb(self) -> int:
        return self.memory_bytes // (1024 * 1024)

    def interpreter(self) -> str:
        """Give the interpreter to start; it need not exist."""
        if self.python is None:
            return sys.executable
        return shutil.which(self.python) or self.python

    def variables(self, root: Path, *, stream: str, scratch: Path) -> dict[str, str]:
        """Give the whole environment of a new worker.

        Args:
            root: folder that holds the code.
            stream: name of the worker's log stream.
            scratch: folder of the worker's own.
        """
        inherited = {name: os.environ.get(name, default) for name, default in _INHERITED.items()}
        runtime = {} if self.runtime is None else {"AWS_EXECUTION_ENV": f"AWS_Lambda_{self.runtime}"}
        return {
            **{name: value for name, value in inherited.items() if value is not None},
            "TMPDIR": str(scratch),
            **self.aws,
            **self.environment,
            **self._log_variables,
            **runtime,
            "_HANDLER": self.handler,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": self.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start" if self.snap_start else "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": self.group,
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            "LAMBDA_TASK_ROOT": str(root),
        }

    @property
    def group(self) -> str:
        """The log group, wherever logs are kept."""
        return self.log_group or f"/aws/lambda/{self.name}"

    @property
    def _log_variables(self) -> dict[str, str]:
        """What the runtime is told of the handler's log; of JSON, AWS always says the least level."""
        level = self.log_level or ("info" if self.json_logs else None)
        form = {"AWS_LAMBDA_LOG_FORMAT": "JSON"} if self.json_logs else {}
        return form if level is None else {**form, "AWS_LAMBDA_LOG_LEVEL": _LEVELS[level]}

    def log_stream(self) -> str:
        """Name the log stream of a new worker."""
        return time.strftime(f"%Y/%m/%d/[{self.version}]", time.gmtime()) + secrets.token_hex(16)
