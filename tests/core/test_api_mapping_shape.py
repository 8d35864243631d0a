"""What is answered of a mapping: the members of each source, as recorded on AWS, and as AWS's own clients know them."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.mapping_kinds import kind_of
from router.api.mapping_values import changed, cleared, completed
from tests.core.mapping_api import ACCOUNT, FUNCTION_ARN, Api
from tests.core.test_api_mapping_rules import (
    ACCESS,
    CLUSTER,
    DYNAMODB,
    KAFKA,
    KINESIS,
    MSK,
    OWN,
    POLLERS,
    QUEUE,
    SQS,
    SQS_FIFO,
    STREAM,
    TABLE,
    TOPIC,
)

#: Newer than the clients that may be installed.
NEWER = {"LoggingConfig"}


@pytest.fixture
async def api() -> Api:
    return await Api().start()


def whatever(uuid: str, **members: Any) -> dict[str, Any]:
    return {
        "UUID": uuid,
        "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:event-source-mapping:{uuid}",
        "FunctionArn": FUNCTION_ARN,
        "LastModified": 1_800_000_000.123,
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
        **members,
    }


class TestDefaults:
    @pytest.mark.parametrize("source", [SQS, SQS_FIFO])
    async def test_of_a_queue(self, api: Api, source: dict[str, Any]) -> None:
        made = await api.make(**source)
        assert made == whatever(
            made["UUID"],
            EventSourceArn=source["EventSourceArn"],
            BatchSize=10,
            MaximumBatchingWindowInSeconds=0,
            FunctionResponseTypes=[],
        )

    @pytest.mark.parametrize("source", [KINESIS, DYNAMODB])
    async def test_of_a_stream(self, api: Api, source: dict[str, Any]) -> None:
        made = await api.make(**source)
        assert made == whatever(
            made["UUID"],
            EventSourceArn=source["EventSourceArn"],
            StartingPosition="LATEST",
            StateTransitionReason="User action",
            BatchSize=100,
            BisectBatchOnFunctionError=False,
            DestinationConfig={"OnFailure": {}},
            FunctionResponseTypes=[],
            LastProcessingResult="No records processed",
            MaximumBatchingWindowInSeconds=0,
            MaximumRecordAgeInSeconds=-1,
            MaximumRetryAttempts=-1,
            ParallelizationFactor=1,
            TumblingWindowInSeconds=0,
        )

    async def test_of_a_cluster_of_ones_own(self, api: Api) -> None:
        made = await api.make(**KAFKA)
        assert made == whatever(
            made["UUID"],
            BatchSize=100,
            StartingPosition="TRIM_HORIZON",
            LastProcessingResult="No records processed",
            SelfManagedEventSource=OWN["SelfManagedEventSource"],
            # The group is the mapping's own.
            SelfManagedKafkaEventSourceConfig={"ConsumerGroupId": made["UUID"]},
            SourceAccessConfigurations=ACCESS,
            Topics=["orders"],
            FunctionResponseTypes=[],
        )

    async def test_of_a_cluster_of_amazon(self, api: Api) -> None:
        api.world.clusters[CLUSTER] = ["a:9092"]
        made = await api.make(**MSK, AmazonManagedKafkaEventSourceConfig={"ConsumerGroupId": "mine"})
        assert made == whatever(
            made["UUID"],
            EventSourceArn=CLUSTER,
            BatchSize=100,
            StartingPosition="TRIM_HORIZON",
            LastProcessingResult="No records processed",
            AmazonManagedKafkaEventSourceConfig={"ConsumerGroupId": "mine"},
            Topics=["orders"],
            FunctionResponseTypes=[],
        )

    async def test_provisioned_mode_shows_what_it_brings(self, api: Api) -> None:
        made = await api.make(**KAFKA, **POLLERS)
        assert made["ProvisionedPollerConfig"] == {"MinimumPollers": 1, "MaximumPollers": 200}
        assert (made["MaximumRetryAttempts"], made["MaximumRecordAgeInSeconds"]) == (-1, -1)
        assert made["BisectBatchOnFunctionError"] is False
        bills = await api.make(**KAFKA, FunctionName="bills", ProvisionedPollerConfig={"MaximumPollers": 9})
        assert bills["ProvisionedPollerConfig"] == {"MinimumPollers": 1, "MaximumPollers": 9}
        queue = await api.make(**SQS, ProvisionedPollerConfig={"MaximumPollers": 9})
        assert queue["ProvisionedPollerConfig"] == {"MinimumPollers": 2, "MaximumPollers": 9}


class TestOfClients:
    @pytest.mark.parametrize("source", [SQS, SQS_FIFO, KINESIS, DYNAMODB, {**KAFKA, **POLLERS}, MSK])
    async def test_every_member_is_one_that_clients_know(self, api: Api, source: dict[str, Any]) -> None:
        api.world.clusters[CLUSTER] = ["a:9092"]
        made = await api.make(**source, FilterCriteria={"Filters": [{"Pattern": '{"a":[1]}'}]}, KMSKeyArn="")
        model = botocore.session.get_session().get_service_model("lambda")
        known = model.operation_model("CreateEventSourceMapping").output_shape.members
        assert set(made) <= set(known) | NEWER
        for name in ("Get", "Update", "Delete"):
            assert set(model.operation_model(f"{name}EventSourceMapping").output_shape.members) == set(known)


class TestValues:
    async def test_patterns_come_back_as_they_were_written(self, api: Api) -> None:
        criteria = {"Filters": [{"Pattern": '{ "body" : {"a":[ 1.0 ]} }'}]}
        made = await api.make(**SQS, FilterCriteria=criteria)
        assert (await api.call("Get", made["UUID"]))["FilterCriteria"] == criteria

    async def test_14_no_filters_are_not_shown(self, api: Api) -> None:
        assert "FilterCriteria" not in await api.make(**SQS, FilterCriteria={"Filters": []})

    async def test_tags_are_not_shown_nor_what_its_state_tells(self, api: Api) -> None:
        made = await api.make(**SQS, Tags={"a": "b"}, Enabled=True)
        assert made.keys().isdisjoint(("Tags", "Enabled", "FunctionName"))
        assert api.catalogue.mappings[made["UUID"]].tags == {"a": "b"}

    async def test_results_of_processing_are_those_of_what_runs(self, api: Api) -> None:
        stream, queue = await api.make(**KINESIS), await api.make(**SQS)
        api.world.results = dict.fromkeys((stream["UUID"], queue["UUID"]), "PROBLEM: Function call failed")
        assert (await api.call("Get", stream["UUID"]))["LastProcessingResult"] == "PROBLEM: Function call failed"
        assert "LastProcessingResult" not in await api.call("Get", queue["UUID"])

    async def test_a_time_of_start_is_shown(self, api: Api) -> None:
        timed = {**KINESIS, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1_700_000_000.5}
        made = await api.make(**timed)
        assert made["StartingPositionTimestamp"] == 1_700_000_000.5


DESTINATION = {"DestinationConfig": {"OnFailure": {"Destination": TOPIC}}}
FILTERS = {"FilterCriteria": {"Filters": [{"Pattern": '{"a":[1]}'}]}}
METRICS = {"MetricsConfig": {"Metrics": ["EventCount"]}}


class TestClearing:
    @pytest.mark.parametrize(
        ("source", "set_to", "cleared_by", "after"),
        [
            (SQS, FILTERS, {"FilterCriteria": {}}, {"FilterCriteria": None}),
            (SQS, FILTERS, {"FilterCriteria": {"Filters": []}}, {"FilterCriteria": None}),
            (SQS, {"ScalingConfig": {"MaximumConcurrency": 5}}, {"ScalingConfig": {}}, {"ScalingConfig": None}),
            (
                SQS,
                {"ProvisionedPollerConfig": {"MinimumPollers": 5}},
                {"ProvisionedPollerConfig": {}},
                {"ProvisionedPollerConfig": None},
            ),
            (SQS, {"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1"}, {"KMSKeyArn": ""}, {"KMSKeyArn": None}),
            (SQS, METRICS, {"MetricsConfig": {}}, {"MetricsConfig": None}),
            (SQS, METRICS, {"MetricsConfig": {"Metrics": []}}, {"MetricsConfig": None}),
            (
                KINESIS,
                DESTINATION,
                {"DestinationConfig": {"OnFailure": {"Destination": ""}}},
                {"DestinationConfig": {"OnFailure": {}}},
            ),
            (
                KAFKA,
                DESTINATION,
                {"DestinationConfig": {"OnFailure": {"Destination": ""}}},
                {"DestinationConfig": None},
            ),
            (KAFKA, {"LoggingConfig": {"SystemLogLevel": "WARN"}}, {"LoggingConfig": {}}, {"LoggingConfig": None}),
            (
                KAFKA,
                {"ProvisionedPollerConfig": {"MinimumPollers": 3, "PollerGroupName": "ours"}},
                {"ProvisionedPollerConfig": {"PollerGroupName": ""}},
                {"ProvisionedPollerConfig": {"MinimumPollers": 3, "MaximumPollers": 200}},
            ),
            (
                SQS,
                {"FunctionResponseTypes": ["ReportBatchItemFailures"]},
                {"FunctionResponseTypes": []},
                {"FunctionResponseTypes": []},
            ),
        ],
    )
    async def test_empty_values_clear(
        self,
        api: Api,
        source: dict[str, Any],
        set_to: dict[str, Any],
        cleared_by: dict[str, Any],
        after: dict[str, Any],
    ) -> None:
        made = await api.make(**source, **set_to)
        assert all(made[name] != value for name, value in after.items())
        api.settle()
        now = await api.call("Update", made["UUID"], cleared_by)
        assert {name: now.get(name) for name in after} == after
        assert await api.call("Get", made["UUID"]) == now

    async def test_leaving_provisioned_mode_takes_its_defaults_along(self, api: Api) -> None:
        made = await api.make(**KAFKA, **POLLERS)
        api.settle()
        now = await api.call("Update", made["UUID"], {"ProvisionedPollerConfig": {}})
        assert now.keys() == (await api.make(**KAFKA, FunctionName="bills")).keys()

    async def test_a_part_of_provisioned_mode_is_changed_alone(self, api: Api) -> None:
        made = await api.make(**KAFKA, ProvisionedPollerConfig={"MinimumPollers": 3, "PollerGroupName": "ours"})
        api.settle()
        now = await api.call("Update", made["UUID"], {"ProvisionedPollerConfig": {"MaximumPollers": 9}})
        assert now["ProvisionedPollerConfig"] == {"MinimumPollers": 3, "MaximumPollers": 9, "PollerGroupName": "ours"}

    async def test_a_consumer_group_stays(self, api: Api) -> None:
        made = await api.make(**KAFKA)
        api.settle()
        change = {"SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "another"}}
        now = await api.call("Update", made["UUID"], change)
        assert now["SelfManagedKafkaEventSourceConfig"] == {"ConsumerGroupId": made["UUID"]}


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "BatchSize": st.integers(1, 10),
        "MaximumRetryAttempts": st.integers(-1, 5),
        "BisectBatchOnFunctionError": st.booleans(),
        "FilterCriteria": st.sampled_from([{}, FILTERS["FilterCriteria"]]),
        "KMSKeyArn": st.sampled_from(["", "arn:aws:kms:a:b:c"]),
        "MetricsConfig": st.sampled_from([{}, {"Metrics": []}, METRICS["MetricsConfig"]]),
        "DestinationConfig": st.sampled_from([{"OnFailure": {"Destination": ""}}, DESTINATION["DestinationConfig"]]),
    },
)


@given(st.lists(CHANGES, max_size=5))
def test_updates_leave_what_they_omit_and_the_last_word_holds(updates: list[dict[str, Any]]) -> None:
    kind = kind_of(KINESIS)
    assert kind is not None
    members = completed(cleared(KINESIS), kind, "uuid")
    last: dict[str, Any] = {}
    for update in updates:
        members = completed(changed(members, update), kind, "uuid")
        last |= update
    assert members == completed(cleared({**KINESIS, **last}), kind, "uuid")


def test_sources_are_told_apart_by_their_arns() -> None:
    for members, name in ((SQS, "SQS"), (SQS_FIFO, "FIFO"), (KINESIS, "KINESIS"), (DYNAMODB, "DYNAMODB"), (MSK, "MSK")):
        kind = kind_of(members)
        assert kind is not None
        assert kind.name == name
    for arn in (f"{STREAM}/other/x", TABLE.partition("/stream")[0], f"{QUEUE}:more", "arn:aws:s3:::orders"):
        assert kind_of({"EventSourceArn": arn}) is None
