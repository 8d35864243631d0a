"""What several blocks take: topics, servers, queues, streams, endpoints, regions, variables."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from config.blocks import ListOf, MapOf, Names
from config.kinds import HeaderText, Text, VariableText
from config.locations import Server
from router.core.environment import RESERVED_VARIABLES

TOPIC: Final = Text(
    "a topic name of 1 to 249 letters, digits, ., - and _", re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
)
GROUP: Final = Text("1 to 200 letters, digits and -/*:_+=.@", re.compile(r"[A-Za-z0-9/*:_+=.@-]{1,200}"))
SERVERS: Final = ListOf(Server(), 1, 10, commas=True)
URL: Final = Text("http(s)://host[:port] without credentials", re.compile(r"https?://[^\s/@?#]+(?:/[^\s@?#]*)?"))
REGION: Final = Text("name of a region", re.compile(r"[a-z0-9-]{1,32}"))
BUCKET: Final = Text(
    "a bucket name of 3 to 63 small letters, digits, . and -", re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
)
OBJECT_PREFIX: Final = Text("1 to 256 letters, digits and !-_.*'()/", re.compile(r"[A-Za-z0-9!_.*'()/-]{1,256}"))
QUEUE: Final = Text(
    "name, URL or ARN of a queue",
    re.compile(r"(?:https?://[^\s@]+/|arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]+:)?[A-Za-z0-9_-]{1,80}(?:\.fifo)?"),
)
#: A Kinesis stream, and a consumer that is registered with it (Amazon Kinesis API reference, RegisterStreamConsumer).
_STREAM: Final = "[A-Za-z0-9_.-]{1,128}"
CONSUMER: Final = "/consumer/"
STREAM_ARN: Final = (
    rf"arn:[a-z-]+:kinesis:[a-z0-9-]+:[0-9]+:stream/{_STREAM}(?:{CONSUMER}[A-Za-z0-9_.-]{{1,128}}:[0-9]+)?"
)
STREAM: Final = Text("name or ARN of a stream, or ARN of a consumer of it", re.compile(rf"{_STREAM}|{STREAM_ARN}"))
#: A stream of a table, which is named by when it was switched on (Amazon DynamoDB Streams API reference).
_TABLE: Final = "[A-Za-z0-9_.-]{3,255}"
TABLE_STREAM_ARN: Final = rf"arn:[a-z-]+:dynamodb:[a-z0-9-]+:[0-9]+:table/{_TABLE}/stream/[0-9T:.-]{{1,40}}"
TABLE: Final = Text("name of a table, or ARN of its stream", re.compile(rf"{_TABLE}|{TABLE_STREAM_ARN}"))
SNS_TOPIC: Final = Text(
    "name or ARN of a topic",
    re.compile(r"(?:arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]+:)?(?:[A-Za-z0-9_-]{1,256}|[A-Za-z0-9_-]{1,251}\.fifo)"),
)
#: A queue's URL at AWS itself, the older form too (Amazon SQS developer guide, "Queue and message identifiers").
_AWS_HOST: Final = re.compile(r"https?://(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?/")

#: Amazon CloudWatch Logs API reference, CreateLogGroup.
LOG_GROUP: Final = Text("name of a log group", re.compile(r"[A-Za-z0-9_/.#-]{1,512}"))

VARIABLES: Final = MapOf(
    Names(
        "letters, digits and _, not beginning with a digit",
        re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
        dict.fromkeys(RESERVED_VARIABLES, "set by the runtime, allowed any other variable"),
    ),
    VariableText(),
    "a block of variables",
)

HEADERS: Final = MapOf(
    Names("the name of an HTTP header", re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")),
    HeaderText(),
    "a block of headers",
)

_REQUEST_HEADERS: Final = ("connection", "content-length", "expect", "host", "transfer-encoding")
#: What the requests to a function say themselves.
OWN_HEADERS: Final = (
    *_REQUEST_HEADERS,
    "lambda-runtime-aws-request-id",
    "lambda-runtime-deadline-ms",
    "x-amz-log-type",
)
#: What the requests to a destination say themselves.
DESTINATION_HEADERS: Final = (
    *_REQUEST_HEADERS,
    "content-type",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
)

#: A function of AWS Lambda (AWS Lambda API reference, Invoke).
_FUNCTION_ARN: Final = re.compile(
    r"(arn:[a-z-]+:lambda:([a-z0-9-]+):[0-9]{12}:function:([A-Za-z0-9_-]{1,64}))(?::(\$LATEST|[A-Za-z0-9_-]{1,128}))?"
)
FUNCTION_ARN: Final = Text("the ARN of a function, version or alias", _FUNCTION_ARN)


class FunctionArn(NamedTuple):
    """What the ARN of a function says."""

    #: Without version or alias.
    arn: str
    region: str
    name: str
    #: Version or alias; None = none, or `$LATEST`, which is the same.
    qualifier: str | None


def parse_function(text: str) -> FunctionArn | None:
    """Take the ARN of a function apart; None = it is none."""
    match = _FUNCTION_ARN.fullmatch(text)
    if match is None:
        return None
    return FunctionArn(match[1], match[2], match[3], None if match[4] == "$LATEST" else match[4])


class Resource(NamedTuple):
    """What the name, URL or ARN of a queue, stream or table says; None = left to whoever resolves it."""

    name: str
    account: str | None
    region: str | None

    @property
    def is_fifo(self) -> bool:
        """Say it of a queue."""
        return self.name.endswith(".fifo")

    def may_be(self, other: Resource) -> bool:
        """Say whether both, of one kind, may name the same, as far as they tell."""
        return self.name == other.name and all(
            None in pair or pair[0] == pair[1] for pair in ((self.account, other.account), (self.region, other.region))
        )


def parse_queue(text: str) -> Resource:
    """Take the name, URL or ARN of a queue apart."""
    if text.startswith("arn:"):
        *_, region, account, name = text.split(":")
        return Resource(name, account, region)
    if "/" not in text:
        return Resource(text, None, None)
    *_, account, name = text.split("/")
    host = _AWS_HOST.match(text)
    return Resource(name, account if account.isdecimal() else None, (host[1] or host[2]) if host else None)


def parse_stream(text: str) -> Resource:
    """Take the name or ARN of a stream, of a consumer of it, or of a table's stream apart."""
    if not text.startswith("arn:"):
        return Resource(text, None, None)
    _, _, _, region, account, path = text.split(":", 5)
    return Resource(path.split("/")[1], account, region)
