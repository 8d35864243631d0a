"""What a demo plays on: a folder of its own, as a user has one, and the real command."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from router.errors import RouterError

ROOT: Final = Path(__file__).resolve().parents[2]
#: Handlers that a demo's folder gets copies of.
EXAMPLES: Final = ROOT / "handlers" / "examples"
LEASH: Final = Path(__file__).with_name("leash.py")
#: Longest time that one command may take.
COMMAND_S: Final = 60.0


class DemoFailed(RouterError):
    """Something that the demo shows did not happen."""


class Project:
    """A folder with a configuration and handlers."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.file = folder / "headrace.yaml"
        self.functions = folder / "functions"
        self.log = folder / "headrace.log"
        #: Of every command that is run on it.
        self.environment = {**environment, "HEADRACE_CONFIG": str(self.file)}

    @classmethod
    @contextmanager
    def made(cls, environment: Mapping[str, str], *, keep: bool) -> Iterator[Project]:
        """Make a temporary folder, and remove it in the end."""
        folder = Path(tempfile.mkdtemp(prefix="headrace-demo-"))
        try:
            yield cls(folder, environment)
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)

    def set_up(self, configuration: str, *handlers: str) -> None:
        """Write the configuration, and copy the handlers of these names."""
        self.file.write_text(configuration)
        self.functions.mkdir()
        for name in handlers:
            shutil.copyfile(EXAMPLES / name, self.functions / name)

    def written(self, name: str) -> list[str]:
        """Give the lines that handlers have written into a file, as often as they did."""
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give what the daemon has logged under this name."""
        lines = [json.loads(line) for line in self.written(self.log.name) if line.startswith("{") and line[-1] == "}"]
        return [line for line in lines if line["event"] == name]

    def fix(self, handler: str, bug: str, repair: str) -> None:
        """Change a handler."""
        file = self.functions / handler
        file.write_text(file.read_text().replace(bug, repair))

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run a `headrace` command; gives its exit status and what it printed. Its errors are shown."""
        return await self._run(arguments, asyncio.subprocess.PIPE)

    async def run_shown(self, *arguments: str) -> int:
        """Run a `headrace` command whose output all can see; gives its exit status."""
        status, _ = await self._run(arguments, None)
        return status

    async def _run(self, arguments: Sequence[str], stdout: int | None) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(*command(*arguments), env=self.environment, stdout=stdout)
        try:
            async with asyncio.timeout(COMMAND_S):
                output, _ = await process.communicate()
        except TimeoutError:
            raise DemoFailed(f"`headrace {' '.join(arguments)}` did not end within {COMMAND_S:.0f} s") from None
        finally:
            if process.returncode is None:  # or interrupted
                process.kill()
                await process.wait()
        assert process.returncode is not None, "it has ended"
        return process.returncode, (output or b"").decode()


class Service:
    """The real `headrace run`, in a process of its own."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._project.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(LEASH), *command("run", str(self._project.file))),
                env=self._project.environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the demo, which then stops this in order.
                start_new_session=True,
            )

    def require_running(self) -> None:
        """Raises DemoFailed with the end of its log when it has ended."""
        if self._process is None or self._process.returncode is not None:
            tail = self._project.written(self._project.log.name)[-5:]
            raise DemoFailed("the service ended; the end of its log:\n" + "\n".join(tail))

    async def stop(self) -> int | None:
        """Let it drain, and give its exit status; None when it did not run. May come twice."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        assert process.stdin is not None, "asked for at its start"
        process.stdin.write(b"stop")
        process.stdin.close()
        return await process.wait()


def command(*arguments: str) -> Sequence[str]:
    """Give the command line of a `headrace` command of this installation."""
    return (str(Path(sysconfig.get_path("scripts")) / "headrace"), *arguments)


def inherited(*names: str) -> dict[str, str]:
    """Give the variables of the demo's own environment that are set."""
    return {name: os.environ[name] for name in names if name in os.environ}
