"""Reserved concurrency of functions. It counts over all versions of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from router.api.call import Answer, Call, Carry
from router.api.constraints import check
from router.api.errors import invalid
from router.api.finding import find, find_ours, named_whole
from router.api.function_requests import CONCURRENCY
from router.api.parts import Parts
from router.catalogue.records import LATEST, Function

#: AWS Lambda quotas, "Concurrent executions" by default; and what must be left to functions that reserve nothing.
ACCOUNT_CONCURRENCY: Final = 1000
_UNRESERVED: Final = 100
#: Held while some is reserved, for what all functions have is looked at before.
_RESERVING: Final = "$reserving"


class Concurrency:
    """PutFunctionConcurrency, GetFunctionConcurrency, DeleteFunctionConcurrency."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.operations: Mapping[str, Carry] = {
            "PutFunctionConcurrency": self._put,
            "GetFunctionConcurrency": self._get,
            "DeleteFunctionConcurrency": self._delete,
        }

    async def _put(self, call: Call) -> Answer:
        parts, document = self._parts, call.document
        name = named_whole(parts, call)
        check(CONCURRENCY, document)
        wanted = int(document["ReservedConcurrentExecutions"])
        async with parts.catalogue.changing(name), parts.catalogue.changing(_RESERVING):
            function = find_ours(parts, name, LATEST)
            if parts.is_strict():
                self._refuse_too_much(name, wanted)
            await parts.catalogue.put_function(replace(function, reserved_concurrency=wanted))
        return Answer(200, {"ReservedConcurrentExecutions": wanted})

    def _refuse_too_much(self, name: str, wanted: int) -> None:
        others = [each for each in self._parts.catalogue.functions.values() if each.name != name]
        if ACCOUNT_CONCURRENCY - reserved(others) - wanted < _UNRESERVED:
            raise invalid(
                "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
                f"below its minimum value of [{_UNRESERVED}]."
            )

    async def _get(self, call: Call) -> Answer:
        function = find(self._parts, named_whole(self._parts, call))
        found = function.reserved_concurrency
        return Answer(200, {} if found is None else {"ReservedConcurrentExecutions": found})

    async def _delete(self, call: Call) -> Answer:
        parts = self._parts
        name = named_whole(parts, call)
        async with parts.catalogue.changing(name):
            function = find_ours(parts, name)
            if function.reserved_concurrency is not None:
                await parts.catalogue.put_function(replace(function, reserved_concurrency=None))
        return Answer(204)


def reserved(functions: Iterable[Function]) -> int:
    """Add up what functions reserve."""
    return sum(each.reserved_concurrency or 0 for each in functions)
