"""What a bucket notifies whom of, and what a queue lets S3 send: pure, shared by check and setup.

Sources: Amazon S3 user guide, "Configuring event notifications using object key name filtering" (overlaps, and how
filters are spelled), "Supported event types", "Granting permissions to publish event notification messages"; Amazon
SQS developer guide on policies.

Two rules of one bucket overlap when some event could fit both: the same event type, one prefix the beginning of the
other, and one suffix the end of the other. S3 refuses that, its stand-ins accept it.

S3 compares filters with the *encoded* key, so that they must be written encoded (a space as `+`); its stand-ins
compare them with the key itself, or with a spelling of their own. For those a filter is cut where spellings begin to
differ, so that it lets more through; which keys are wanted is decided once more, exactly, when a notification is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count
from typing import Any, Final

from connectors.s3_key import encode_key
from connectors.settings import S3Settings

#: What S3 says when rules overlap.
AMBIGUOUS: Final = (
    "Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the prefixes are "
    "overlapping for the same event type."
)
#: Characters of the name of a rule, at most.
_ID_LENGTH: Final = 255
#: Spelled alike by S3 and all its stand-ins: the beginning of a key, the end of a key.
_PLAIN_START: Final = re.compile(r"[A-Za-z0-9._/-]*")
_PLAIN_END: Final = re.compile(r"[A-Za-z0-9._/-]*\Z")

_TARGETS: Final = {
    "QueueConfigurations": "QueueArn",
    "TopicConfigurations": "TopicArn",
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One notification of a bucket."""

    id: str
    #: ARN of a queue, a topic or a function.
    target: str
    #: Event types as S3 names them, such as `s3:ObjectCreated:*`.
    events: frozenset[str]
    #: As they are compared with keys by the store; empty = every key.
    prefix: str
    suffix: str

    def __str__(self) -> str:
        return f"{self.id!r} ({self.what()}, to {self.target})"

    def what(self) -> str:
        """Say which events of which keys it sends."""
        filters = (("prefix", self.prefix), ("suffix", self.suffix))
        return ", ".join([*sorted(self.events), *(f"{name} {value!r}" for name, value in filters if value)])

    @property
    def is_topic(self) -> bool:
        return ":sns:" in self.target

    def overlaps(self, other: Rule) -> bool:
        """Say whether some event could fit both."""
        return (
            any(_same_event(ours, theirs) for ours in self.events for theirs in other.events)
            and (self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix))
            and (self.suffix.endswith(other.suffix) or other.suffix.endswith(self.suffix))
        )

    def configuration(self) -> dict[str, Any]:
        """Give it as S3 takes a rule that sends to a queue."""
        filters = [
            {"Name": name, "Value": value}
            for name, value in (("prefix", self.prefix), ("suffix", self.suffix))
            if value
        ]
        return {
            "Id": self.id,
            "QueueArn": self.target,
            "Events": sorted(self.events),
            **({"Filter": {"Key": {"FilterRules": filters}}} if filters else {}),
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a mapping wants to be notified of."""

    events: tuple[str, ...]
    #: Spellings of beginning and end of the keys, any of which the store may compare; the first is what we write.
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]

    @classmethod
    def of(cls, settings: S3Settings, *, is_s3: bool) -> Wanted:
        """Say what a mapping wants of S3 itself, or of what stands in for it."""
        prefix, suffix = settings.prefix, settings.suffix
        events = tuple(event for event in settings.events if not _is_within_others(event, settings.events))
        if is_s3:
            return cls(events, (encode_key(prefix),), (encode_key(suffix),))
        return cls(
            events,
            (_found(_PLAIN_START.match(prefix)), prefix, encode_key(prefix)),
            (_found(_PLAIN_END.search(suffix)), suffix, encode_key(suffix)),
        )

    def missing(self, rules: Iterable[Rule]) -> tuple[str, ...]:
        """Give the events that none of the rules lets through for all wanted keys."""
        covered = [event for rule in rules if self._is_within(rule) for event in rule.events]
        return tuple(event for event in self.events if not any(_is_within_event(event, other) for other in covered))

    def rule(self, name: str, queue_arn: str, events: tuple[str, ...]) -> Rule:
        """Make the rule of a mapping."""
        return Rule(rule_id(name, queue_arn), queue_arn, frozenset(events), self.prefixes[0], self.suffixes[0])

    def _is_within(self, rule: Rule) -> bool:
        return any(prefix.startswith(rule.prefix) for prefix in self.prefixes) and any(
            suffix.endswith(rule.suffix) for suffix in self.suffixes
        )


def rule_id(name: str, queue_arn: str) -> str:
    """Name the rule of a mapping: the same one each time, so that it is found again."""
    return f"headrace-{name}-{queue_arn.rpartition(':')[2]}"[:_ID_LENGTH]


def rules_of(configuration: Mapping[str, Any]) -> list[Rule]:
    """Read all rules of a bucket's notification configuration."""
    return [_rule(each, each[target]) for kind, target in _TARGETS.items() for each in configuration.get(kind, ())]


def bucket_arn(bucket: str, queue_arn: str) -> str:
    """Give the ARN of a bucket, in the partition of its queue."""
    return f"arn:{queue_arn.split(':')[1]}:s3:::{bucket}"


# --- the queue's policy


def lets_s3_send(policy: str | None, queue_arn: str, bucket: str) -> bool:
    """Say whether some statement of a queue's policy lets S3 send for this bucket.

    Of its conditions only that on the source is looked at; any other is taken to hold. Statements that deny are not
    looked at.
    """
    source = bucket_arn(bucket, queue_arn)
    return any(_allows(statement, queue_arn, source) for statement in _statements(policy))


def with_s3_sending(policy: str | None, queue_arn: str, bucket: str) -> str:
    """Add a statement to a queue's policy that lets S3 send for this bucket; all others stay."""
    others = _statements(policy)
    taken = {each.get("Sid") for each in others}
    statement = {
        "Sid": next(name for number in count(1) if (name := f"Headrace{number}") not in taken),
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": bucket_arn(bucket, queue_arn)}},
    }
    document: dict[str, Any] = json.loads(policy) if policy else {"Version": "2012-10-17"}
    return json.dumps({**document, "Statement": [*others, statement]})


def _allows(statement: Mapping[str, Any], queue_arn: str, source: str) -> bool:
    principal = statement.get("Principal")
    if isinstance(principal, Mapping):
        by_whom = [*_listed(principal.get("Service")), *_listed(principal.get("AWS"))]
    else:
        by_whom = _listed(principal)
    sources = [
        value
        for tests in statement.get("Condition", {}).values()
        for key, values in tests.items()
        if key.lower() == "aws:sourcearn"
        for value in _listed(values)
    ]
    return (
        statement.get("Effect") == "Allow"
        and ("*" in by_whom or "s3.amazonaws.com" in by_whom)
        and any(_fits("sqs:sendmessage", action.lower()) for action in _listed(statement.get("Action")))
        and any(_fits(queue_arn, resource) for resource in _listed(statement.get("Resource")))
        and (not sources or any(_fits(source, pattern) for pattern in sources))
    )


def _statements(policy: str | None) -> list[dict[str, Any]]:
    statements = json.loads(policy).get("Statement", []) if policy else []
    return [statements] if isinstance(statements, dict) else statements


def _listed(value: str | Sequence[str] | None) -> list[str]:
    """Read what policies write as one text or as a list of them."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _fits(text: str, pattern: str) -> bool:
    return fnmatchcase(text, pattern.replace("[", "[[]"))


# --- rules


def _rule(configuration: Mapping[str, Any], target: str) -> Rule:
    filters = {
        each["Name"].lower(): each["Value"]
        for each in configuration.get("Filter", {}).get("Key", {}).get("FilterRules", ())
    }
    return Rule(
        configuration.get("Id", ""),
        target,
        frozenset(configuration["Events"]),
        filters.get("prefix", ""),
        filters.get("suffix", ""),
    )


def _is_within_event(event: str, other: str) -> bool:
    """Say whether all that `event` names is named by `other`."""
    return event == other or (other.endswith("*") and event.startswith(other[:-1]))


def _same_event(one: str, other: str) -> bool:
    return _is_within_event(one, other) or _is_within_event(other, one)


def _is_within_others(event: str, events: Iterable[str]) -> bool:
    return any(_is_within_event(event, other) for other in events if other != event)


def _found(match: re.Match[str] | None) -> str:
    assert match is not None, "both patterns match the empty text"
    return match[0]
