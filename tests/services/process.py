"""A server that runs as a detached local process and is found again through its pid file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

#: Downloads, data, logs, certificates and pid files. Another home and other ports run a second set side by side.
HOME = pathlib.Path(
    os.environ.get("HEADRACE_SERVICES_HOME") or pathlib.Path.home() / ".cache" / "headrace-services"
).absolute()
DOWNLOADS = HOME / "downloads"
RUN = HOME / "run"

#: Every server listens here and nowhere else.
HOST = "127.0.0.1"


class ServiceError(Exception):
    """A server cannot be installed or started; the message says why and what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def env_port(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


def port_open(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def tail(path: pathlib.Path, lines: int = 25) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Let one process at a time install or start a thing; callers that come together wait for the first."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / f".{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: waiting for another process that is busy with it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the process state on; empty when there is no such process."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def alive(pid: int) -> bool:
    fields = stat_fields(pid)
    return bool(fields) and fields[0] != "Z"


def start_ticks(pid: int) -> str:
    """When the process began; with the pid it names one process for good, even when the pid is used again."""
    fields = stat_fields(pid)
    return fields[19] if fields else ""


def process_tree(root: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        fields = stat_fields(int(entry.name)) if entry.name.isdigit() else []
        if fields:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def resident_mib(pid: int) -> float:
    pages = 0
    for member in process_tree(pid):
        with contextlib.suppress(OSError):
            pages += int(pathlib.Path(f"/proc/{member}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Server:
    """One server process: how it is installed and started, when it is ready, where it answers."""

    name = ""
    ready_timeout_s = 60.0
    stop_timeout_s = 15.0

    def __init__(self) -> None:
        self.folder = RUN / self.name
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.pid_file = self.folder / "pid"

    def install(self) -> None:
        """Download what is missing; quick when nothing is."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Write configuration and format the data; the folders exist."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def ready(self) -> bool:
        raise NotImplementedError

    def ports(self) -> list[int]:
        raise NotImplementedError

    def endpoint(self) -> str:
        """Tell a person where it answers."""
        raise NotImplementedError

    def exports(self) -> dict[str, str]:
        """Environment variables that tell the tests where it answers."""
        raise NotImplementedError

    def pid(self) -> int | None:
        """The running process, if it is still the one that was started here."""
        try:
            pid, ticks = self.pid_file.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if alive(int(pid)) and start_ticks(int(pid)) == ticks else None

    def start(self) -> None:
        with lock(self.name):
            if self.pid() and self.ready():
                say(f"{self.name}: already running, {self.endpoint()}")
                return
            self.clear()
            began = time.monotonic()
            self.await_ready(self.spawn())
            say(f"{self.name}: ready in {time.monotonic() - began:.1f} s, {self.endpoint()}")

    def clear(self) -> None:
        """End what is left of it, install what is missing, and see that its ports are free."""
        self.terminate()
        self.install()
        busy = [port for port in self.ports() if port_open(port)]
        if busy:
            msg = f"port {busy[0]} is taken by another process; stop it or choose another port (see --help)"
            raise ServiceError(msg)

    def spawn(self) -> subprocess.Popen[bytes]:
        self.data.mkdir(parents=True, exist_ok=True)
        self.prepare()
        inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=inherited | self.environment(),
                cwd=self.folder,
                start_new_session=True,
            )
        self.pid_file.write_text(f"{process.pid} {start_ticks(process.pid)}\n")
        return process

    def await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.ready_timeout_s
        while not self.ready():
            status = process.poll()
            if status is None and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            self.terminate()
            why = f"not ready in {self.ready_timeout_s:.0f} s" if status is None else f"ended with status {status}"
            msg = f"{why}; the end of {self.log}:\n{tail(self.log)}"
            raise ServiceError(msg)

    def terminate(self) -> bool:
        """TERM, then KILL for what is left of its process tree. False when it was not running."""
        pid = self.pid()
        if pid:
            members = {member: start_ticks(member) for member in process_tree(pid)}
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + self.stop_timeout_s
            while alive(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            kill_all([member for member, ticks in members.items() if start_ticks(member) == ticks])
        self.pid_file.unlink(missing_ok=True)
        return pid is not None

    def stop(self) -> None:
        with lock(self.name):
            say(f"{self.name}: {'stopped' if self.terminate() else 'not running'}")

    def kill(self) -> None:
        with lock(self.name):
            pid = self.pid()
            if pid:
                kill_all(process_tree(pid))
            self.pid_file.unlink(missing_ok=True)
            say(f"{self.name}: {'killed' if pid else 'not running'}")

    def restart(self) -> None:
        self.stop()
        self.start()

    def wipe(self) -> None:
        with lock(self.name):
            self.terminate()
            shutil.rmtree(self.folder, ignore_errors=True)
            say(f"{self.name}: data deleted")

    def running(self) -> bool:
        return self.pid() is not None

    def status(self) -> str:
        pid = self.pid()
        if not pid:
            return "stopped"
        state = "ready" if self.ready() else "not answering"
        return f"{state}, pid {pid}, {resident_mib(pid):.0f} MiB, {self.endpoint()}"


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
