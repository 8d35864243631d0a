"""Every refusal of an event source mapping that AWS makes of its members alone, by its text, and their order."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.constraints import check
from router.api.errors import VALIDATION, ApiError
from router.api.mapping_kinds import Kind, kind_of
from router.api.mapping_members import CREATE, UPDATE
from router.api.mapping_rules import refuse_members, refuse_strange, refuse_timeout
from router.api.mapping_values import changed, cleared, completed
from router.api.mapping_values import given as members_of

NOW_S = 1_800_000_000.0
INVALID = "InvalidParameterValueException"

QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
FIFO = f"{QUEUE}.fifo"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/orders"
CONSUMER = f"{STREAM}/consumer/mine:1700000000"
TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2024-05-01T00:00:00.000"
CLUSTER = "arn:aws:kafka:us-east-1:000000000000:cluster/orders/11111111-2222-3333-4444-555555555555-1"
BROKER = "arn:aws:mq:us-east-1:000000000000:broker:orders:b-1"
DOCUMENTS = "arn:aws:rds:us-east-1:000000000000:cluster:orders"
TOPIC = "arn:aws:sns:us-east-1:000000000000:alarm"

SQS = {"EventSourceArn": QUEUE}
SQS_FIFO = {"EventSourceArn": FIFO}
KINESIS = {"EventSourceArn": STREAM, "StartingPosition": "LATEST"}
DYNAMODB = {"EventSourceArn": TABLE, "StartingPosition": "LATEST"}
ACCESS = [{"Type": "VPC_SUBNET", "URI": "subnet:subnet-1"}]
OWN = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a:9092", "b:9092"]}}, "Topics": ["orders"]}
KAFKA = {**OWN, "SourceAccessConfigurations": ACCESS}
MSK = {"EventSourceArn": CLUSTER, "Topics": ["orders"]}
POLLERS = {"ProvisionedPollerConfig": {"MinimumPollers": 1}}
FILTERS = {"FilterCriteria": {"Filters": [{"Pattern": '{"body":{"a":[1]}}'}]}}


def provisioned_only(name: str) -> str:
    return (
        f"{name} is only available for Provisioned Mode. To configure {name}, please enable Provisioned Mode by "
        "specifying MinimumPollers in ProvisionedPollerConfig."
    )


def unsupported(name: str) -> str:
    return f"Unsupported {name} parameter for given event source mapping type."


def refusal(members: Mapping[str, Any], *, is_strict: bool = True) -> ApiError | None:
    """Judge a request to create, as a whole."""
    document = {"FunctionName": "orders", **members}
    try:
        check(CREATE, document)
        refuse_members(members_of(CREATE, document), is_strict=is_strict, now_s=NOW_S)
    except ApiError as error:
        return error
    return None


def on_failure(arn: str) -> dict[str, Any]:
    return {"DestinationConfig": {"OnFailure": {"Destination": arn}}}


AGE = "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"
WINDOW = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
PATTERN = "Invalid filter pattern definition."
POLLERS_RANGE = "MinimumPollers should be between [2, 200] and MaximumPollers should be between [MinimumPollers, 10000]"

#: Row of the rules, what is asked for, and the text.
ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("1 no source", {}, "Unrecognized event source."),
    ("1 another service", {"EventSourceArn": TOPIC}, "Unrecognized event source."),
    ("3 destination of a queue", {**SQS, **on_failure(TOPIC)}, unsupported("DestinationConfig")),
    (
        "3 success of a queue",
        {**SQS, "DestinationConfig": {"OnSuccess": {"Destination": TOPIC}}},
        unsupported("DestinationConfig"),
    ),
    (
        "3a success of a stream",
        {**KINESIS, "DestinationConfig": {"OnSuccess": {"Destination": TOPIC}}},
        "OnSuccess configuration is not supported for event source mappings.",
    ),
    ("3b scaling of a stream", {**KINESIS, "ScalingConfig": {"MaximumConcurrency": 2}}, unsupported("ScalingConfig")),
    ("3b scaling of a table", {**DYNAMODB, "ScalingConfig": {}}, unsupported("ScalingConfig")),
    ("4 large batch without window", {**SQS, "BatchSize": 11}, WINDOW),
    (
        "5 window of FIFO",
        {**SQS_FIFO, "MaximumBatchingWindowInSeconds": 1},
        unsupported_window := ("Batching window is not supported for FIFO queues"),
    ),
    (
        "5 window of FIFO, whatever its batch",
        {**SQS_FIFO, "BatchSize": 11, "MaximumBatchingWindowInSeconds": 1},
        unsupported_window,
    ),
    ("6 large batch of FIFO", {**SQS_FIFO, "BatchSize": 11}, WINDOW),
    (
        "10 no position",
        {"EventSourceArn": STREAM},
        (
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must "
            "not be null."
        ),
    ),
    (
        "12 time of a table",
        {**DYNAMODB, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 5},
        f"Unsupported starting position for arn type: {TABLE}",
    ),
    *(
        (f"13 {text}", {**SQS, "FilterCriteria": {"Filters": [{"Pattern": text}]}}, PATTERN)
        for text in (None, '"text"', "{", "[]", '{"a": 1}', '{"a": [{"nothing": 1}]}', "null")
    ),
    ("13 no pattern", {**SQS, "FilterCriteria": {"Filters": [{}]}}, PATTERN),
    (
        "15 many filters",
        {**SQS, "FilterCriteria": {"Filters": [{"Pattern": '{"a":[1]}'}] * 6}},
        "FilterCriteria has 6 filters, and at most 5 are allowed.",
    ),
    ("19 no access", OWN, "Required 'sourceAccessConfigurations' parameter is missing."),
    ("20 no topic", {"EventSourceArn": CLUSTER}, "Required 'topics' parameter is missing."),
    (
        "20 before 19",
        {"SelfManagedEventSource": OWN["SelfManagedEventSource"]},
        "Required 'topics' parameter is missing.",
    ),
    (
        "19 before positions and addresses",
        {
            "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["no port"]}},
            "Topics": ["orders"],
            "StartingPosition": "AT_TIMESTAMP",
        },
        "Required 'sourceAccessConfigurations' parameter is missing.",
    ),
    (
        "21 both clusters",
        {**MSK, "SelfManagedEventSource": OWN["SelfManagedEventSource"]},
        unsupported("'selfManagedEventSource'"),
    ),
    ("25 metrics", {**KAFKA, "MetricsConfig": {"Metrics": ["EventCount"]}}, provisioned_only("MetricsConfig")),
    (
        "26 two bounds",
        {**SQS, "ScalingConfig": {"MaximumConcurrency": 2}, "ProvisionedPollerConfig": {"MinimumPollers": 2}},
        (
            "Provisioned mode for SQS ESM does not support maximum concurrency feature. Use MaximumPollers as the "
            "control mechanism and remove maximum concurrency."
        ),
    ),
    ("27 few", {**SQS, "ProvisionedPollerConfig": {"MinimumPollers": 1}}, POLLERS_RANGE),
    (
        "27 upside down",
        {**SQS, "ProvisionedPollerConfig": {"MinimumPollers": 9, "MaximumPollers": 8}},
        POLLERS_RANGE,
    ),
    (
        "27 many of Kafka",
        {**KAFKA, "ProvisionedPollerConfig": {"MaximumPollers": 2001}},
        "MinimumPollers should be between [1, 200] and MaximumPollers should be between [MinimumPollers, 2000]",
    ),
    (
        "28 neither",
        {**SQS, "ProvisionedPollerConfig": {}},
        "Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided.",
    ),
    (
        "28 a group of a queue",
        {**SQS, "ProvisionedPollerConfig": {"MinimumPollers": 2, "PollerGroupName": "ours"}},
        unsupported("PollerGroupName"),
    ),
    (
        "24 no servers",
        {**KAFKA, "SelfManagedEventSource": {}},
        "Required 'selfManagedEventSource.endpoints' parameter is missing.",
    ),
    ("25 errors of a queue", {**SQS, "MetricsConfig": {"Metrics": ["ErrorCount"]}}, unsupported("MetricsConfig")),
    ("29 0", {**KINESIS, "MaximumRecordAgeInSeconds": 0}, AGE),
    ("29 59", {**KINESIS, "MaximumRecordAgeInSeconds": 59}, AGE),
    *(
        (
            f"30 {kind}",
            {**members, "StartingPosition": "AT_TIMESTAMP"},
            "When the starting position is 'AT_TIMESTAMP', a starting position timestamp must be provided.",
        )
        for kind, members in (("MSK", MSK), ("Kafka", KAFKA), ("Kinesis", KINESIS))
    ),
    (
        "30a time alone",
        {**DYNAMODB, "StartingPositionTimestamp": 5},
        "Timestamp only valid with StartingPosition AT_TIMESTAMP",
    ),
    (
        "30b to come",
        {**KINESIS, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": NOW_S + 1},
        "StartingPositionTimestamp must be a time that has passed",
    ),
    ("30c queues", {**MSK, "Queues": ["one"]}, unsupported("'queues'")),
    ("32 retries", {**KAFKA, "MaximumRetryAttempts": 1}, provisioned_only("MaximumRetryAttempts")),
    ("32 age", {**MSK, "MaximumRecordAgeInSeconds": 60}, provisioned_only("MaximumRecordAgeInSeconds")),
    ("32 halves", {**KAFKA, "BisectBatchOnFunctionError": True}, provisioned_only("BisectBatchOnFunctionError")),
    (
        "32 items",
        {**KAFKA, "FunctionResponseTypes": ["ReportBatchItemFailures"]},
        provisioned_only("FunctionResponseTypes"),
    ),
    ("32 topic", {**KAFKA, **on_failure("kafka://failed")}, provisioned_only("DestinationConfig")),
    (
        "32 registry",
        {**KAFKA, "SelfManagedKafkaEventSourceConfig": {"SchemaRegistryConfig": {"SchemaRegistryURI": "http://r"}}},
        provisioned_only("SchemaRegistryConfig"),
    ),
    (
        "33 the topic itself",
        {**KAFKA, **POLLERS, **on_failure("kafka://orders")},
        "The provided destination kafka://orders is not allowed for this event source mapping.",
    ),
    (
        "33 FIFO queue",
        {**KINESIS, **on_failure(FIFO)},
        f"The provided destination {FIFO} is not allowed for this event source mapping.",
    ),
    (
        "33 FIFO topic",
        {**KINESIS, **on_failure(f"{TOPIC}.fifo")},
        f"The provided destination {TOPIC}.fifo is not allowed for this event source mapping.",
    ),
    (
        "33 a topic of a stream",
        {**KINESIS, **on_failure("kafka://failed")},
        "The provided destination kafka://failed is not allowed for this event source mapping.",
    ),
    (
        "34 factor",
        {**KINESIS, "TumblingWindowInSeconds": 1, "ParallelizationFactor": 2},
        "Parallelization factor must be equal to 1 when tumbling window period is configured",
    ),
    (
        "34a filters",
        {**KINESIS, "TumblingWindowInSeconds": 1, "FilterCriteria": {"Filters": [{"Pattern": '{"a":[1]}'}]}},
        "Filter criteria must be empty when tumbling window period is configured",
    ),
    (
        "35 queue",
        {**KAFKA, "SelfManagedKafkaEventSourceConfig": {"ConsumptionMode": "Queue"}},
        "ConsumptionMode Queue is not supported here: topics are read as streams.",
    ),
    ("36 of a queue", {**SQS, "StartingPosition": "LATEST"}, unsupported("StartingPosition")),
    ("36 of FIFO", {**SQS_FIFO, "ParallelizationFactor": 1}, unsupported("ParallelizationFactor")),
    ("36 of a stream", {**KINESIS, "Topics": ["orders"]}, unsupported("Topics")),
    ("36 of Kafka", {**KAFKA, "TumblingWindowInSeconds": 1}, unsupported("'tumblingWindowInSeconds'")),
    (
        "36 group of the other",
        {**MSK, "SelfManagedKafkaEventSourceConfig": {}},
        unsupported("'selfManagedKafkaEventSourceConfig'"),
    ),
    ("36 of a broker", {"EventSourceArn": BROKER, "Topics": ["orders"]}, unsupported("'topics'")),
    (
        "36 of documents",
        {"EventSourceArn": DOCUMENTS, **FILTERS, "FunctionResponseTypes": []},
        "Invalid parameters: functionResponseTypes, filterCriteria",
    ),
    ("36 metrics of a queue", {**SQS, "MetricsConfig": {"Metrics": ["KafkaMetrics"]}}, unsupported("MetricsConfig")),
]


@pytest.mark.parametrize(("members", "text"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_members_that_do_not_go_together_are_refused_in_the_words_of_aws(members: dict[str, Any], text: str) -> None:
    refused = refusal(members)
    assert refused is not None
    assert (refused.code, refused.status, str(refused)) == (INVALID, 400, text)


def validation(value: str, path: str, constraint: str) -> str:
    return f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: {constraint}"


TOPIC_RULE = (
    "Member must satisfy constraint: [Member must have length less than or equal to 249, Member must have length "
    "greater than or equal to 1, Member must satisfy regular expression pattern: [^.]([a-zA-Z0-9\\-_.]+), Member must "
    "not be null]"
)
CONSTRAINTS: list[tuple[str, dict[str, Any], str]] = [
    (
        "11 position",
        {**KINESIS, "StartingPosition": "FIRST"},
        validation(
            "FIRST",
            "startingPosition",
            "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]",
        ),
    ),
    (
        "22 two topics",
        {**KAFKA, "Topics": ["one", "two"]},
        validation("[one, two]", "topics", "Member must have length less than or equal to 1"),
    ),
    ("23 bad topic", {**KAFKA, "Topics": ["bad/topic"]}, validation("[bad/topic]", "topics", TOPIC_RULE)),
    (
        "24 no endpoints",
        {**KAFKA, "SelfManagedEventSource": {"Endpoints": {}}},
        validation("{}", "selfManagedEventSource.endpoints", "Member must have length greater than or equal to 1"),
    ),
    (
        "30f response types",
        {**SQS, "FunctionResponseTypes": ["All"]},
        validation(
            "[All]",
            "functionResponseTypes",
            "Member must satisfy constraint: [Member must satisfy enum value set: [ReportBatchItemFailures], Member "
            "must not be null]",
        ),
    ),
    *(
        (
            f"range of {name}",
            {**KINESIS, name: value},
            validation(str(value), name[0].lower() + name[1:], f"Member must have value less than or equal to {most}"),
        )
        for name, value, most in (
            ("BatchSize", 10001, 10000),
            ("ParallelizationFactor", 11, 10),
            ("MaximumBatchingWindowInSeconds", 301, 300),
            ("TumblingWindowInSeconds", 901, 900),
            ("MaximumRetryAttempts", 10001, 10000),
            ("MaximumRecordAgeInSeconds", 604801, 604800),
        )
    ),
    (
        "range from below",
        {**SQS, "BatchSize": 0},
        validation("0", "batchSize", "Member must have value greater than or equal to 1"),
    ),
    (
        "range of concurrency",
        {**SQS, "ScalingConfig": {"MaximumConcurrency": 1}},
        validation("1", "scalingConfig.maximumConcurrency", "Member must have value greater than or equal to 2"),
    ),
]


@pytest.mark.parametrize(("members", "text"), [row[1:] for row in CONSTRAINTS], ids=[row[0] for row in CONSTRAINTS])
def test_modelled_constraints_are_told_first_and_generically(members: dict[str, Any], text: str) -> None:
    refused = refusal({**members, "Queues": ["strange"]})
    assert refused is not None
    assert (refused.code, refused.status, str(refused)) == (VALIDATION, 400, text)


def test_an_address_is_looked_at_behind_the_starting_position() -> None:
    asked = {**KAFKA, "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["no port"]}}}
    early = refusal({**asked, "StartingPosition": "AT_TIMESTAMP"})
    late = refusal(asked)
    assert early is not None
    assert early.code == INVALID
    assert late is not None
    assert late.code == VALIDATION
    assert str(late).startswith(
        "1 validation error detected: Value '[no port]' at 'selfManagedEventSource.endpoints.KAFKA_BOOTSTRAP_SERVERS' "
        "failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy regular expression "
    )


def test_a_destination_is_refused_before_what_else_the_source_does_not_have() -> None:
    refused = refusal({**SQS, **on_failure(TOPIC), "StartingPosition": "LATEST", "BatchSize": 100})
    assert str(refused) == unsupported("DestinationConfig")


class TestAccepted:
    @pytest.mark.parametrize(
        ("members", "kind"),
        [
            (SQS, Kind.SQS),
            ({**SQS, "BatchSize": 100, "MaximumBatchingWindowInSeconds": 1}, Kind.SQS),
            (SQS_FIFO, Kind.FIFO),
            (KINESIS, Kind.KINESIS),
            ({**KINESIS, "EventSourceArn": CONSUMER}, Kind.KINESIS),
            # Unlike queues, streams need no window.
            ({**KINESIS, "BatchSize": 101}, Kind.KINESIS),
            ({**KINESIS, "TumblingWindowInSeconds": 1, "FilterCriteria": {"Filters": []}}, Kind.KINESIS),
            ({**KINESIS, **on_failure("arn:aws:s3:::failed")}, Kind.KINESIS),
            (DYNAMODB, Kind.DYNAMODB),
            (KAFKA, Kind.KAFKA),
            ({**KAFKA, **POLLERS, "MaximumRetryAttempts": 3, **on_failure("kafka://failed")}, Kind.KAFKA),
            ({**KAFKA, **on_failure(TOPIC)}, Kind.KAFKA),
            (MSK, Kind.MSK),
            *(
                ({**OWN, "SourceAccessConfigurations": [{"Type": kind, "URI": "arn:a"}, *ACCESS]}, Kind.KAFKA)
                for kind in (
                    "BASIC_AUTH",
                    "SASL_SCRAM_256_AUTH",
                    "SASL_SCRAM_512_AUTH",
                    "CLIENT_CERTIFICATE_TLS_AUTH",
                    "SERVER_ROOT_CA_CERTIFICATE",
                    "VPC_SECURITY_GROUP",
                )
            ),
            (
                {**MSK, **POLLERS, "MetricsConfig": {"Metrics": ["EventCount", "ErrorCount", "KafkaMetrics"]}},
                Kind.MSK,
            ),
            # 14: no filters are as none.
            ({**SQS, "FilterCriteria": {"Filters": []}}, Kind.SQS),
            # Null is as if it were absent.
            ({**SQS, "StartingPosition": None, "DestinationConfig": None}, Kind.SQS),
            # What no operation knows is ignored.
            ({**SQS, "Unknown": {"any": 1}}, Kind.SQS),
        ],
    )
    def test_what_aws_accepts(self, members: dict[str, Any], kind: Kind) -> None:
        assert refusal(members) is None
        assert kind_of(members) is kind

    @pytest.mark.parametrize(
        "members",
        [
            OWN,
            {**OWN, "MaximumRetryAttempts": 3},
            {**MSK, "MetricsConfig": {"Metrics": ["EventCount"]}},
            {**DYNAMODB, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 5},
            {**SQS, "FilterCriteria": {"Filters": [{"Pattern": '{"a":[1]}'}] * 10}},
        ],
        ids=["19", "32", "25", "12", "15"],
    )
    def test_what_only_the_product_of_aws_cannot_do_is_lifted(self, members: dict[str, Any]) -> None:
        assert refusal(members) is not None
        assert refusal(members, is_strict=False) is None


class TestNotHere:
    """What AWS has and we do not is refused, never kept as if it worked."""

    @pytest.mark.parametrize(
        "members",
        [
            {"EventSourceArn": BROKER, "Queues": ["one"]},
            {"EventSourceArn": DOCUMENTS, "StartingPosition": "LATEST"},
            {**KAFKA, "SourceAccessConfigurations": [{"Type": "OAUTHBEARER_AUTH", "URI": "arn:aws:s:::1"}]},
            {**MSK, "SourceAccessConfigurations": [{"Type": "VIRTUAL_HOST", "URI": "/"}]},
            {
                **KAFKA,
                **POLLERS,
                "SelfManagedKafkaEventSourceConfig": {"SchemaRegistryConfig": {"SchemaRegistryURI": "h"}},
            },
        ],
    )
    @pytest.mark.parametrize("is_strict", [True, False])
    def test_it_is_said(self, members: dict[str, Any], is_strict: bool) -> None:  # noqa: FBT001 - both
        refused = refusal(members, is_strict=is_strict)
        assert refused is not None
        assert "not supported here" in str(refused)

    @pytest.mark.parametrize("other", ["SASL_SCRAM_256_AUTH", "SASL_SCRAM_512_AUTH"])
    def test_two_ways_to_log_in_are_one_too_many(self, other: str) -> None:
        both = [{"Type": "BASIC_AUTH", "URI": "arn:a"}, {"Type": other, "URI": "arn:b"}]
        assert "more than one type to log in with" in str(refusal({**KAFKA, "SourceAccessConfigurations": both}))

    def test_nothing_in_place_of_a_way_to_log_in_is_none(self) -> None:
        refused = refusal({**KAFKA, "SourceAccessConfigurations": [None]})
        assert str(refused) == "Each of SourceAccessConfigurations needs a Type and a URI."


class TestUpdate:
    def test_a_member_of_another_source_is_refused_even_if_it_is_empty(self) -> None:
        for changes, text in (
            ({"ScalingConfig": {}}, unsupported("ScalingConfig")),
            ({"ParallelizationFactor": 1}, None),
            ({"DestinationConfig": {"OnFailure": {"Destination": ""}}}, None),
        ):
            try:
                refuse_strange(changes, KINESIS)
                found = None
            except ApiError as error:
                found = str(error)
            assert found == text

    @pytest.mark.parametrize(
        ("members", "changes", "text"),
        [
            (SQS, {"BatchSize": 11}, WINDOW),
            (
                {**KINESIS, "TumblingWindowInSeconds": 5},
                {"ParallelizationFactor": 2},
                "Parallelization factor must be equal to 1 when tumbling window period is configured",
            ),
            (
                {**KAFKA, **POLLERS, "MaximumRetryAttempts": 3},
                {"ProvisionedPollerConfig": {}},
                provisioned_only("MaximumRetryAttempts"),
            ),
            (KAFKA, {"MetricsConfig": {"Metrics": ["EventCount"]}}, provisioned_only("MetricsConfig")),
        ],
        ids=["4", "34", "32", "25"],
    )
    def test_what_holds_together_with_what_was_there_is_judged(
        self, members: dict[str, Any], changes: dict[str, Any], text: str
    ) -> None:
        check(UPDATE, changes)
        kind = kind_of(members)
        assert kind is not None
        after = changed(completed(members, kind, "uuid"), changes)
        with pytest.raises(ApiError) as refused:
            refuse_members(after, is_strict=True, now_s=NOW_S)
        assert str(refused.value) == text


class TestTimeouts:
    def test_7_a_message_must_stay_hidden_while_the_function_runs(self) -> None:
        refuse_timeout(Kind.SQS, 30, 30)
        with pytest.raises(ApiError) as refused:
            refuse_timeout(Kind.SQS, 31, 30)
        assert str(refused.value) == ("Queue visibility timeout: 30 seconds is less than Function timeout: 31 seconds")
        assert refused.value.code == INVALID

    @pytest.mark.parametrize("kind", [Kind.MSK, Kind.KAFKA])
    def test_31_a_function_that_reads_kafka_has_14_minutes(self, kind: Kind) -> None:
        refuse_timeout(kind, 840, None)
        with pytest.raises(ApiError, match="841 seconds"):
            refuse_timeout(kind, 841, None)
        refuse_timeout(Kind.KINESIS, 900, None)


@given(
    st.sampled_from([SQS, SQS_FIFO, KINESIS, DYNAMODB, KAFKA, MSK]),
    st.fixed_dictionaries(
        {},
        optional={
            "BatchSize": st.integers(1, 12),
            "MaximumBatchingWindowInSeconds": st.integers(0, 2),
            "ParallelizationFactor": st.integers(1, 2),
            "TumblingWindowInSeconds": st.integers(0, 1),
            "MaximumRetryAttempts": st.integers(-1, 1),
            "MaximumRecordAgeInSeconds": st.sampled_from([-1, 0, 59, 60]),
            "FilterCriteria": st.sampled_from([{}, {"Filters": []}, FILTERS["FilterCriteria"]]),
            "ScalingConfig": st.sampled_from([{}, {"MaximumConcurrency": 2}]),
            "ProvisionedPollerConfig": st.sampled_from([{}, {"MinimumPollers": 2}]),
            "MetricsConfig": st.sampled_from([{}, {"Metrics": ["EventCount"]}]),
            "DestinationConfig": st.sampled_from([{}, {"OnFailure": {}}, on_failure(TOPIC)["DestinationConfig"]]),
        },
    ),
    st.booleans(),
)
def test_what_was_accepted_once_is_accepted_as_it_is_kept(
    source: dict[str, Any],
    more: dict[str, Any],
    is_strict: bool,  # noqa: FBT001 - drawn
) -> None:
    members = {**source, **more}
    if refusal(members, is_strict=is_strict):
        return
    kind = kind_of(members)
    assert kind is not None
    kept = completed(cleared(members), kind, "11111111-2222-4333-8444-555555555555")
    refuse_members(kept, is_strict=is_strict, now_s=NOW_S)
    assert changed(kept, {}) == kept
    assert completed(kept, kind, "another") == kept
