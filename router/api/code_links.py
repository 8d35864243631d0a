"""Links by which the code of functions is fetched: they say what for and how long, and prove that we made them.

AWS answers GetFunction with a link to S3 that holds for ten minutes, and tools fetch it without further credentials.
Ours lead to this listener. They end with the process that made them.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from router.api.call import Answer, Call, Carry
from router.api.errors import denied, not_found
from router.api.operations import CODE_PATH
from router.api.parts import Parts
from router.catalogue.records import Code
from router.errors import NotFound

#: How long a link holds, seconds (AWS Lambda API reference, GetFunction).
LINK_S: Final = 600


class CodeLinks:
    """Makes links to archives, and GetCode, which answers them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._key = secrets.token_bytes(32)
        self.operations: Mapping[str, Carry] = {"GetCode": self._get}

    def location(self, code: Code, call: Call) -> dict[str, str]:
        """Say where code is: a link for the caller, or a place of this machine; nothing if it is not here."""
        if code.folder is not None:
            return {"Location": Path(code.folder).as_uri()}
        return {"Location": self._link(code, call)} if code.sha256 else {}

    def _link(self, code: Code, call: Call) -> str:
        text = f"{code.sha256}.{int(self._parts.wall()) + LINK_S}"
        path = CODE_PATH.format(Token=f"{text}.{self._proof(text)}")
        scheme = "https" if call.headers.get("x-forwarded-proto") == "https" else "http"
        return f"{scheme}://{call.headers.get('host', 'localhost')}{path}"

    def _proof(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), hashlib.sha256).hex()

    async def _get(self, call: Call) -> Answer:
        text, _, proof = call.path["Token"].rpartition(".")
        if not hmac.compare_digest(proof.encode(), self._proof(text).encode()):
            raise denied("The link is not valid. Ask for another one with GetFunction.")
        sha256, _, until = text.partition(".")
        if int(until) < self._parts.wall():
            raise denied("The link has expired. Ask for another one with GetFunction.")
        try:
            path = await self._parts.code.path(sha256)
            archive = await asyncio.to_thread(path.read_bytes)
        except (NotFound, FileNotFoundError):  # it may go in between
            raise not_found("The code is not kept any more: no version of a function uses it.") from None
        return Answer(200, body=archive, content_type="application/zip")
