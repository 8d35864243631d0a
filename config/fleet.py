"""The keys of `state`: a directory of this machine, or a Redis that replicas share."""
# ruff: noqa: RUF009 - `takes` gives a dataclass field

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from config.blocks import Block, BlockOf, takes
from config.kinds import SecretText, Size, Text
from config.locations import FilePath, ReadableFile
from config.mistakes import Unfit
from config.names import BUCKET, OBJECT_PREFIX, REGION, URL
from config.reading import Found, Schema, schema_of_text
from connectors.settings import Secret

#: What fleets and replicas may be called: the names are parts of keys and of paths.
NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")
NAME_ALLOWED: Final = "1 to 64 letters, digits, ., - and _"

#: Of which length a lease is: shorter ones are lost by a pause of a busy machine, longer ones hold a shard for nobody.
LEASE_S: Final = (3.0, 300.0)

_PORT: Final = 6379
_SCHEMES: Final = ("redis", "rediss")
_URL_ALLOWED: Final = "redis://[[user]:password@]host[:port][/database], or rediss:// for TLS"
_NO_SLASHES: Final = re.compile("rediss?:", re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.%]{2,60}")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What the URL of a Redis says."""

    tls: bool
    host: str
    port: int
    database: int
    username: str | None
    password: Secret | None


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a Redis is; never shown, as it may hold a password."""

    allowed: str = _URL_ALLOWED

    @property
    def schema(self) -> Schema:
        return schema_of_text("rediss?://[!-~]+")

    def read(self, found: Found) -> RedisAddress:
        if not isinstance(found.value, str):
            raise found.mismatch(self.allowed)
        if "://" not in found.value:
            raise Unfit(f"found a text without :// (not shown), allowed {self.allowed}")
        return _address(found.value)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of this machine, or where a Redis is."""

    allowed: str = f"a directory; or {_URL_ALLOWED}"

    @property
    def schema(self) -> Schema:
        return {"anyOf": [FilePath().schema, RedisUrl().schema]}

    def read(self, found: Found) -> Path | RedisAddress:
        if isinstance(found.value, str) and "://" in found.value:
            return _address(found.value)
        if isinstance(found.value, str) and _NO_SLASHES.match(found.value):
            raise _misread("// is missing behind its scheme")  # as a directory it would be shown, with its password
        return FilePath(self.allowed).read(found)


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """A folder that all replicas see at the same path."""

    allowed: str = "an absolute path, at which every replica finds the same folder"

    @property
    def schema(self) -> Schema:
        return schema_of_text("/.*")

    def read(self, found: Found) -> Path:
        path = found.value
        if not isinstance(path, str) or not path.startswith("/"):
            raise found.mismatch(self.allowed)
        return Path(path)


def _address(text: str) -> RedisAddress:
    """Read the URL of a Redis; what is wrong with it is told without it, as a password may be anywhere in it."""
    scheme = text.partition("://")[0]
    if scheme not in _SCHEMES:
        shown = f"{scheme}://" if re.fullmatch(r"[a-z0-9+.-]{1,20}", scheme) else "another scheme"
        raise Unfit(f"found {shown}, allowed a directory, redis:// or rediss://")
    if not re.fullmatch("[!-~]+", text):
        raise _misread("there is a space, or a letter beyond ASCII; in a user or password its bytes are written %XX")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _misread("its host or port cannot be read") from None
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise _misread("there are no options; ?, # and / in a user or password are written %3F, %23 and %2F")
    if not parts.hostname or not _HOST.fullmatch(parts.hostname) or port == 0:
        raise _misread("its host or port cannot be read; @, : and / in a user or password are written %40, %3A and %2F")
    username, password = _credentials(parts)
    return RedisAddress(scheme == "rediss", parts.hostname, port or _PORT, _database(parts.path), username, password)


def _credentials(parts: SplitResult) -> tuple[str | None, Secret | None]:
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if username and not password:
        raise _misread("a user without a password; a password alone is written redis://:PASSWORD@host")
    return username or None, Secret(password) if password else None


def _database(path: str) -> int:
    text = path.removeprefix("/").removesuffix("/")
    if text and not re.fullmatch("[0-9]{1,5}", text):
        raise _misread("what follows the host is no number of a database")
    return int(text or 0)


def _misread(why: str) -> Unfit:
    return Unfit(f"found a URL (not shown) in which {why}: allowed {_URL_ALLOWED}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis(Block):
    """The Redis that the replicas share."""

    url: RedisAddress = takes(RedisUrl(), "Where it is; never shown.")
    username: str | None = takes(
        Text("name of an ACL user", re.compile(r"[!-~]{1,256}")), "User, if the URL names none.", default=None
    )
    password: Secret | None = takes(SecretText(), "Password, if the URL has none.", default=None, shown="none")
    ca: Path | None = takes(
        ReadableFile(), "Authorities to trust, with `rediss://`.", default=None, shown="the system's"
    )
    certificate: Path | None = takes(ReadableFile(), "Our own certificate, with `rediss://`.", default=None)
    key: Path | None = takes(ReadableFile(), "Its key.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadBucket(Block):
    """An S3 bucket; one object for each large payload."""

    bucket: str = takes(BUCKET, "The bucket.", source="S3")
    prefix: str = takes(
        OBJECT_PREFIX,
        "What stands before the keys, such as `headrace/`.",
        default="",
        shown="nothing",
    )
    endpoint_url: str | None = takes(URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`")
    region: str | None = takes(REGION, "AWS region of the bucket.", default=None, shown="`aws.region`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payloads(Block):
    """Where large payloads of failures are kept instead of in Redis: exactly one key."""

    ONE: ClassVar[bool] = True

    s3: PayloadBucket | None = takes(BlockOf(PayloadBucket), "An S3 bucket.", default=None)
    folder: Path | None = takes(SharedFolder(), "A folder.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class State(Block):
    """State in a Redis, with all that can be said of it."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "sqlite": "the embedded store is named by its directory alone: state: ./.headrace",
        "path": "the embedded store is named by its directory alone: state: ./.headrace",
    }

    redis: Redis = takes(BlockOf(Redis), "Where it is.")
    payloads: Payloads | None = takes(
        BlockOf(Payloads), "Where payloads of failures go that are too large for Redis.", default=None, shown="nowhere"
    )
    payloads_over: int = takes(
        Size(1024, "at least 1KiB: bytes as a number, or 500KB, 1MiB"),
        "Payloads larger than this go there; with `payloads` only.",
        default=64 * 1024,
        shown="64KiB",
    )


#: What `state` comes to.
Stated: TypeAlias = Path | RedisAddress | State
