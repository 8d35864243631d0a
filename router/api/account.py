"""What AWS says of an account and of its signing configurations, for tools that ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from router.api.call import Answer, Call, Carry
from router.api.concurrency import ACCOUNT_CONCURRENCY, reserved
from router.api.finding import find, named_whole
from router.api.function_code import UNZIPPED_BYTES, ZIPPED_BYTES, codes
from router.api.parts import Parts

#: AWS Lambda quotas, "Storage for uploaded functions". Here nothing is refused by it.
_CODE_BYTES: Final = 75 * 1024 * 1024 * 1024


class Account:
    """GetAccountSettings, GetFunctionCodeSigningConfig."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.operations: Mapping[str, Carry] = {
            "GetAccountSettings": self._settings,
            "GetFunctionCodeSigningConfig": self._code_signing,
        }

    async def _settings(self, _: Call) -> Answer:
        functions = self._parts.catalogue.functions.values()
        limit = {
            "TotalCodeSize": _CODE_BYTES,
            "CodeSizeUnzipped": UNZIPPED_BYTES,
            "CodeSizeZipped": ZIPPED_BYTES,
            "ConcurrentExecutions": ACCOUNT_CONCURRENCY,
            "UnreservedConcurrentExecutions": max(0, ACCOUNT_CONCURRENCY - reserved(functions)),
        }
        usage = {
            "TotalCodeSize": sum(code.size_bytes for each in functions for code in codes(each)),
            "FunctionCount": len(functions),
        }
        return Answer(200, {"AccountLimit": limit, "AccountUsage": usage})

    async def _code_signing(self, call: Call) -> Answer:
        """Say that there is none, as AWS says it."""
        function = find(self._parts, named_whole(self._parts, call))
        return Answer(200, {"CodeSigningConfigArn": "", "FunctionName": function.name})
