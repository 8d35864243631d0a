"""The forms of names that several blocks take: topics, servers, queues, endpoints, regions."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from config.blocks import ListOf
from config.kinds import Server, Text

TOPIC: Final = Text(
    "a topic name of 1 to 249 letters, digits, ., - and _", re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")
)
GROUP: Final = Text("1 to 200 letters, digits and -/*:_+=.@", re.compile(r"[A-Za-z0-9/*:_+=.@-]{1,200}"))
SERVERS: Final = ListOf(Server(), 1, 10, commas=True)
URL: Final = Text("http(s)://host[:port] without credentials", re.compile(r"https?://[^\s/@?#]+(?:/[^\s@?#]*)?"))
REGION: Final = Text("name of a region", re.compile(r"[a-z0-9-]{1,32}"))
BUCKET: Final = Text(
    "a bucket name of 3 to 63 small letters, digits, . and -", re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
)
QUEUE: Final = Text(
    "name, URL or ARN of a queue",
    re.compile(r"(?:https?://[^\s@]+/|arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]+:)?[A-Za-z0-9_-]{1,80}(?:\.fifo)?"),
)

#: A queue's URL at AWS itself, the older form too (Amazon SQS developer guide, "Queue and message identifiers").
_AWS_HOST: Final = re.compile(r"https?://(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?/")


class Queue(NamedTuple):
    """What the name, URL or ARN of a queue says; None = left to whoever resolves it."""

    name: str
    account: str | None
    region: str | None

    @property
    def is_fifo(self) -> bool:
        return self.name.endswith(".fifo")

    def may_be(self, other: Queue) -> bool:
        """Say whether both may name one queue, as far as they tell."""
        return self.name == other.name and all(
            None in pair or pair[0] == pair[1] for pair in ((self.account, other.account), (self.region, other.region))
        )


def parse_queue(text: str) -> Queue:
    """Take the name, URL or ARN of a queue apart."""
    if text.startswith("arn:"):
        *_, region, account, name = text.split(":")
        return Queue(name, account, region)
    if "/" not in text:
        return Queue(text, None, None)
    *_, account, name = text.split("/")
    host = _AWS_HOST.match(text)
    return Queue(name, account if account.isdecimal() else None, (host[1] or host[2]) if host else None)
