"""Requests to the Lambda API as no client in its right mind would send them, by AWS's own model of the API.

For each operation of the model (botocore has it) a request is made whose members mostly have the types, ranges and
words that the model says, so that it comes past the first checks; then some of them get values that they should not
have, and some requests are spoiled as HTTP. What the API answers is learned from: names and UUIDs come back in later
requests. The same seed, with the same answers, gives the same requests.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import quote

import botocore.session
from botocore.model import OperationModel, Shape

from router.api.operations import OPERATIONS

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


def _zipped() -> str:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo("app.py"), "def handle(event, context):\n    return event\n")
    return base64.b64encode(content.getvalue()).decode()


ZIP = _zipped()
#: What members are called -> what they are in a request that means something.
POOL: dict[str, tuple[Any, ...]] = {
    "FunctionName": ("orders", "clicks", "orders:live", "orders:1", f"{ARN}orders", f"{ARN}orders:$LATEST"),
    "Runtime": ("python3.12", "python3.9"),
    "Handler": ("app.handle",),
    "Role": ("arn:aws:iam::000000000000:role/any",),
    "Qualifier": ("$LATEST", "1", "2", "live", "0"),
    "Name": ("live", "next"),
    "FunctionVersion": ("$LATEST", "1", "2"),
    "StatementId": ("s3", "sns"),
    "Action": ("lambda:InvokeFunction",),
    "Principal": ("s3.amazonaws.com", "*", "000000000000"),
    "Resource": (f"{ARN}orders", f"{ARN}clicks", "arn:aws:lambda:us-east-1:000000000000:event-source-mapping:"),
    "EventSourceArn": (
        "arn:aws:sqs:us-east-1:000000000000:orders",
        "arn:aws:sqs:us-east-1:000000000000:orders.fifo",
        "arn:aws:kinesis:us-east-1:000000000000:stream/clicks",
        "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000",
    ),
    "Destination": ("arn:aws:sqs:us-east-1:000000000000:dlq", f"{ARN}clicks", "arn:aws:s3:::failures", "kafka://dlq"),
    "TargetArn": ("arn:aws:sqs:us-east-1:000000000000:dlq", "arn:aws:sns:us-east-1:000000000000:dlq"),
    "Pattern": ('{"body":{"a":[1]}}', '{"data":{"b":[{"prefix":"x"}]}}', "{}", "{"),
    "Topics": (["orders"],),
    "Endpoints": ({"KAFKA_BOOTSTRAP_SERVERS": ["127.0.0.1:1"]},),
    "URI": ("arn:aws:secretsmanager:us-east-1:000000000000:secret:a",),
    "PackageType": ("Zip",),
    "Marker": ("", "0", "orders"),
    "MaxItems": (1, 50, 100),
    "Code": ({"ZipFile": ZIP},),
    "ZipFile": (ZIP,),
    "StartingPosition": ("LATEST", "TRIM_HORIZON"),
    "BatchSize": (1, 10),
    "ReservedConcurrentExecutions": (0, 5),
    "Key": ("a", "B_2"),
    "Value": ("text",),
    "Mode": ("Active",),
    "InvocationType": ("RequestResponse", "Event", "DryRun"),
    "ClientContext": ("e30=",),
}
#: What no member should be.
WILD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, 10**30, -(10**30), 1e308),
    *("", " ", "a" * 300, "a" * 20_000, "é\u0000\u2028", "\U0001f600", "${env:HOME}", "../../etc/passwd", "%s%n"),
    *("arn:aws:lambda", ":" * 40, "$LATEST", "{}", "2026-01-01T00:00:00Z"),
    *([], [[]], [None], {}, {"": ""}, {"a": {"b": {"c": [1]}}}, ["a"] * 500),
    {str(number): number for number in range(200)},
    json.loads('{"a":' * 28 + "[1]" + "}" * 28),
)
#: Members that the model does not demand, and the API does.
_NEEDED = ("Runtime", "Handler", "EventSourceArn", "StartingPosition")
_WILD_SHARE = 0.06
_ABSENT_SHARE = 0.45
_SPOILT_SHARE = 0.1
_SANE_SHARE = 0.5
_SANE_ABSENT_SHARE = 0.85
_LEARNED = 50
_OFTEN = ("CreateFunction", "CreateEventSourceMapping", "UpdateEventSourceMapping", "CreateAlias", "PublishVersion")
_OFTEN_COUNT = 4


BLOBS = (ZIP, "", "not base64", "AAAA")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    operation: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    #: Is it HTTP that must be answered? Else the connection may just end.
    is_sound: bool = True

    def sent(self, host: str) -> bytes:
        """Give the bytes of it."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {host}"]
        headers = {"Content-Length": str(len(self.body)), **self.headers}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace") + self.body


class Requests:
    """Makes one request after the other."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._learned: dict[str, list[Any]] = {}
        #: Is the request that is being made one that a client might mean?
        self._is_sane = True
        model = botocore.session.get_session().get_service_model("lambda")
        known = set(model.operation_names)
        self._operations = [model.operation_model(each.name) for each in OPERATIONS if each.name in known]
        # What is made is there for a while.
        self._operations += [each for each in self._operations if each.name in _OFTEN] * _OFTEN_COUNT

    def next(self) -> Asked:
        operation = self._rng.choice(self._operations)
        self._is_sane = self._rng.random() < _SANE_SHARE
        asked = self._asked(operation)
        return self._spoilt(asked) if not self._is_sane and self._rng.random() < _SPOILT_SHARE else asked

    def learn(self, document: Any) -> None:
        """Take names out of an answer that later requests may ask for."""
        if not isinstance(document, dict):
            return
        for name in ("UUID", "FunctionName", "FunctionArn", "Version", "RevisionId", "NextMarker"):
            if isinstance(value := document.get(name), str):
                as_name = {"FunctionArn": "Resource", "Version": "Qualifier", "NextMarker": "Marker"}.get(name, name)
                self._learned[as_name] = [*self._learned.get(as_name, [])[-_LEARNED:], value]
        for each in document.values():
            for inner in each if isinstance(each, list) else ():
                self.learn(inner)

    # --- one request

    def _asked(self, operation: OperationModel) -> Asked:
        shape = operation.input_shape
        members = dict(shape.members) if shape else {}
        required = set(shape.required_members) if shape else set()
        target, query = operation.http["requestUri"], []
        headers: dict[str, str] = {}
        document: dict[str, Any] = {}
        payload = shape.serialization.get("payload") if shape else None
        body = b""
        for name, member in members.items():
            place = member.serialization.get("location")
            if place != "uri" and name not in required and self._is_absent(name):
                continue
            value = self._value(name, member)
            called = member.serialization.get("name", name)
            if place == "uri":
                target = _filled(target, called, quote(_text(value), safe="" if self._rng.random() < 0.8 else "/:"))
            elif place == "querystring":
                query += [(called, _text(each)) for each in (value if isinstance(value, list) else [value])]
            elif place == "header":
                headers[called] = _one_line(_text(value))
            elif name == payload:
                body = self._payload()
            else:
                document[called] = value
        if not payload and operation.http["method"] in ("POST", "PUT"):
            document |= {"Unknown": self._rng.choice(WILD)} if self._rng.random() < 0.05 else {}
            body = json.dumps(document).encode()
        text = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in query)
        return Asked(operation.name, operation.http["method"], target + (f"?{text}" if text else ""), headers, body)

    def _value(self, name: str, shape: Shape, depth: int = 0) -> Any:
        if not self._is_sane and self._rng.random() < _WILD_SHARE:
            return self._rng.choice(WILD)
        known = [*POOL.get(name, ()), *self._learned.get(name, ())]
        if known and self._rng.random() < 0.9:
            return self._rng.choice(known)
        return self._made(name, shape, depth)

    def _made(self, name: str, shape: Any, depth: int) -> Any:
        match shape.type_name:
            case "structure":
                made: Any = self._structure(shape, depth)
            case "list":
                made = [self._value(name, shape.member, depth + 1) for _ in range(self._rng.randint(0, 3))]
            case "map":
                keys = [_text(self._value("Key", shape.key, depth + 1)) for _ in range(self._rng.randint(0, 3))]
                made = {key: self._value("Value", shape.value, depth + 1) for key in keys}
            case "integer" | "long":
                made = self._integer(shape)
            case "boolean":
                made = self._rng.random() < 0.5
            case "double" | "float" | "timestamp":
                made = self._rng.choice((0, 0.5, 1.0, -0.1, 1.1, 1_700_000_000, 4e9))
            case "blob":
                made = self._rng.choice(BLOBS)
            case _:
                made = self._string(shape)
        return made

    def _is_absent(self, name: str) -> bool:
        if self._is_sane and name in _NEEDED:
            return False
        return self._rng.random() < (_SANE_ABSENT_SHARE if self._is_sane else _ABSENT_SHARE)

    def _structure(self, shape: Any, depth: int) -> Any:
        if depth > 4:
            return {}
        wanted = set(shape.required_members)
        return {
            name: self._value(name, member, depth + 1)
            for name, member in shape.members.items()
            if name in wanted or not self._is_absent(name)
        }

    def _integer(self, shape: Any) -> int:
        low, high = shape.metadata.get("min", 0), shape.metadata.get("max", 1000)
        return self._rng.choice((low, high, low - 1, high + 1, self._rng.randint(int(low), int(high))))

    def _string(self, shape: Any) -> str:
        words = getattr(shape, "enum", None)
        if words and self._rng.random() < 0.9:
            return str(self._rng.choice(words))
        letters = "abcXYZ019-_:./$ é"
        return "".join(self._rng.choice(letters) for _ in range(self._rng.choice((1, 3, 12, 70, 300))))

    def _payload(self) -> bytes:
        return self._rng.choice(
            (b"", b"{}", b'{"a":1}', b"[1", b"null", b"\xff", b'"' + b"x" * 1000 + b'"', b"[" * 5000)
        )

    # --- HTTP that is not as it should be

    def _spoilt(self, asked: Asked) -> Asked:
        method, target, headers, body = asked.method, asked.target, dict(asked.headers), asked.body
        is_sound = True
        choose = self._rng.choice
        match self._rng.randrange(9):
            case 0:
                method = choose(("PATCH", "HEAD", "OPTIONS", "DELETE", "GET", "POST", "PUT"))
            case 1:
                target = target.replace("/functions", "//functions").replace("2015", choose(("2016", "2015/.")))
            case 2:
                target += choose(("/", "/..", "/%2e%2e", "/%00", "/%ff", "?a=%ff", "?" + "a&" * 400, "/more/of/it"))
            case 3:
                body = bytes(self._rng.randrange(256) for _ in range(choose((1, 20, 500))))
            case 4:
                body = body[: self._rng.randint(0, len(body))]
            case 5:
                body = b'{"a":' * 3000 + body + b"}" * choose((0, 3000))
            case 6:
                headers["Authorization"] = choose(("", "Bearer x", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e"))
                headers["X-Amz-Date"] = choose(("", "20260101T000000Z", "yesterday"))
            case 7:
                headers["Content-Type"] = choose(("text/xml", "application/x-www-form-urlencoded", ";;;"))
                headers["Content-Encoding"] = "gzip"
            case _:
                headers[choose(("Content-Length", "Transfer-Encoding", "A B"))] = choose(("-1", "chunked", "1e3"))
                is_sound = False
        return Asked(asked.operation, method, target, headers, body, is_sound)


def _filled(target: str, name: str, value: str) -> str:
    return target.replace(f"{{{name}}}", value).replace(f"{{{name}+}}", value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ").replace("\u0000", " ")[:4000]
