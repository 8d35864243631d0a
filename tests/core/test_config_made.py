"""Mappings of the API come to the same settings as those of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.load import load
from config.made import made_mapping
from config.settings import Configuration, FunctionSettings
from config.shown import shown_mappings
from connectors.settings import KafkaDestination, KafkaSettings, KeptSecrets, Security
from router.api.errors import ApiError
from router.api.mapping_kinds import Kind, kind_of
from router.api.mapping_rules import refuse_members
from router.api.mapping_values import cleared, completed
from router.catalogue.of_file import mapping_records, uuid_of
from router.errors import ConfigError
from tests.core.configured import NOW_S, RIGHT, configuration, mistakes, written
from tests.core.test_api_mapping_rules import (
    ACCESS,
    CLUSTER,
    CONSUMER,
    DYNAMODB,
    KAFKA,
    KINESIS,
    MSK,
    OWN,
    POLLERS,
    SQS,
    SQS_FIFO,
    TOPIC,
)

FUNCTION = {"handler": "app.handle", "code": ".", "timeout": 20}
DESTINATION = {"DestinationConfig": {"OnFailure": {"Destination": TOPIC}}}
FILTERS = {"FilterCriteria": {"Filters": [{"Pattern": '{"body":{"a":["${env:HOME}"]}}'}]}}
TIMED = {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1_600_000_000.5}


def from_file(folder: Path, members: dict[str, Any]) -> Configuration:
    """Read a file that has a mapping with these members, as AWS names them."""
    mapping = {"FunctionName": "f", "init_errors_count": True, **members}
    document = {
        "aws": {"endpoint_url": "http://127.0.0.1:4566", "region": "eu-west-1"},
        "functions": {"f": FUNCTION},
        "event_source_mappings": {"m": mapping},
    }
    return load(written(folder, json.dumps(document)), {}, NOW_S)


@pytest.mark.parametrize(
    "members",
    [
        SQS,
        {**SQS, "BatchSize": 50, "MaximumBatchingWindowInSeconds": 3, "ScalingConfig": {"MaximumConcurrency": 4}},
        {**SQS_FIFO, "FunctionResponseTypes": ["ReportBatchItemFailures"]},
        KINESIS,
        {**KINESIS, "EventSourceArn": CONSUMER, "ParallelizationFactor": 3, "TumblingWindowInSeconds": 0},
        {**KINESIS, **TIMED, **DESTINATION, "MaximumRetryAttempts": 2, "MaximumRecordAgeInSeconds": 60},
        {**DYNAMODB, "BisectBatchOnFunctionError": True},
        OWN,
        {**OWN, "MaximumBatchingWindowInSeconds": 1, "LoggingConfig": {"SystemLogLevel": "DEBUG"}},
        {**OWN, **TIMED, "SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "mine"}},
        {**OWN, "DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}}},
    ],
)
def test_both_give_the_same(tmp_path: Path, members: dict[str, Any]) -> None:
    file = from_file(tmp_path, members)
    [wanted] = file.mappings
    kind = kind_of(members)
    assert kind is not None
    kept = completed(members, kind, "m")
    assert made_mapping("m", "f", kept, file.functions["f"], file) == wanted


class TestWhatTheFileHasNoWordFor:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Configuration:
        return from_file(tmp_path, OWN)

    def test_what_has_no_effect_has_none(self, file: Configuration) -> None:
        idle = {**POLLERS, "MetricsConfig": {"Metrics": ["EventCount"]}, "KMSKeyArn": "arn:aws:kms:a:b:c"}
        plain = made_mapping("m", "f", OWN, None, file)
        assert made_mapping("m", "f", {**OWN, **idle, "SourceAccessConfigurations": ACCESS}, None, file) == plain

    def test_texts_are_what_they_are(self, file: Configuration) -> None:
        made = made_mapping("m", "f", {**SQS, **FILTERS}, None, file)
        assert made.filters == ('{"body":{"a":["${env:HOME}"]}}',)

    def test_a_cluster_of_amazon_whose_servers_nobody_says_any_more_is_named(self, file: Configuration) -> None:
        with pytest.raises(ConfigError, match=f"api.msk_clusters.* does not name the brokers of {CLUSTER}"):
            made_mapping("m", "f", completed(MSK, Kind.MSK, "m"), None, file)

    def test_a_cluster_of_amazon_has_the_servers_that_were_said(self, file: Configuration) -> None:
        made = made_mapping("m", "f", completed(MSK, Kind.MSK, "m"), None, file, ("a:9092", "b:9092"))
        assert isinstance(made.source, KafkaSettings)
        assert made.source.bootstrap_servers == ("a:9092", "b:9092")
        assert (made.source.topic, made.source.consumer_group) == ("orders", "m")
        assert (made.source.event_source, made.source.event_source_arn) == ("aws:kafka", CLUSTER)

    def test_the_timeout_of_the_function_bounds_the_drain(self, file: Configuration) -> None:
        function = file.functions["f"]
        assert isinstance(function, FunctionSettings)
        assert made_mapping("m", "f:live", SQS, function, file).mapping.drain_s == 25.0
        assert made_mapping("m", "f:live", SQS, function, file).mapping.function == "f:live"
        assert made_mapping("m", "gone", SQS, None, file).mapping.drain_s == 8.0

    def test_secrets_open_the_cluster_and_the_topic_of_its_failures(self, file: Configuration) -> None:
        accesses = [
            {"Type": "SASL_SCRAM_512_AUTH", "URI": "arn:login"},
            {"Type": "SERVER_ROOT_CA_CERTIFICATE", "URI": "arn:ca"},
            *ACCESS,
        ]
        topic = {"DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}}}
        made = made_mapping("m", "f", {**OWN, **topic, "SourceAccessConfigurations": accesses}, None, file)
        kept = KeptSecrets("http://127.0.0.1:4566", "eu-west-1", login="arn:login", authority="arn:ca")
        assert isinstance(made.source, KafkaSettings)
        assert made.source.security == Security("SASL_SSL", "SCRAM-SHA-512", kept=kept)
        assert isinstance(made.destination, KafkaDestination)
        assert made.destination.security == made.source.security

    @pytest.mark.parametrize("kind", ["CLIENT_CERTIFICATE_TLS_AUTH", "SERVER_ROOT_CA_CERTIFICATE"])
    def test_certificates_alone_mean_tls(self, file: Configuration, kind: str) -> None:
        made = made_mapping(
            "m", "f", {**OWN, "SourceAccessConfigurations": [{"Type": kind, "URI": "arn:a"}]}, None, file
        )
        assert isinstance(made.source, KafkaSettings)
        assert made.source.security.protocol == "SSL"
        assert made.source.security.kept is not None

    def test_what_cannot_run_is_said(self, file: Configuration) -> None:
        servers = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a:99999"]}}}
        with pytest.raises(ConfigError, match="SelfManagedEventSource"):
            made_mapping("m", "f", {**OWN, **servers}, None, file)


MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "BatchSize": st.integers(1, 20),
        "MaximumBatchingWindowInSeconds": st.integers(0, 2),
        "ParallelizationFactor": st.integers(1, 2),
        "TumblingWindowInSeconds": st.integers(0, 1),
        "MaximumRetryAttempts": st.integers(-1, 1),
        "MaximumRecordAgeInSeconds": st.sampled_from([-1, 60]),
        "BisectBatchOnFunctionError": st.booleans(),
        "FunctionResponseTypes": st.sampled_from([[], ["ReportBatchItemFailures"]]),
        "FilterCriteria": st.sampled_from([{}, {"Filters": []}, {"Filters": [{"Pattern": '{"a":[1]}'}]}]),
        "ScalingConfig": st.sampled_from([{}, {"MaximumConcurrency": 2}]),
        "DestinationConfig": st.sampled_from([{}, {"OnFailure": {}}, DESTINATION["DestinationConfig"]]),
        "StartingPosition": st.sampled_from(["TRIM_HORIZON", "LATEST"]),
    },
)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    return from_file(tmp_path_factory.mktemp("made"), OWN)


@given(source=st.sampled_from([SQS, SQS_FIFO, KINESIS, DYNAMODB, KAFKA]), more=MEMBERS)
def test_whatever_the_api_takes_can_run(somewhere: Configuration, source: dict[str, Any], more: dict[str, Any]) -> None:
    file, members = somewhere, {**source, **more}
    try:
        kind = refuse_members(members, is_strict=False, now_s=NOW_S)
    except ApiError:
        return
    assert made_mapping("m", "f", completed(cleared(members), kind, "m"), None, file).mapping.name == "m"


class TestShown:
    """Mappings of the file in AWS's names."""

    @pytest.mark.parametrize(
        "members",
        [
            {**SQS, **FILTERS, "BatchSize": 50, "MaximumBatchingWindowInSeconds": 3},
            {**SQS_FIFO, "ScalingConfig": {"MaximumConcurrency": 4}},
            {**KINESIS, **TIMED, **DESTINATION, "MaximumRetryAttempts": 2, "MaximumRecordAgeInSeconds": 60},
            {**KINESIS, "EventSourceArn": CONSUMER, "BisectBatchOnFunctionError": True},
            {**DYNAMODB, "TumblingWindowInSeconds": 5, "FunctionResponseTypes": ["ReportBatchItemFailures"]},
            {
                **OWN,
                **TIMED,
                "MaximumRetryAttempts": 3,
                "DestinationConfig": {"OnFailure": {"Destination": "kafka://f"}},
            },
        ],
    )
    def test_what_is_shown_would_make_the_same(self, tmp_path: Path, members: dict[str, Any]) -> None:
        members = {name: value for name, value in members.items() if name != "FilterCriteria"}
        file = from_file(tmp_path, members)
        [shown] = shown_mappings(file)
        assert (shown.name, shown.function, shown.enabled) == ("m", "f", True)
        assert {name: shown.members[name] for name in members} == members
        assert made_mapping("m", "f", shown.members, file.functions["f"], file) == file.mappings[0]

    @pytest.mark.parametrize(
        ("source", "arn"),
        [
            ("sqs: {queue: orders}", "arn:aws:sqs:eu-west-1:000000000000:orders"),
            (
                "sqs: {queue: 'https://sqs.eu-north-1.amazonaws.com/123456789012/q'}",
                "arn:aws:sqs:eu-north-1:123456789012:q",
            ),
            ("kinesis: {stream: orders}", "arn:aws:kinesis:eu-west-1:000000000000:stream/orders"),
            ("dynamodb: {table: orders}", "arn:aws:dynamodb:eu-west-1:000000000000:table/orders/stream/*"),
            ("s3: {queue: orders, bucket: files}", "arn:aws:sqs:eu-west-1:000000000000:orders"),
            ("sqs: {queue: orders, region: cn-north-1}", "arn:aws-cn:sqs:cn-north-1:000000000000:orders"),
        ],
    )
    def test_names_become_arns(self, tmp_path: Path, source: str, arn: str) -> None:
        text = RIGHT.replace('kafka: {bootstrap_servers: "127.0.0.1:9092", topic: orders}', source)
        [shown] = shown_mappings(configuration(tmp_path, "aws: {region: eu-west-1}\n" + text))
        assert shown.members["EventSourceArn"] == arn

    def test_no_key_in_the_address_of_a_destination_is_shown(self, tmp_path: Path) -> None:
        text = RIGHT + "    destination_config: {on_failure: {http: {url: 'https://host:1/a?key=secret'}}}\n"
        [shown] = shown_mappings(configuration(tmp_path, text))
        assert shown.members["DestinationConfig"] == {"OnFailure": {"Destination": "https://host:1"}}

    def test_they_have_the_same_identity_in_every_start(self, tmp_path: Path) -> None:
        file = from_file(tmp_path, SQS)
        first, again = (mapping_records(shown_mappings(file), at_s) for at_s in (1.0, 2.0))
        assert first.keys() == again.keys() == {uuid_of("m")}
        record = first[uuid_of("m")]
        assert (record.name, record.is_of_file, record.modified_s) == ("m", True, 1.0)
        assert uuid_of("m") != uuid_of("n")


def test_the_file_names_the_brokers_of_clusters_of_amazon(tmp_path: Path) -> None:
    text = RIGHT + f"api: {{msk_clusters: {{'{CLUSTER}': ['a:9092', 'b:9092']}}}}\n"
    assert configuration(tmp_path, text).api.msk_clusters == {CLUSTER: ("a:9092", "b:9092")}
    [mistake] = mistakes(tmp_path, RIGHT + "api: {msk_clusters: {orders: ['a:9092']}}\n")
    assert "ARN of an Amazon MSK cluster" in mistake
