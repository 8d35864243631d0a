"""Which notification rules of a bucket overlap or are enough for a mapping, and what a queue's policy lets S3 do."""

import json
from dataclasses import replace
from typing import Any

import pytest

from connectors.s3_rules import Rule, Wanted, bucket_arn, lets_s3_send, rule_id, rules_of, with_s3_sending
from connectors.settings import S3Settings, SqsSettings

QUEUE = "arn:aws:sqs:us-east-1:000000000000:upload-events"
TOPIC = "arn:aws:sns:us-east-1:000000000000:uploads"
CREATED, PUT, REMOVED = "s3:ObjectCreated:*", "s3:ObjectCreated:Put", "s3:ObjectRemoved:*"
SETTINGS = S3Settings(
    SqsSettings("uploads", "upload-events", None, None, windowed=False),
    "uploads",
    (CREATED,),
    "",
    "",
    by_sequencer=False,
)


def rule(*events: str, prefix: str = "", suffix: str = "", target: str = QUEUE) -> Rule:
    return Rule("a", target, frozenset(events), prefix, suffix)


class TestOverlap:
    @pytest.mark.parametrize(
        ("one", "other", "expected"),
        [
            (rule(CREATED), rule(CREATED), True),
            (rule(CREATED), rule(PUT), True),
            (rule(PUT), rule(CREATED), True),
            (rule(REMOVED, PUT), rule(CREATED), True),
            (rule(CREATED), rule(REMOVED), False),
            (rule(PUT), rule("s3:ObjectCreated:Post"), False),
            (rule("s3:LifecycleTransition"), rule("s3:LifecycleExpiration:*"), False),
            (rule(CREATED, prefix="in/"), rule(CREATED, prefix="in/2026/"), True),
            (rule(CREATED, prefix="in/"), rule(CREATED, prefix="out/"), False),
            (rule(CREATED, prefix="in/"), rule(CREATED), True),
            (rule(CREATED, suffix=".jpg"), rule(CREATED, suffix="g"), True),
            (rule(CREATED, suffix=".jpg"), rule(CREATED, suffix=".png"), False),
            (rule(CREATED, prefix="in/"), rule(CREATED, suffix=".png"), True),
            (rule(CREATED, prefix="in/", suffix=".jpg"), rule(CREATED, prefix="in/2026", suffix=".png"), False),
            (rule(CREATED, prefix="in/", suffix=".jpg"), rule(CREATED, prefix="out/", suffix=".jpg"), False),
        ],
    )
    def test_both_event_prefix_and_suffix_must_overlap(self, one: Rule, other: Rule, *, expected: bool) -> None:
        assert one.overlaps(other) is expected
        assert other.overlaps(one) is expected


class TestWanted:
    def test_an_event_within_another_is_not_asked_for_twice(self) -> None:
        settings = replace(SETTINGS, events=(PUT, CREATED, "s3:ObjectAcl:Put"))
        assert Wanted.of(settings, is_s3=True).events == (CREATED, "s3:ObjectAcl:Put")

    @pytest.mark.parametrize(
        ("is_s3", "prefix", "suffix"),
        [(True, "year%3D2026/a+b", "%C3%A9-1.csv"), (False, "year", "-1.csv")],
        ids=["S3", "stand-in"],
    )
    def test_s3_is_given_encoded_filters_and_others_what_all_spell_alike(
        self, prefix: str, suffix: str, *, is_s3: bool
    ) -> None:
        settings = replace(SETTINGS, prefix="year=2026/a b", suffix="é-1.csv")
        made = Wanted.of(settings, is_s3=is_s3).rule("uploads", QUEUE, (CREATED,))
        assert (made.prefix, made.suffix) == (prefix, suffix)

    def test_plain_filters_are_the_same_everywhere(self) -> None:
        settings = replace(SETTINGS, prefix="in/2026_1-a.b", suffix=".csv")
        for is_s3 in (True, False):
            made = Wanted.of(settings, is_s3=is_s3).rule("uploads", QUEUE, (CREATED,))
            assert (made.prefix, made.suffix) == ("in/2026_1-a.b", ".csv")

    @pytest.mark.parametrize(
        ("rules", "missing"),
        [
            ([], (CREATED, REMOVED)),
            ([rule(CREATED, REMOVED)], ()),
            ([rule(CREATED)], (REMOVED,)),
            ([rule(CREATED), rule(REMOVED)], ()),
            ([rule(PUT, REMOVED)], (CREATED,)),
            ([rule(CREATED, REMOVED, prefix="in", suffix="csv")], ()),
            ([rule(CREATED, REMOVED, prefix="in/2026/")], (CREATED, REMOVED)),
            ([rule(CREATED, REMOVED, suffix="a.csv")], (CREATED, REMOVED)),
        ],
    )
    def test_rules_are_enough_when_they_let_all_wanted_keys_through(
        self, rules: list[Rule], missing: tuple[str, ...]
    ) -> None:
        settings = replace(SETTINGS, events=(CREATED, REMOVED), prefix="in/", suffix=".csv")
        assert Wanted.of(settings, is_s3=True).missing(rules) == missing

    @pytest.mark.parametrize(("is_s3", "missing"), [(True, (CREATED,)), (False, ())], ids=["S3", "stand-in"])
    def test_a_filter_that_is_not_encoded_counts_where_it_may_work(
        self, missing: tuple[str, ...], *, is_s3: bool
    ) -> None:
        wanted = Wanted.of(replace(SETTINGS, prefix="in/a b"), is_s3=is_s3)
        assert wanted.missing([rule(CREATED, prefix="in/a b")]) == missing
        assert wanted.missing([rule(CREATED, prefix="in/a+b")]) == ()

    def test_a_rule_has_the_same_name_each_time_and_one_that_s3_takes(self) -> None:
        assert rule_id("uploads", QUEUE) == "headrace-uploads-upload-events"
        assert len(rule_id("u" * 300, QUEUE)) == 255


def test_rules_are_read_from_and_written_as_the_configuration_of_a_bucket() -> None:
    ours = Rule("q", QUEUE, frozenset({CREATED, REMOVED}), "in/", ".csv")
    everything = Rule("all", QUEUE, frozenset({CREATED}), "", "")
    other_names = {"FilterRules": [{"Name": "Suffix", "Value": ".jpg"}, {"Name": "Prefix", "Value": "x"}]}
    configuration: dict[str, Any] = {
        "QueueConfigurations": [ours.configuration(), everything.configuration()],
        "TopicConfigurations": [{"Id": "t", "TopicArn": TOPIC, "Events": [PUT], "Filter": {"Key": other_names}}],
        "LambdaFunctionConfigurations": [{"LambdaFunctionArn": "arn:f", "Events": [PUT]}],
        "EventBridgeConfiguration": {},
    }
    assert rules_of(configuration) == [
        ours,
        everything,
        Rule("t", TOPIC, frozenset({PUT}), "x", ".jpg"),
        Rule("", "arn:f", frozenset({PUT}), "", ""),
    ]
    assert "Filter" not in everything.configuration()


def test_a_rule_is_shown_with_all_that_it_says() -> None:
    assert str(rule(CREATED, REMOVED, suffix=".csv")) == f"'a' ({CREATED}, {REMOVED}, suffix '.csv', to {QUEUE})"


class TestPolicy:
    def test_a_queue_without_a_policy_lets_nobody_send(self) -> None:
        assert not lets_s3_send(None, QUEUE, "uploads")
        assert not lets_s3_send('{"Version": "2012-10-17"}', QUEUE, "uploads")

    def test_our_statement_lets_s3_send_for_this_bucket_alone(self) -> None:
        policy = with_s3_sending(None, QUEUE, "uploads")
        assert lets_s3_send(policy, QUEUE, "uploads")
        assert not lets_s3_send(policy, QUEUE, "other")
        assert not lets_s3_send(policy, f"{QUEUE}-2", "uploads")
        [statement] = json.loads(policy)["Statement"]
        assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
        assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::uploads"}}

    def test_what_the_policy_says_already_stays(self) -> None:
        mine = {"Sid": "mine", "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": QUEUE}
        policy = json.dumps({"Version": "2008-10-17", "Id": "x", "Statement": mine})
        policy = with_s3_sending(with_s3_sending(policy, QUEUE, "uploads"), QUEUE, "up.loads")
        assert all(lets_s3_send(policy, QUEUE, bucket) for bucket in ("uploads", "up.loads"))
        document = json.loads(policy)
        assert (document["Version"], document["Id"]) == ("2008-10-17", "x")
        assert mine in document["Statement"]
        assert len(document["Statement"]) == len({each["Sid"] for each in document["Statement"]}) == 3

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({}, True),
            ({"Principal": "*"}, True),
            ({"Principal": {"AWS": "*"}}, True),
            ({"Principal": {"Service": ["sns.amazonaws.com", "s3.amazonaws.com"]}}, True),
            ({"Principal": {"Service": "sns.amazonaws.com"}}, False),
            ({"Principal": {"AWS": "000000000000"}}, False),
            ({"Principal": None}, False),
            ({"Effect": "Deny"}, False),
            ({"Action": "*"}, True),
            ({"Action": ["SQS:ReceiveMessage", "SQS:Send*"]}, True),
            ({"Action": "sqs:ReceiveMessage"}, False),
            ({"Resource": "*"}, True),
            ({"Resource": ["arn:aws:sqs:us-east-1:000000000000:upload-*"]}, True),
            ({"Resource": "arn:aws:sqs:us-east-1:000000000000:[u]pload-events"}, False),
            ({"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:*:uploads"}}}, True),
            ({"Condition": {"StringEquals": {"AWS:SourceARN": ["arn:aws:s3:::x", "arn:aws:s3:::uploads"]}}}, True),
            ({"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:s3:::other"}}}, False),
            ({"Condition": {"StringEquals": {"aws:SourceAccount": "111122223333"}}}, True),
        ],
    )
    def test_statements_are_understood(self, change: dict[str, Any], *, expected: bool) -> None:
        statement = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage"}
        policy = json.dumps({"Statement": [{**statement, "Resource": QUEUE, **change}]})
        assert lets_s3_send(policy, QUEUE, "uploads") is expected

    def test_a_bucket_is_in_the_partition_of_its_queue(self) -> None:
        assert bucket_arn("uploads", QUEUE.replace("aws", "aws-cn")) == "arn:aws-cn:s3:::uploads"
