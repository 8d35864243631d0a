"""Operations of the API over a real catalogue and a store in memory, called as the server calls them."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from handlers.archive import check
from router.api.call import Answer, Call, Caller
from router.api.carried import carried
from router.api.errors import ApiError
from router.api.mapping_parts import MappingParts
from router.api.mapping_running import Stage
from router.api.names import Here
from router.api.operations import OPERATIONS
from router.api.parts import Parts
from router.catalogue.catalogue import Catalogue
from router.errors import CodeRefused, NotFound, SourceUnavailable, StoreUnavailable
from router.event_ports import NoSource
from router.ports import Invocation
from router.telemetry import Log
from tests.fakes.lambda_model import statuses
from tests.fakes.store import MemoryStore

ARN = "arn:aws:lambda:us-east-1:000000000000:function"
ROLE = "arn:aws:iam::000000000000:role/any"
#: Wall time at which a site begins: 2026-11-30T17:00:00Z.
BEGIN_S = 1_796_058_000.0


class MemoryCode:
    """A CodeStore in memory, with a fault."""

    def __init__(self) -> None:
        self.archives: dict[str, bytes] = {}
        self.fault: str | None = None

    async def put(self, sha256: str, archive: bytes) -> None:
        self._fail()
        self.archives[sha256] = archive

    async def path(self, sha256: str) -> Path:
        self._fail()
        if sha256 not in self.archives:
            raise NotFound(f"no code {sha256}")
        return Path(f"/memory/{sha256}.zip")

    async def drop(self, sha256: str) -> None:
        self._fail()
        self.archives.pop(sha256, None)

    async def keep_only(self, hashes) -> None:
        self._fail()
        self.archives = {key: value for key, value in self.archives.items() if key in hashes}

    def _fail(self) -> None:
        if self.fault:
            raise StoreUnavailable(self.fault)


class MemoryObjects:
    """Objects of S3 in memory, by bucket, key and version."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str | None], bytes] = {}
        self.is_away = False

    async def fetch(self, bucket: str, key: str, version: str | None, limit_bytes: int) -> bytes:
        if self.is_away:
            raise SourceUnavailable(f"code s3://{bucket}/{key}: it cannot be reached")
        if (bucket, key, version) not in self.objects:
            raise CodeRefused(
                "Error occurred while GetObject. S3 Error Code: NoSuchKey. "
                "S3 Error Message: The specified key does not exist."
            )
        return self.objects[bucket, key, version]


class NoFunctions:
    """Functions that nobody invokes."""

    def throttle(self, function: str, version: str) -> str | None:
        return None

    def invoke(self, function: str, version: str, invocation: Invocation) -> None:
        raise AssertionError(f"{function}:{version} is not to be invoked")


class NoInbox:
    """Takes in events that nobody sends."""

    async def accept(self, function: str, *_, **__) -> None:
        raise AssertionError(f"{function} is not to be invoked")


class NoSources:
    """Sources that are not there."""

    async def find(self, arn: str) -> NoSource:
        return NoSource.ABSENT


class NoRunning:
    """Mappings of which nothing runs."""

    def stage(self, name: str) -> Stage:
        return Stage.GONE

    def last_result(self, name: str) -> str:
        return "No records processed"

    async def opened(self, name: str, within_s: float) -> None:
        """Nothing opens."""

    async def gone(self, name: str) -> bool:
        return True


@dataclass
class ApiSite:
    """An API to be called."""

    store: MemoryStore = field(default_factory=MemoryStore)
    code: MemoryCode = field(default_factory=MemoryCode)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    is_strict: bool = True
    now_s: float = BEGIN_S

    def __post_init__(self) -> None:
        self.catalogue = Catalogue(self.store)
        self._ids = 0
        self._is_loaded = False
        self.parts = Parts(
            catalogue=self.catalogue,
            functions=NoFunctions(),
            code=self.code,
            objects=self.objects,
            check_archive=check,
            mappings=MappingParts(
                NoSources(), NoRunning(), servers=lambda _: (), try_out=lambda _: None, leaves=lambda: None
            ),
            where=lambda: Here("us-east-1", "000000000000"),
            is_strict=lambda: self.is_strict,
            file="headrace.yaml",
            wall=lambda: self.now_s,
            new_id=self._new_id,
            log=Log(),
            accepts=NoInbox(),
        )
        self._carried = carried(self.parts)

    def _new_id(self) -> str:
        self._ids += 1
        return str(UUID(int=self._ids))

    async def answer(self, name: str, path: Sequence[str] = (), query: Mapping[str, Any] | None = None, /, **members):
        """Call an operation: values of its path in their order, its query, and members of its document."""
        if not self._is_loaded:
            await self.catalogue.load()
            self._is_loaded = True
        operation = next(each for each in OPERATIONS if each.name == name)
        names = [part.strip("{}+") for part in operation.path.split("/") if part.startswith("{")]
        values = {key: value if isinstance(value, list) else [str(value)] for key, value in (query or {}).items()}
        call = Call(
            request_id="r",
            path=dict(zip(names, map(unquote, path), strict=True)),
            query=values,
            headers={"host": "127.0.0.1:9301"},
            document=members,
            caller=Caller(),
        )
        answer: Answer = await self._carried[name](call)
        assert answer.status in statuses(name)
        return answer

    async def call(self, name: str, *path: str, query: Mapping[str, Any] | None = None, **members) -> dict[str, Any]:
        """Call an operation, and give the document that it answers."""
        answer = await self.answer(name, path, query, **members)
        return dict(answer.document or {})

    async def refusal(self, name: str, *path: str, query: Mapping[str, Any] | None = None, **members) -> ApiError:
        """Call an operation that refuses, and give what it says."""
        try:
            await self.answer(name, path, query, **members)
        except ApiError as error:
            return error
        raise AssertionError(f"{name} was not refused")

    async def create(self, name: str = "orders", **members) -> dict[str, Any]:
        """Make a function."""
        return await self.call("CreateFunction", **new_function(name, **members))


def new_function(name: str = "orders", **members) -> dict[str, Any]:
    """Give a whole request of CreateFunction, some of its members others; None = without."""
    given = {
        "FunctionName": name,
        "Runtime": "python3.12",
        "Role": ROLE,
        "Handler": "orders.handler",
        "Code": {"ZipFile": zipped()},
        **members,
    }
    return {key: value for key, value in given.items() if value is not None}


def archive(text: str = "def handler(event, context): return event", name: str = "orders.py") -> bytes:
    """Make a .zip of one file; the same text gives the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


def zipped(text: str = "def handler(event, context): return event") -> str:
    """Make one as it comes in a request."""
    return base64.b64encode(archive(text)).decode()
