"""The kinds of values that say where something is: paths, interpreters, servers, addresses to listen on."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from config.kinds import Text
from config.mistakes import Unfit
from config.paths import require_code, require_file
from config.reading import Found, Schema, schema_of_text
from connectors.settings import Secret


@dataclass(frozen=True, slots=True)
class FilePath:
    """A path, relative to the file; it need not exist."""

    allowed: str = "a path"

    @property
    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1, "not": {"pattern": "://"}}

    def read(self, found: Found) -> Path:
        if not isinstance(found.value, str) or not found.value:
            raise found.mismatch(self.allowed)
        if "://" in found.value:
            raise Unfit(f"found {found.node.shown()}, not supported yet, only {self.allowed}")
        return found.reader.base / found.value


@dataclass(frozen=True, slots=True)
class ReadableFile:
    """A path to a file that exists."""

    allowed: str = "path of a PEM file"

    @property
    def schema(self) -> Schema:
        return FilePath().schema

    def read(self, found: Found) -> Path:
        path = FilePath(self.allowed).read(found)
        require_file(path, found.node.shown())
        return path


@dataclass(frozen=True, slots=True)
class Code:
    """A function's code, which exists."""

    allowed: str = "path of a folder or .zip file"

    @property
    def schema(self) -> Schema:
        return FilePath().schema

    def read(self, found: Found) -> Path:
        path = FilePath(self.allowed).read(found)
        require_code(path, found.node.shown())
        return path


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A command on PATH, or a path."""

    allowed: str = "command or path of a Python interpreter"

    @property
    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}

    def read(self, found: Found) -> str:
        text = Text(self.allowed).read(found)
        if "/" not in text:
            return text
        path = found.reader.base / text
        require_file(path, found.node.shown())
        return str(path)


_HOST_PORT: Final = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.%]{2,60}\]):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Server:
    """`host:port` of a broker."""

    allowed: str = "host:port"

    @property
    def schema(self) -> Schema:
        return schema_of_text(_HOST_PORT.pattern)

    def read(self, found: Found) -> str:
        if not isinstance(found.value, str) or not 1 <= _port(found.value) <= 65535:
            raise found.mismatch(self.allowed)
        return found.value


_URL: Final = re.compile(r"https?://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,60}\])(?::[0-9]{1,5})?(?:[/?][!$-~]*)?")


@dataclass(frozen=True, slots=True)
class Url:
    """Where a function takes events, or an endpoint failure records; never shown, as keys may be in path or query."""

    allowed: str = "http(s)://host[:port]/path without credentials"

    @property
    def schema(self) -> Schema:
        return schema_of_text(_URL.pattern)

    def read(self, found: Found) -> Secret:
        if not isinstance(found.value, str):
            raise found.mismatch(self.allowed)
        if not _URL.fullmatch(found.value) or not _has_sound_port(found.value):
            raise Unfit(f"found another text (not shown), allowed {self.allowed}")
        return Secret(found.value)


@dataclass(frozen=True, slots=True)
class Listen:
    """Address and port to listen on."""

    allowed: str = "host:port"

    @property
    def schema(self) -> Schema:
        return schema_of_text(_HOST_PORT.pattern)

    def read(self, found: Found) -> tuple[str, int]:
        if not isinstance(found.value, str):
            raise found.mismatch(self.allowed)
        return self.parse(found.value, found.node.shown())

    def parse(self, text: str, shown: str) -> tuple[str, int]:
        """Give host and port of a text, which is shown so. Raises Unfit."""
        if not 0 <= (port := _port(text)) <= 65535:
            raise Unfit(f"found {shown}, allowed {self.allowed}")
        return text.rpartition(":")[0].strip("[]"), port


def is_loopback(host: str) -> bool:
    """Can only this machine reach it?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _has_sound_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _port(text: str) -> int:
    match = _HOST_PORT.fullmatch(text)
    return int(match[2]) if match else -1
