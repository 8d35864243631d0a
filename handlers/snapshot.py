"""What `snap_start` adds to a worker: hooks, and a process that has loaded the function and forks its workers.

bootstrap.py loads this file. Like it, this one runs in the user's interpreter and needs CPython 3.9 or newer and the
standard library.

A fork copies one thread and shares what is open. So nothing is forked where the module, and its hooks, leave a thread
or a descriptor behind that two processes must not share: the daemon is told what was found instead, and starts every
worker anew.
"""

from __future__ import annotations

import fcntl
import gc
import io
import json
import os
import select
import signal
import socket
import stat
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List

if TYPE_CHECKING:
    from handlers import bootstrap
else:
    import __main__ as bootstrap  # the worker's main program

#: Time that a first fork has to end, where it shows whether threads stop for it.
_TRIAL_S = 2.0

_KINDS = {
    "anon_inode:[eventpoll]": "epoll of an event loop",
    "anon_inode:[eventfd]": "eventfd",
    "anon_inode:[timerfd]": "timerfd",
    "anon_inode:inotify": "inotify",
}

# --- hooks


def run_before_hooks() -> None:
    """Run what is to be done before the fork: last registered, first run ("Runtime hooks for Python")."""
    hooks = _hooks("get_before_snapshot")
    while hooks:
        _run("Runtime.BeforeSnapshotError", *hooks.pop())


def run_after_hooks() -> None:
    """Run what is to be done after the fork, in order of registration."""
    for hook in _hooks("get_after_restore"):
        _run("Runtime.AfterRestoreError", *hook)


def _hooks(name: str) -> List[Any]:
    """Give the list of hooks as it is registered; the module may be the user's own copy of AWS's."""
    give: Callable[[], List[Any]] = getattr(sys.modules.get("snapshot_restore_py"), name, list)
    return give()


def _run(error_type: str, function: Callable[..., Any], arguments: Any, keywords: Any) -> None:
    try:
        function(*arguments, **keywords)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a hook raises
        raise bootstrap.fault_of(error, error_type) from None


# --- forking


def fork_workers(control: bootstrap.Channel, lock: int) -> bootstrap.Channel:
    """Fork a worker whenever the daemon asks for one; gives the worker's own channel, in each worker."""
    # Where it is ignored, the kernel forgets how children end.
    on_child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    bootstrap.flush()
    _settle()
    gc.collect()  # closes what is open and forgotten
    found = _threads() or _descriptors({0, 1, 2, lock, *control.descriptors})
    if found:
        control.send(bootstrap.UNFIT, "\n".join(found).encode("utf-8", "backslashreplace"))
        bootstrap.leave()
    gc.freeze()
    own = os.getpid()
    control.send(bootstrap.READY, b"")
    while True:
        frame, descriptors, _, _ = socket.recv_fds(control.socket, bootstrap.HEADER.size, 2, socket.MSG_CMSG_CLOEXEC)
        if not frame:
            bootstrap.leave()
        kind, _, slot, _, number = bootstrap.HEADER.unpack(frame)
        if kind == bootstrap.REAP:
            control.send(bootstrap.REAPED, b"", os.waitpid(number, 0)[1], slot)
            continue
        try:
            pid = os.fork()
        except OSError as error:
            control.send(bootstrap.NOT_FORKED, str(error).encode("utf-8", "backslashreplace"), 0, slot)
        else:
            if not pid:
                if on_child is not None:  # else set by a library, which Python cannot do again
                    signal.signal(signal.SIGCHLD, on_child)
                return _begin(own, *descriptors)
            control.send(bootstrap.FORKED, b"", pid, slot)
        for descriptor in descriptors:
            os.close(descriptor)


def _begin(parent: int, channel_descriptor: int, output: int) -> bootstrap.Channel:
    """Become a process like one that was started by the daemon, and wait for its word."""
    os.setsid()
    bootstrap.die_with(parent)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    channel = bootstrap.Channel(channel_descriptor)
    own: Dict[str, str] = json.loads(bytes(channel.receive()[4]))
    os.environ["AWS_LAMBDA_LOG_STREAM_NAME"] = bootstrap.LambdaContext.log_stream_name = own["log_stream"]
    if own["scratch"]:
        _move(own["scratch"])
    return channel


def _move(scratch: str) -> None:
    """Have temporary files written to a folder of our own, also where the module has asked for the place before."""
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None and tempfile.tempdir == os.environ.get("TMPDIR"):
        tempfile.tempdir = None
    os.environ["TMPDIR"] = scratch


# --- what must not be shared


def _settle() -> None:
    """Write out what files hold back, which each worker would write again, and close HTTP connections that idle.

    Those of boto3 and requests are such: who has one opens it again by itself.
    """
    connection: Any = getattr(sys.modules.get("http.client"), "HTTPConnection", ())
    for each in gc.get_objects():
        try:
            if issubclass(type(each), (io.TextIOWrapper, io.BufferedWriter)):
                each.flush()
            elif issubclass(type(each), connection) and _is_idle(each):
                each.close()
        except Exception:  # noqa: S110 - it is closed, or the user's own and strange: what stays open is found
            pass


def _is_idle(connection: Any) -> bool:
    response = getattr(connection, "_HTTPConnection__response", None)
    return response is None or bool(response.isclosed())


def _threads() -> List[str]:
    """Name the threads beside the main one, unless they stop themselves when the process forks, as OpenBLAS's do."""
    named = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if named:
        return [" ".join("thread {} of {}".format(each.name, _module_of(each)).split()) for each in named]
    give_up_s = time.monotonic() + _TRIAL_S / 10
    while _native() and time.monotonic() < give_up_s:  # one that was joined may still be on its way out
        time.sleep(0.01)
    if _native():
        _fork_once()
    return ["native thread {}".format(_comm(task)) for task in _native()]


def _module_of(thread: threading.Thread) -> str:
    return getattr(getattr(thread, "_target", None), "__module__", None) or type(thread).__module__


def _native() -> List[str]:
    return [task for task in os.listdir("/proc/self/task") if task != str(os.getpid())]


def _comm(task: str) -> str:
    try:
        with open("/proc/self/task/{}/comm".format(task)) as file:
            return file.read().strip()
    except OSError:  # it has just ended
        return task


def _fork_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CPython's own, about forks beside threads
        pid = os.fork()
    if not pid:
        os._exit(0)
    poll = select.poll()
    exit_descriptor = os.pidfd_open(pid)
    poll.register(exit_descriptor, select.POLLIN)
    if not poll.poll(_TRIAL_S * 1000):  # it hangs, as workers would
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(exit_descriptor)


def _descriptors(kept: Iterable[int]) -> List[str]:
    """Describe the descriptors that forked processes would share to their harm."""
    with open("/proc/self/maps") as file:
        mapped = {line.split(None, 5)[5].rstrip("\n") for line in file if "/" in line}
    found: Dict[str, None] = {}
    for descriptor in sorted(set(map(int, os.listdir("/proc/self/fd"))).difference(kept)):
        try:
            target = os.readlink("/proc/self/fd/{}".format(descriptor))
            if not _is_harmless(descriptor, is_mapped=target in mapped):
                found[" ".join(_describe(descriptor, target).split())] = None
        except OSError:  # that of the listing
            pass
    return list(found)


def _is_harmless(descriptor: int, *, is_mapped: bool) -> bool:
    """Has it no state to share: a folder, a device, a file that is only appended to, or mapped to be read?"""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        access = flags & os.O_ACCMODE
        return bool(access == os.O_WRONLY and flags & os.O_APPEND) or (access == os.O_RDONLY and is_mapped)
    return stat.S_ISDIR(mode) or stat.S_ISCHR(mode)


def _describe(descriptor: int, target: str) -> str:
    if not target.startswith("socket:"):
        return _KINDS.get(target, target)
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        try:
            peer = copy.getpeername()
            return "socket connected to {}".format(_address(peer)) if peer else "socket of a pair"
        except OSError:
            return "socket at {}".format(_address(copy.getsockname()))


def _address(address: Any) -> str:
    if isinstance(address, tuple):
        return ":".join(map(str, address[:2]))
    return os.fsdecode(address) if isinstance(address, bytes) else str(address)
