"""The keys of the `api` block: who may call the Lambda API, and how it behaves."""
# ruff: noqa: RUF009 - `takes` gives a dataclass field

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from config.blocks import Block, BlockOf, ListOf, MapOf, Names, takes
from config.kinds import Flag, SecretText, Text
from config.mistakes import Report, Unfit
from config.names import SERVERS
from config.reading import Found, Schema
from connectors.settings import Secret

#: Fewest letters of a secret: what is shorter can be guessed from one signed request.
SECRET_LETTERS: Final = 16
_ACCESS_KEY_ID: Final = Text("1 to 128 letters, digits and _", re.compile(r"[A-Za-z0-9_]{1,128}"))
_SERVICE: Final = Text(
    "a service as policies name it, such as s3.amazonaws.com", re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,9}")
)
_CLUSTERS: Final = Names(
    "the ARN of an Amazon MSK cluster or VPC connection",
    re.compile(r"arn:[a-z-]+:kafka:[a-z0-9-]+:[0-9]{12}:(?:cluster|vpc-connection)/[A-Za-z0-9/_.-]{1,200}"),
)


@dataclass(frozen=True, slots=True)
class KeySecret:
    """A secret that is sent in headers or signed with; never shown."""

    allowed: str = f"{SECRET_LETTERS} or more letters of ASCII without spaces, best as ${{env:NAME}} or ${{file:PATH}}"

    @property
    def schema(self) -> Schema:
        return {"type": "string"}

    def read(self, found: Found) -> Secret:
        secret = SecretText(self.allowed).read(found)
        if not re.fullmatch(rf"[!-~]{{{SECRET_LETTERS},}}", secret.reveal()):
            raise Unfit(f"found another text (not shown), allowed {self.allowed}")
        return secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(Block):
    """A key that calls may be signed with."""

    access_key_id: str = takes(_ACCESS_KEY_ID, "Its name, which is sent with each call.")
    secret_access_key: Secret = takes(KeySecret(), "What calls are signed with.")
    service: str | None = takes(
        _SERVICE,
        "The service that holds it, which may invoke functions whose policy lets it, and nothing else.",
        default=None,
        shown="none: its holder may do everything",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Api(Block):
    """The Lambda API on `listen`."""

    strict: bool = takes(
        Flag(), "Does it refuse what only AWS's product cannot do? With `false` it takes all that the file takes.",
        default=True,
    )  # fmt: skip
    keys: tuple[ApiKey, ...] = takes(
        ListOf(BlockOf(ApiKey), 0, 100),
        "Keys that calls must be signed with. Without any, calls need no signature, and `listen` must be loopback.",
        default=(),
        shown="none",
    )
    msk_clusters: dict[str, tuple[str, ...]] = takes(
        MapOf(_CLUSTERS, SERVERS, "a block of clusters"),
        "Brokers of Amazon MSK clusters by their ARNs, for mappings that the API makes of these.",
        default={},
        shown="none",
    )
    metrics_token: Secret | None = takes(
        KeySecret(),
        "Lets `/metrics` be read with `Authorization: Bearer ...` where calls need a signature.",
        default=None,
        shown="none",
    )


def find(api: Api, report: Report) -> None:
    """Report keys of one name."""
    seen: set[str] = set()
    for key in api.keys if api.sound("keys") else ():
        if key.sound("access_key_id"):
            if key.access_key_id in seen:
                report.add(key.at("access_key_id"), "found the name of another key too, allowed each once")
            seen.add(key.access_key_id)
