"""The invokers that we have, against the suite."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connectors.lambda_target import LambdaTarget
from connectors.settings import LambdaFunction, Secret, UrlFunction
from connectors.url_target import UrlTarget
from handlers.function import FunctionSpec
from handlers.pool import Pool
from handlers.remote import Remote
from router.core.model import Outcome, Returned
from router.ports import Invoker, Target
from tests.conformance.invoker import InvokerConformance, LineConformance, Rig
from tests.fakes.function_server import FunctionServer, function_server, refusal
from tests.fakes.invoker import MemoryInvoker
from tests.handlers.conftest import eventually

PATIENCE_S = 30.0

# --- memory


class MemoryRig:
    def __init__(self) -> None:
        self.begun = 0
        self.invokers: list[MemoryInvoker] = []

    def invoker(self, *, concurrency: int = 1, timeout_s: float = 60.0) -> Invoker:
        self.invokers.append(MemoryInvoker(self._script, concurrency))
        return self.invokers[-1]

    def _script(self, _: str, event: bytes) -> tuple[float, Outcome]:
        waits = b"wait" in event
        self.begun += waits
        return (3600.0 if waits else 0.0), Returned()

    async def began(self, count: int) -> None:
        await eventually(lambda: self.begun >= count, f"{count} have begun")


class TestMemory(LineConformance):
    @pytest.fixture
    async def rig(self) -> AsyncIterator[MemoryRig]:
        rig = MemoryRig()
        yield rig
        for invoker in rig.invokers:
            await invoker.close()


# --- workers

HANDLER = """
    import os, time, uuid

    def handle(event, context):
        match event["do"]:
            case "raise":
                raise KeyError("total")
            case "nonsense":
                return float("nan")
            case "large":
                return "x" * event["size"]
            case "wait":
                open(os.path.join(os.environ["BEGUN"], uuid.uuid4().hex), "w").close()
                time.sleep(3600)
        return event
"""


class PoolRig:
    def __init__(self, folder: Path) -> None:
        self.code, self.state, self.begun = (folder / name for name in ("code", "state", "begun"))
        self.code.mkdir()
        self.begun.mkdir()
        self.pools: list[Pool] = []
        self.mend()

    def invoker(self, *, concurrency: int = 1, timeout_s: float = 60.0) -> Invoker:
        spec = FunctionSpec(
            "orders",
            "app.handle",
            self.code,
            timeout_s=timeout_s,
            concurrency=concurrency,
            environment={"BEGUN": str(self.begun)},
        )
        self.pools.append(Pool(spec, state=self.state))
        return self.pools[-1]

    async def began(self, count: int) -> None:
        await eventually(lambda: len(list(self.begun.iterdir())) >= count, f"{count} have begun")

    def break_it(self) -> None:
        (self.code / "app.py").write_text("import nothing_of_that_name\n")

    def mend(self) -> None:
        (self.code / "app.py").write_text(textwrap.dedent(HANDLER))


class TestPool(InvokerConformance):
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[PoolRig]:
        rig = PoolRig(tmp_path)
        yield rig
        for pool in rig.pools:
            await pool.close()


# --- functions that run elsewhere


class RemoteRig:
    def __init__(self, server: FunctionServer, kind: str) -> None:
        self.server = server
        self.kind = kind
        self.remotes: list[Remote] = []

    def invoker(self, *, concurrency: int = 1, timeout_s: float = 60.0) -> Invoker:
        self.remotes.append(Remote(self._target(concurrency, timeout_s), concurrency=concurrency))
        return self.remotes[-1]

    def _target(self, concurrency: int, timeout_s: float) -> Target:
        if self.kind == "url":
            return UrlTarget(
                UrlFunction("f", Secret(f"{self.server.url}/fn"), {}, None, timeout_s, concurrency, logs=True)
            )
        arn = "arn:aws:lambda:eu-west-1:123456789012:function:priced"
        return LambdaTarget(
            LambdaFunction("f", arn, None, self.server.url, "eu-west-1", timeout_s, concurrency, logs=True)
        )

    async def began(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.server.began(count)

    def break_it(self) -> None:
        self.server.instead = refusal(429, "TooManyRequestsException", "Rate Exceeded.")

    def mend(self) -> None:
        self.server.instead = None


class RemoteConformance(InvokerConformance):
    kind = ""

    @pytest.fixture
    async def rig(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RemoteRig]:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        async with function_server() as server:
            rig = RemoteRig(server, self.kind)
            yield rig
            for remote in rig.remotes:
                await remote.close()

    async def test_a_call_that_is_cancelled_ends_its_request(self, rig: Rig) -> None:
        assert isinstance(rig, RemoteRig)
        await self.test_one_that_is_cancelled_makes_room_for_the_next(rig)
        async with asyncio.timeout(PATIENCE_S):
            await rig.server.left()


class TestUrl(RemoteConformance):
    kind = "url"


class TestLambda(RemoteConformance):
    kind = "lambda"
