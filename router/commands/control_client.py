"""How commands talk to a running daemon: HTTP over the Unix socket in its state directory.

Standard library only, for commands start often and end soon.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from router.errors import ConfigError, InUse, NotFound, NotRunning, RouterError, SourceUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from router.commands.selecting import Wanted
    from router.ports import Selection

SOCKET_NAME: Final = "control.sock"
#: Longest path of a Unix socket on Linux, bytes (unix(7): 108 with the closing NUL).
PATH_LIMIT_BYTES: Final = 107
#: A daemon that does not answer within this time is stuck; a replay's answer comes in pieces and has no limit.
ANSWER_S: Final = 30.0
#: Counting the objects of a bucket takes the daemon a call for every thousand.
COUNT_S: Final = 300.0
#: Each waits half a second for who reads the store.
SCRUB_TRIES: Final = 10
#: What a status of an answer means.
_ERRORS: Final[dict[int, type[RouterError]]] = {
    404: NotFound,
    409: InUse,
    422: ConfigError,
    502: SourceUnavailable,
    503: StoreUnavailable,
}


@contextlib.contextmanager
def socket_path(state_dir: Path) -> Iterator[str]:
    """Give a path of the control socket that is short enough, usable within the context."""
    path = state_dir / SOCKET_NAME
    if len(os.fsencode(path)) <= PATH_LIMIT_BYTES:
        yield str(path)
        return
    # The kernel follows /proc/self/fd like a link, so the way to the directory may be as long as it is.
    directory = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    finally:
        os.close(directory)


def status(state_dir: Path) -> dict[str, Any]:
    """Ask for the document of `status --json`. Raises NotRunning."""
    document: dict[str, Any] = _ask(state_dir, "GET", "/status")
    return document


def drop(state_dir: Path, failure_ids: Sequence[str]) -> list[str]:
    """Have failures dropped; gives those that were, without those that are being replayed.

    Raises:
        NotRunning, StoreUnavailable
    """
    dropped: list[str] = _ask(state_dir, "POST", "/failures/drop", {"ids": list(failure_ids)})["dropped"]
    return dropped


def preview(state_dir: Path, file: Path) -> dict[str, Any]:
    """Ask what a daemon would change if it took a file up.

    Raises:
        NotRunning
        ConfigError: it would not; with every mistake.
    """
    changes: dict[str, Any] = _ask(state_dir, "POST", "/config/diff", {"file": str(file)})
    return changes


def accept(state_dir: Path, mapping: str) -> dict[str, Any]:
    """Let a mapping go on with another source; gives what is kept of it.

    Raises:
        NotRunning, StoreUnavailable
        NotFound: there is nothing to accept.
    """
    held: dict[str, Any] = _ask(state_dir, "POST", "/mapping/accept", {"mapping": mapping})
    return held


def forget(state_dir: Path, mapping: str, *, only_look: bool) -> dict[str, Any]:
    """Have what is kept of a mapping deleted; gives what that was, or with `only_look` what it would be.

    Raises:
        NotRunning, StoreUnavailable
        NotFound: nothing is kept.
        InUse: the mapping runs.
    """
    body = {"mapping": mapping, "only_look": only_look}
    held: dict[str, Any] = _ask(
        state_dir, "POST", "/mapping/forget", body, timeout_s=None if not only_look else ANSWER_S
    )
    return held


def erase(state_dir: Path, key: bytes, failure_ids: Sequence[str]) -> dict[str, Any]:
    """Have the records of a key erased from failures; gives how many, and which still hold it.

    Raises:
        NotRunning, StoreUnavailable
    """
    body = {"key": base64.b64encode(key).decode(), "ids": list(failure_ids)}
    erased: dict[str, Any] = _ask(state_dir, "POST", "/state/erase", body)
    return erased


def scrub(state_dir: Path) -> None:
    """Have what was deleted overwritten in all files of the store.

    Raises:
        NotRunning
        StoreUnavailable: that cannot be done now.
    """
    for _ in range(SCRUB_TRIES):
        if _ask(state_dir, "POST", "/state/scrub")["is_clean"]:
            return
    raise StoreUnavailable(
        "another program reads the store, so its log still holds what was erased; end that program and erase again"
    )


def compact(state_dir: Path) -> int:
    """Have free room of the store given back for a second or so; gives what is left of it, bytes.

    Raises:
        NotRunning
        StoreUnavailable: it cannot be done now.
    """
    left: int = _ask(state_dir, "POST", "/state/compact")["free_bytes"]
    return left


def replay(state_dir: Path, selection: Selection, interval_s: float) -> Iterator[dict[str, Any]]:
    """Have failures replayed and give each end as it comes. The daemon goes on when nobody listens.

    Raises:
        NotRunning: there is no daemon, or it ended before the job did.
    """
    key = None if selection.key is None else base64.b64encode(selection.key).decode()
    body = {"selection": {**asdict(selection), "key": key}, "interval_s": interval_s}
    over = yield from _ends(state_dir, "/failures/replay", body)
    if over is None:
        raise NotRunning(
            "the daemon stopped before the replay was over; start it: what it had begun goes on, "
            "`headrace failures list` shows the others"
        )


def deliver(state_dir: Path, failure_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Have failures sent to their destinations now and give each end as it comes.

    Raises:
        NotRunning: there is no daemon, or it ended before the last was sent.
        StoreUnavailable
    """
    over = yield from _ends(state_dir, "/failures/deliver", {"ids": list(failure_ids)})
    if over is None:
        raise NotRunning("the daemon stopped before all were sent; what waits is sent when it is started")


def look(state_dir: Path, mapping: str, queue: str, messages: int) -> dict[str, Any]:
    """Ask what waits in a dead-letter queue that a mapping may replay, with so many of its messages, at most 10.

    Raises:
        NotRunning, SourceUnavailable
        NotFound: there is no such mapping, or it reads no queue.
    """
    body = {"mapping": mapping, "queue": queue, "messages": messages}
    found: dict[str, Any] = _ask(state_dir, "POST", "/queue/look", body)
    return found


def replay_queue(state_dir: Path, mapping: str, queue: str, interval_s: float) -> Iterator[dict[str, Any]]:
    """Have a dead-letter queue replayed and give each end as it comes. The daemon goes on when nobody listens.

    Raises:
        NotRunning: there is no daemon, or it ended before the job did.
        NotFound: as `look`; or the mapping does not run.
        SourceUnavailable: the job stopped before the queue was empty; the message says why.
    """
    body = {"mapping": mapping, "queue": queue, "interval_s": interval_s}
    over = yield from _ends(state_dir, "/queue/replay", body)
    if over is None:
        raise NotRunning("the daemon stopped before the queue was empty; what is left is in the queue: replay it again")
    if over["stopped"]:
        raise SourceUnavailable(f"{over['stopped']}; what is left is in the queue: replay it again")


def count_records(state_dir: Path, place: str, mapping: str | None) -> int | None:
    """Ask how many failure records are in a queue or a bucket, about; None = not known.

    Raises:
        NotRunning, SourceUnavailable
        NotFound: there is no such mapping, it reads no stream, or nothing is there.
    """
    count: int | None = _ask(
        state_dir, "POST", "/records/count", {"place": place, "mapping": mapping}, timeout_s=COUNT_S
    )["count"]
    return count


def replay_records(
    state_dir: Path,
    place: str,
    mapping: str | None,
    interval_s: float,
    *,
    only_look: bool = False,
    again: bool = False,
    frames: Iterable[bytes] | None = None,
) -> Iterator[dict[str, Any]]:
    """Have failure records replayed, or only looked at, and give what comes of each.

    With `frames` they are read to the daemon from here, and the job ends early when nobody reads any more. Otherwise
    the daemon reads the queue or the bucket itself, and goes on when nobody listens.

    Raises:
        NotRunning: there is no daemon, or it ended before the job did.
        NotFound: as `count_records`.
        SourceUnavailable: the job stopped before the last record; the message says why.
    """
    head = {
        "place": place,
        "mapping": mapping,
        "only_look": only_look,
        "again": again,
        "interval_s": interval_s,
        "are_sent": frames is not None,
    }
    body = chain([json.dumps(head).encode() + b"\n"], frames or ())
    with _connected(state_dir, None) as connection, _sending(connection, "/records/replay", body):
        over = yield from _told(_answer(connection))
    if over is None:
        raise NotRunning("the daemon stopped before the last record; start it and replay again: it goes on from there")
    if over["stopped"]:
        raise SourceUnavailable(f"{over['stopped']}; replay again: what is settled is not run twice")


@contextlib.contextmanager
def _sending(connection: http.client.HTTPConnection, path: str, parts: Iterable[bytes]) -> Iterator[None]:
    """Send a request whose body goes while its answer is read; what goes wrong with the body is raised at the end."""
    errors: list[Exception] = []

    def send() -> None:
        try:
            for part in parts:
                connection.send(b"%x\r\n%b\r\n" % (len(part), part))
            connection.send(b"0\r\n\r\n")
        except OSError:
            pass  # the daemon wants no more, or has ended: its answer says so
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for the answer
            errors.append(error)
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_WR)

    try:
        connection.putrequest("POST", path)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
    except OSError as error:
        raise NotRunning(f"the daemon ended before it answered ({error})") from error
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield
    finally:
        if errors:
            raise errors[0]


def _ends(state_dir: Path, path: str, body: Any) -> Generator[dict[str, Any], None, dict[str, Any] | None]:
    """Start a job and give its ends; returns what it says when it is over, None if it never said so."""
    with _connected(state_dir, None) as connection:
        return (yield from _told(_send(connection, "POST", path, body)))


def _told(answer: http.client.HTTPResponse) -> Generator[dict[str, Any], None, dict[str, Any] | None]:
    """Give what a job tells, line by line, as `_ends` does."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        for line in answer:
            end: dict[str, Any] = json.loads(line)
            if "id" not in end:
                return end
            yield end
    return None


def pause(state_dir: Path, mapping: str) -> dict[str, Any]:
    """Have a mapping paused; gives what is still in flight.

    Raises:
        NotRunning, StoreUnavailable
        NotFound: there is no such mapping.
    """
    found: dict[str, Any] = _ask(state_dir, "POST", "/mapping/pause", {"mapping": mapping})
    return found


def resume(state_dir: Path, mapping: str) -> dict[str, Any]:
    """Let a mapping go on. Raises as `pause`."""
    found: dict[str, Any] = _ask(state_dir, "POST", "/mapping/resume", {"mapping": mapping})
    return found


def drain(state_dir: Path, mapping: str, within_s: float | None) -> dict[str, Any]:
    """Have a mapping paused, and wait until it is idle, so long at most; None = as long as it takes.

    Raises as `pause`.
    """
    body = {"mapping": mapping, "within_s": within_s}
    found: dict[str, Any] = _ask(
        state_dir, "POST", "/mapping/drain", body, None if within_s is None else within_s + ANSWER_S
    )
    return found


def seek(state_dir: Path, mapping: str, to: Wanted, shard: str | None, *, apply: bool) -> dict[str, Any]:
    """Have a mapping moved to another place in its stream, or with `apply` False be told what that would do.

    Raises:
        NotRunning, SourceUnavailable, StoreUnavailable
        NotFound: there is no such mapping, shard or place, or it reads a queue.
        InUse: it cannot be moved now.
    """
    body = {"mapping": mapping, "to": asdict(to), "shard": shard, "apply": apply}
    found: dict[str, Any] = _ask(state_dir, "POST", "/mapping/seek", body, None)
    return found


def export(state_dir: Path, mapping: str | None) -> list[dict[str, Any]]:
    """Ask where a mapping is in its stream, or all are: a `checkpoint_file.Saved` for each. Raises as `seek`."""
    found: list[dict[str, Any]] = _ask(state_dir, "POST", "/checkpoints/export", {"mapping": mapping}, None)
    return found


def restore(state_dir: Path, mapping: str, saved: Mapping[str, Any], *, apply: bool) -> dict[str, Any]:
    """Have a mapping put where a file says, or with `apply` False be told what that would do.

    Raises as `seek`, and:
        ConfigError: the file is of another stream, or of what it was before.
    """
    body = {"mapping": mapping, "saved": saved, "apply": apply}
    found: dict[str, Any] = _ask(state_dir, "POST", "/checkpoints/import", body, None)
    return found


def is_answering(state_dir: Path, within_s: float) -> bool:
    """Does the daemon of a state directory answer anything at all in time?"""
    try:
        with _connected(state_dir, within_s) as connection:
            connection.request("GET", "/")
            connection.getresponse()
    except (NotRunning, OSError, http.client.HTTPException):
        return False
    return True


def _ask(state_dir: Path, method: str, path: str, body: Any = None, timeout_s: float | None = ANSWER_S) -> Any:
    with _connected(state_dir, timeout_s) as connection:
        return json.loads(_send(connection, method, path, body).read())


def _send(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> http.client.HTTPResponse:
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
    except OSError as error:
        raise NotRunning(f"the daemon ended before it answered ({error})") from error
    return _answer(connection)


def _answer(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    try:
        answer = connection.getresponse()
    except TimeoutError as error:
        raise NotRunning(f"the daemon does not answer within {ANSWER_S:.0f} s; look at its log") from error
    except (OSError, http.client.HTTPException) as error:
        raise NotRunning(f"the daemon ended before it answered ({error})") from error
    if answer.status in _ERRORS and answer.headers.get_content_type() == "application/json":
        raise _ERRORS[answer.status](json.loads(answer.read())["error"])
    if answer.status != 200:
        raise NotRunning(f"the daemon answered with status {answer.status}: is it of another version? Restart it")
    return answer


@contextlib.contextmanager
def _connected(state_dir: Path, timeout_s: float | None) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("headrace")
    connection.sock = connect(state_dir, timeout_s)
    try:
        yield connection
    finally:
        connection.close()


def connect(state_dir: Path, timeout_s: float | None) -> socket.socket:
    """Connect to the daemon of a state directory. Raises NotRunning."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(timeout_s)
    try:
        with socket_path(state_dir) as path:
            client.connect(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        client.close()
        raise NotRunning(
            f"no headrace runs on the state directory {state_dir}; start it with `headrace run`"
        ) from error
    except OSError as error:
        client.close()
        raise NotRunning(
            f"cannot reach the headrace of {state_dir}: {error.strerror}; is it another user's?"
        ) from error
    return client
