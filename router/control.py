"""The daemon's end of the control socket: what commands ask of a running daemon.

Who may use the socket is who may enter the state directory (0700) and open the socket (0600): the daemon's own user.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from router.board import Board
from router.checkpoint_file import Saved
from router.commands.control_client import SOCKET_NAME, socket_path
from router.commands.selecting import Wanted
from router.deciding import Deciding
from router.errors import (
    CannotListen,
    ConfigError,
    DecisionNeeded,
    InUse,
    NotFound,
    RouterError,
    SourceUnavailable,
    StoreUnavailable,
)
from router.failures.deliveries import Deliveries, DeliveryEnds, deliver
from router.failures.erasure import erase
from router.fleet.together import Together
from router.fleet.view import FleetView
from router.ports import Codec, Selection, Store, WallClock
from router.replay import record_frames
from router.replay.end import Ends
from router.replay.queue_job import QueueLook
from router.replay.record_job import RecordsAt
from router.replay.record_places import Records
from router.seeking import Seeking
from router.steering import Steering
from router.supervisor import Supervisor
from router.upkeep import compact

#: Largest request: a list of failure ids.
BODY_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: How long open requests have at the end.
CLOSE_S: Final = 2.0

#: Errors that an answer may tell, by its status.
ERROR_STATUSES: Final[dict[type[RouterError], int]] = {
    NotFound: 404,
    InUse: 409,
    DecisionNeeded: 409,
    ConfigError: 422,
    SourceUnavailable: 502,
    StoreUnavailable: 503,
}


class Replays(Protocol):
    """Runs replay jobs."""

    def start(self, selection: Selection, interval_s: float) -> Ends: ...

    async def look(self, mapping: str, queue: str, messages: int) -> QueueLook: ...

    async def start_queue(self, mapping: str, queue: str, interval_s: float) -> Ends: ...

    @property
    def records(self) -> RecordReplays: ...


class RecordReplays(Protocol):
    """Runs jobs over failure records."""

    async def count(self, wanted: RecordsAt) -> int | None: ...

    async def start(self, wanted: RecordsAt, records: Records | None = None) -> Ends: ...


class Steered(Protocol):
    """What of a daemon commands use."""

    state_dir: Path
    store: Store
    supervisor: Supervisor
    wall: WallClock
    #: All replicas of the fleet; None = we are alone.
    together: Together | None

    @property
    def preview(self) -> Callable[[Path], Awaitable[object]]:
        """Says what taking a file up would change. Raises ConfigError."""
        ...

    @property
    def event_deliveries(self) -> Callable[[], Mapping[str, Deliveries]]:
        """Gives the deliveries of failed asynchronous events, by the mapping that stands for each function."""
        ...

    @property
    def replayer(self) -> Replays: ...


class DropRequest(msgspec.Struct):
    ids: list[str]


class DeliverRequest(msgspec.Struct):
    ids: list[str]


class EraseRequest(msgspec.Struct):
    #: In base64.
    key: bytes
    ids: list[str]


class ReplayRequest(msgspec.Struct):
    selection: Selection
    #: Between two starts, seconds.
    interval_s: float


class LookRequest(msgspec.Struct):
    """Look at a queue as a mapping reads its own."""

    mapping: str
    queue: str
    #: Messages to show, at most 10.
    messages: int


class QueueReplayRequest(msgspec.Struct):
    mapping: str
    queue: str
    #: Between two starts, seconds.
    interval_s: float


class CountRequest(msgspec.Struct):
    """Count the failure records in a place."""

    place: str
    mapping: str | None


class RecordsRequest(msgspec.Struct):
    """Replay failure records, or look at them; those that we do not read ourselves follow in frames."""

    place: str
    mapping: str | None
    only_look: bool
    #: Run also what is settled.
    again: bool
    #: Between two starts, seconds.
    interval_s: float
    are_sent: bool


class FileRequest(msgspec.Struct):
    #: Absolute.
    file: str


class MappingRequest(msgspec.Struct):
    mapping: str
    #: Say only what would be done.
    only_look: bool = False


class DrainRequest(msgspec.Struct):
    mapping: str
    #: Longest wait, seconds; None = as long as it takes.
    within_s: float | None


class SeekRequest(msgspec.Struct):
    mapping: str
    to: Wanted
    #: The only one that is moved; None = all.
    shard: str | None
    #: Do it; else only say what it would do.
    apply: bool


class ExportRequest(msgspec.Struct):
    #: None = all that read a stream.
    mapping: str | None


class ImportRequest(msgspec.Struct):
    mapping: str
    saved: Saved
    apply: bool


class Control:
    """The server on the control socket."""

    def __init__(self, daemon: Steered, board: Board, view: FleetView | None = None) -> None:
        """Make it; `view` sees all replicas of the fleet, None = we are alone."""
        self._daemon = daemon
        self._view = view
        self._board = board
        lives, together = daemon.supervisor.lives, daemon.together
        self._steering = Steering(daemon.store, lives, daemon.wall, together)
        self._seeking = Seeking(daemon.store, lives, together)
        self._deciding = Deciding(daemon.store, lives, together)
        self._runner: web.AppRunner | None = None
        self._server: asyncio.AbstractServer | None = None
        #: Jobs that somebody is told about.
        self._told: set[Ends | DeliveryEnds] = set()

    async def start(self) -> None:
        """Begin to listen; a socket that a killed daemon left is replaced, as the directory is locked for us.

        Raises:
            CannotListen
        """
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.add_routes(
            [
                web.get("/status", self._status),
                web.post("/failures/replay", self._replay),
                web.post("/failures/drop", self._drop),
                web.post("/failures/deliver", self._deliver),
                web.post("/config/diff", self._diff),
                web.post("/mapping/accept", self._accept),
                web.post("/mapping/forget", self._forget),
                web.post("/state/compact", self._compact),
                web.post("/state/erase", self._erase),
                web.post("/state/scrub", self._scrub),
                web.post("/queue/look", self._look),
                web.post("/queue/replay", self._replay_queue),
                web.post("/records/count", self._count_records),
                web.post("/records/replay", self._replay_records),
                web.post("/mapping/pause", self._pause),
                web.post("/mapping/resume", self._resume),
                web.post("/mapping/drain", self._drain),
                web.post("/mapping/seek", self._seek),
                web.post("/checkpoints/export", self._export),
                web.post("/checkpoints/import", self._import),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S)
        await self._runner.setup()
        assert self._runner.server is not None, "set up above"
        self._server = await asyncio.get_running_loop().create_unix_server(
            self._runner.server, sock=bind(self._daemon.state_dir)
        )

    async def close(self) -> None:
        """Answer what is open, then stop listening and remove the socket. May come twice."""
        if self._server and self._runner:
            self._server.close()
            for ends in self._told:
                ends.stop()
            await self._runner.cleanup()
            (self._daemon.state_dir / SOCKET_NAME).unlink(missing_ok=True)

    async def _status(self, _: web.Request) -> web.Response:
        return answer(await self._view.document() if self._view else self._board.status())

    async def _drop(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=DropRequest)
        try:
            dropped = await self._daemon.store.drop(wanted.ids)
        except StoreUnavailable as error:
            return refusal(error)
        for deliveries in self._deliveries().values():
            if deliveries:
                deliveries.settled(set(dropped))
        return answer({"dropped": dropped})

    async def _deliver(self, request: web.Request) -> web.StreamResponse:
        wanted = msgspec.json.decode(await request.read(), type=DeliverRequest)
        try:
            ends = await deliver(self._daemon.store, self._deliveries(), wanted.ids)
        except StoreUnavailable as error:
            return refusal(error)
        return await self._tell(request, ends)

    def _deliveries(self) -> Mapping[str, Deliveries | None]:
        lives = self._daemon.supervisor.lives
        return {**self._daemon.event_deliveries(), **{name: life.parts.deliveries for name, life in lives.items()}}

    async def _diff(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=FileRequest)
        return await _answered(self._daemon.preview(Path(wanted.file)))

    async def _accept(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=MappingRequest)
        return await _answered(self._deciding.accept(wanted.mapping))

    async def _forget(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=MappingRequest)
        return await _answered(self._deciding.forget(wanted.mapping, only_look=wanted.only_look))

    async def _erase(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=EraseRequest)
        try:
            return answer(await erase(self._daemon.store, self._codec_of, wanted.key, wanted.ids))
        except StoreUnavailable as error:
            return refusal(error)

    def _codec_of(self, mapping: str) -> Codec | None:
        life = self._daemon.supervisor.lives.get(mapping)
        return life.parts.make_source().codec if life else None

    async def _scrub(self, _: web.Request) -> web.Response:
        try:
            return answer({"is_clean": await self._daemon.store.scrub()})
        except StoreUnavailable as error:
            return refusal(error)

    async def _compact(self, _: web.Request) -> web.Response:
        try:
            return answer(await compact(self._daemon.store))
        except StoreUnavailable as error:
            return refusal(error)

    async def _look(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=LookRequest)
        try:
            return answer(await self._daemon.replayer.look(wanted.mapping, wanted.queue, wanted.messages))
        except (NotFound, SourceUnavailable) as error:
            return refusal(error)

    async def _replay(self, request: web.Request) -> web.StreamResponse:
        wanted = msgspec.json.decode(await request.read(), type=ReplayRequest)
        return await self._tell(request, self._daemon.replayer.start(wanted.selection, wanted.interval_s))

    async def _replay_queue(self, request: web.Request) -> web.StreamResponse:
        wanted = msgspec.json.decode(await request.read(), type=QueueReplayRequest)
        try:
            ends = await self._daemon.replayer.start_queue(wanted.mapping, wanted.queue, wanted.interval_s)
        except (NotFound, SourceUnavailable) as error:
            return refusal(error)
        return await self._tell(request, ends)

    async def _count_records(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=CountRequest)
        try:
            return answer({"count": await self._daemon.replayer.records.count(RecordsAt(wanted.place, wanted.mapping))})
        except (NotFound, SourceUnavailable) as error:
            return refusal(error)

    async def _replay_records(self, request: web.Request) -> web.StreamResponse:
        content = request.content
        wanted = msgspec.json.decode(await content.readline(), type=RecordsRequest)
        place = RecordsAt(wanted.place, wanted.mapping, wanted.only_look, wanted.again, wanted.interval_s)
        records = record_frames.read(content) if wanted.are_sent else None
        try:
            ends = await self._daemon.replayer.records.start(place, records)
        except (NotFound, SourceUnavailable) as error:
            return refusal(error)
        try:
            return await self._tell(request, ends)
        finally:
            # Who asked may be gone before that is noticed where the records are awaited.
            content.set_exception(ConnectionResetError("who read the records to us has gone"))

    async def _pause(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=MappingRequest)
        return await _answered(self._steering.pause(wanted.mapping))

    async def _resume(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=MappingRequest)
        return await _answered(self._steering.resume(wanted.mapping))

    async def _drain(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=DrainRequest)
        return await _answered(self._steering.drain(wanted.mapping, wanted.within_s))

    async def _seek(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=SeekRequest)
        return await _answered(self._seeking.seek(wanted.mapping, wanted.to, wanted.shard, apply=wanted.apply))

    async def _export(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=ExportRequest)
        return await _answered(self._seeking.save(wanted.mapping))

    async def _import(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=ImportRequest)
        return await _answered(self._seeking.restore(wanted.mapping, wanted.saved, apply=wanted.apply))

    async def _tell(self, request: web.Request, ends: Ends | DeliveryEnds) -> web.StreamResponse:
        """Answer with the ends of a job, a line each, as they come."""
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        self._told.add(ends)
        try:
            while end := await ends.next():
                await response.write(msgspec.json.encode(end) + b"\n")
        except ConnectionError:
            pass  # who asked has gone; the job goes on
        finally:
            self._told.discard(ends)
            ends.leave()
        return response


async def _answered(work: Awaitable[Any]) -> web.Response:
    """Answer with what some work gives."""
    try:
        return answer(await work)
    except tuple(ERROR_STATUSES) as error:
        return refusal(error)


def answer(document: Any, status: int = 200) -> web.Response:
    """Give a document as JSON."""
    body = msgspec.json.encode(document)
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def refusal(error: RouterError) -> web.Response:
    """Answer with an error that the command is to raise again, one of a narrower kind as what it is one of."""
    status = next(ERROR_STATUSES[kind] for kind in type(error).__mro__ if kind in ERROR_STATUSES)
    return answer({"error": str(error)}, status)


def bind(state_dir: Path) -> socket.socket:
    """Make the control socket, for our user alone from the first moment.

    Raises:
        CannotListen
    """
    server = socket.socket(socket.AF_UNIX)
    try:
        with socket_path(state_dir) as path:
            (state_dir / SOCKET_NAME).unlink(missing_ok=True)
            os.fchmod(server.fileno(), 0o600)  # Linux makes the file with the mode of the socket
            server.bind(path)
    except OSError as error:
        server.close()
        raise CannotListen(f"cannot make the control socket in {state_dir}: {error.strerror}") from error
    return server
