"""Event source mappings through the API: order of refusals, states, duplicates, changes, and what two do at once."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from router.api.errors import ApiError
from router.api.mapping_running import Stage
from router.catalogue.records import MAPPINGS
from router.errors import StoreUnavailable
from router.event_ports import FoundSource, NoSource
from tests.core.mapping_api import FUNCTION_ARN, Api, function
from tests.core.test_api_mapping_rules import (
    CLUSTER,
    DYNAMODB,
    FIFO,
    KAFKA,
    KINESIS,
    MSK,
    OWN,
    QUEUE,
    SQS,
    STREAM,
    TABLE,
)
from tests.fakes.store import MemoryStore

IN_USE = "Cannot {} the event source mapping because it is in use."
GONE = "The resource you requested does not exist."


@pytest.fixture
async def api() -> Api:
    return await Api().start()


@pytest.fixture
async def replicas() -> tuple[Api, Api]:
    """Two over one store, which do not tell each other what they write."""
    store = MemoryStore()
    one, two = await Api(store.of("one")).start(), Api(store.of("two"), first_id=101)
    await two.catalogue.load()
    return one, two


class TestCreate:
    async def test_modelled_constraints_are_looked_at_before_all_else(self, api: Api) -> None:
        asked = {"FunctionName": "nobody", **SQS, "BatchSize": 0, "Topics": ["ab"]}
        refused = await api.refused("Create", document=asked)
        assert (refused.code, refused.document.keys()) == ("ValidationException", {"message"})
        assert "Value null at 'functionName'" in str(await api.refused("Create", document=SQS))

    async def test_19_what_only_the_product_of_aws_needs_is_demanded(self, api: Api) -> None:
        refused = await api.refused("Create", document={"FunctionName": "nobody", **OWN})
        assert str(refused) == "Required 'sourceAccessConfigurations' parameter is missing."
        api.is_strict = False
        assert (await api.make(**OWN))["State"] == "Creating"

    async def test_2_the_function_is_looked_for_before_the_queue(self, api: Api) -> None:
        api.world.found[QUEUE] = NoSource.ABSENT
        refused = await api.refused("Create", document={"FunctionName": "nobody", **SQS})
        assert str(refused) == "Function does not exist"
        assert refused.code == "InvalidParameterValueException"
        assert not api.world.asked

    @pytest.mark.parametrize("name", ["orders:9", "orders:nobody"])
    async def test_2_nor_a_version_or_alias_that_is_not_there(self, api: Api, name: str) -> None:
        assert str(await api.refused("Create", document={"FunctionName": name, **SQS})) == "Function does not exist"

    @pytest.mark.parametrize(
        ("source", "trouble", "text"),
        [
            (
                SQS,
                NoSource.ABSENT,
                (
                    "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS "
                    "Error Message: The specified queue does not exist."
                ),
            ),
            (KINESIS, NoSource.ABSENT, f"Stream not found: {STREAM}"),
            (DYNAMODB, NoSource.ABSENT, f"Stream not found: {TABLE}"),
            (
                DYNAMODB,
                NoSource.DENIED,
                (
                    f"Cannot access stream {TABLE}. Please ensure the role can perform the GetRecords, "
                    "GetShardIterator, DescribeStream, and ListStreams Actions on your stream in IAM."
                ),
            ),
            (
                KINESIS,
                NoSource.DENIED,
                (
                    f"Cannot access stream {STREAM}. Please ensure the role can perform the GetRecords, "
                    "GetShardIterator, DescribeStream, ListShards, and ListStreams Actions on your stream in IAM."
                ),
            ),
            (
                SQS,
                NoSource.DENIED,
                "The function execution role does not have permissions to call ReceiveMessage on SQS",
            ),
        ],
        ids=["8", "9", "9 table", "30e", "30e stream", "30e queue"],
    )
    async def test_a_source_that_is_not_to_be_had_is_refused(
        self, api: Api, source: dict[str, Any], trouble: NoSource, text: str
    ) -> None:
        api.world.found[source["EventSourceArn"]] = trouble
        refused = await api.refused("Create", document={"FunctionName": "orders", **source})
        assert (str(refused), refused.code) == (text, "InvalidParameterValueException")
        assert not api.catalogue.mappings

    async def test_a_service_that_does_not_answer_is_no_fault_of_the_callers(self, api: Api) -> None:
        api.world.found[QUEUE] = "SQS queue orders: it cannot be reached"
        refused = await api.refused("Create", document={"FunctionName": "orders", **SQS})
        assert (refused.code, refused.status) == ("ServiceException", 503)
        assert "it cannot be reached" in str(refused)
        assert not api.catalogue.mappings

    async def test_7_the_queue_hides_messages_for_as_long_as_the_function_takes(self, api: Api) -> None:
        api.world.found[QUEUE] = FoundSource(2)
        refused = await api.refused("Create", document={"FunctionName": "orders", **SQS})
        assert str(refused) == "Queue visibility timeout: 2 seconds is less than Function timeout: 3 seconds"

    async def test_7_any_version_that_an_alias_leads_to_counts(self, api: Api) -> None:
        assert "Function timeout: 60" in str(
            await api.refused("Create", document={"FunctionName": "orders:split", **SQS})
        )

    async def test_30d_a_cluster_whose_servers_nobody_said_cannot_be_reached(self, api: Api) -> None:
        refused = await api.refused("Create", document={"FunctionName": "orders", **MSK})
        assert str(refused) == (
            f"Cannot access cluster {CLUSTER}. Please ensure the role can perform the DescribeClusterV2 (recommended) "
            "or DescribeCluster and GetBootstrapBrokers actions on your cluster in IAM."
        )
        api.world.clusters[CLUSTER] = ["a:9092"]
        assert (await api.make(**MSK))["State"] == "Creating"

    async def test_36b_topics_and_brokers_are_not_asked(self, api: Api) -> None:
        assert (await api.make(**KAFKA))["State"] == "Creating"
        assert not api.world.asked

    async def test_31_functions_that_read_kafka_have_14_minutes(self, api: Api) -> None:
        await api.catalogue.put_function(function("slow", timeout_s=900))
        refused = await api.refused("Create", document={"FunctionName": "slow", **KAFKA})
        assert "840" in str(refused)

    async def test_50_tags_and_no_more(self, api: Api) -> None:
        tags = {str(number): "" for number in range(51)}
        assert "tag limit" in str(await api.refused("Create", document={"FunctionName": "orders", **SQS, "Tags": tags}))

    async def test_a_start_at_the_end_is_settled_before_the_answer(self, api: Api) -> None:
        made = await api.make(**KINESIS)
        assert api.world.waited == [made["UUID"]]
        later = await api.make(**DYNAMODB, Enabled=False)
        await api.make(**{**KINESIS, "StartingPosition": "TRIM_HORIZON"}, FunctionName="bills")
        assert api.world.waited == [made["UUID"]]
        await api.call("Update", later["UUID"], {"Enabled": True})
        assert api.world.waited == [made["UUID"], later["UUID"]]

    async def test_what_cannot_be_run_is_not_made(self, api: Api) -> None:
        api.world.unfit = "SelfManagedEventSource: found a:99999, allowed host:port"
        refused = await api.refused("Create", document={"FunctionName": "orders", **KAFKA})
        assert refused.code == "InvalidParameterValueException"
        assert "allowed host:port" in str(refused)
        assert not api.catalogue.mappings

    async def test_what_cannot_be_run_any_more_is_switched_off_and_not_on_again(self, api: Api) -> None:
        uuid = (await api.make(**KAFKA))["UUID"]
        api.settle()
        api.world.unfit = "EventSourceArn: its brokers are not known"
        for change in ({"BatchSize": 2}, {"Enabled": True}):
            assert "its brokers are not known" in str(await api.refused("Update", uuid, change))
        assert (await api.call("Update", uuid, {"Enabled": False}))["State"] == "Disabling"
        api.settle()
        assert "its brokers are not known" in str(await api.refused("Update", uuid, {"Enabled": True}))

    async def test_what_cannot_be_kept_is_not_made(self, api: Api) -> None:
        api.store.write_fault = "disk full"
        with pytest.raises(StoreUnavailable):
            await api.make(**SQS)
        api.store.write_fault = None
        assert not api.catalogue.mappings
        assert (await api.make(**SQS))["State"] == "Creating"

    async def test_members_that_nobody_knows_are_ignored_at_every_depth(self, api: Api) -> None:
        strange = {"Strange": 1}
        filters = {"Filters": [{"Pattern": '{"body": ["a"]}', **strange}], **strange}
        scaling = {"MaximumConcurrency": 3, **strange}
        made = await api.make(**SQS, ScalingConfig=scaling, FilterCriteria=filters, **strange)
        assert made["ScalingConfig"] == {"MaximumConcurrency": 3}
        assert made["FilterCriteria"] == {"Filters": [{"Pattern": '{"body": ["a"]}'}]}
        assert "Strange" not in made
        api.settle()
        changed = await api.call("Update", made["UUID"], {"ScalingConfig": {"MaximumConcurrency": 4, **strange}})
        assert changed["ScalingConfig"] == {"MaximumConcurrency": 4}


class TestNames:
    @pytest.mark.parametrize(
        ("name", "arn"),
        [
            ("orders", FUNCTION_ARN),
            (FUNCTION_ARN, FUNCTION_ARN),
            ("orders:$LATEST", f"{FUNCTION_ARN}:$LATEST"),
            ("000000000000:function:orders:$LATEST", f"{FUNCTION_ARN}:$LATEST"),
            (f"{FUNCTION_ARN}:$LATEST", FUNCTION_ARN),
            ("orders:live", f"{FUNCTION_ARN}:live"),
            (f"{FUNCTION_ARN}:1", f"{FUNCTION_ARN}:1"),
        ],
    )
    async def test_the_function_is_shown_as_it_was_qualified(self, api: Api, name: str, arn: str) -> None:
        made = await api.make(**SQS, FunctionName=name)
        assert made["FunctionArn"] == arn


class TestDuplicates:
    async def test_16_of_a_queue(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        refused = await api.refused("Create", document={"FunctionName": FUNCTION_ARN, **SQS})
        assert (refused.code, refused.status) == ("ResourceConflictException", 409)
        assert str(refused) == (
            f'An event source mapping with SQS arn (" {QUEUE} ") and function (" orders ") already exists. Please '
            f"update or delete the existing mapping with UUID {uuid}"
        )

    async def test_of_one_that_a_replica_has_made_that_we_have_not_heard_of(self, replicas: tuple[Api, Api]) -> None:
        one, two = replicas
        uuid = (await one.make(**SQS))["UUID"]
        refused = await two.refused("Create", document={"FunctionName": "orders", **SQS})
        assert (refused.code, uuid in str(refused)) == ("ResourceConflictException", True)
        assert await two.make(**SQS, FunctionName="bills")

    async def test_of_those_that_two_replicas_are_asked_for_at_once_one_is_made(
        self, replicas: tuple[Api, Api]
    ) -> None:
        ends = await asyncio.gather(*(each.make(**SQS) for each in replicas), return_exceptions=True)
        [made] = [end for end in ends if isinstance(end, dict)]
        [refused] = [end for end in ends if isinstance(end, ApiError)]
        assert (refused.code, made["UUID"] in str(refused)) == ("ResourceConflictException", True)
        assert list(await replicas[0].store.states(MAPPINGS)) == [made["UUID"]]

    async def test_of_one_that_a_change_makes_while_another_replica_makes_it(self, replicas: tuple[Api, Api]) -> None:
        one, two = replicas
        uuid = (await two.make(**SQS, FunctionName="bills"))["UUID"]
        two.settle()
        change = two.call("Update", uuid, {"FunctionName": "orders"})
        ends = await asyncio.gather(one.make(**SQS), change, return_exceptions=True)
        [refused] = [end for end in ends if isinstance(end, ApiError)]
        assert refused.code == "ResourceConflictException"

    async def test_none_are_those_of_two_functions_that_two_replicas_make_at_once(
        self, replicas: tuple[Api, Api]
    ) -> None:
        one, two = replicas
        await asyncio.gather(one.make(**SQS), two.make(**SQS, FunctionName="bills"))
        assert len(await one.store.states(MAPPINGS)) == 2

    async def test_while_others_cannot_be_looked_at_nothing_is_made(self, replicas: tuple[Api, Api]) -> None:
        one, two = replicas
        await one.make(**SQS)
        two.store.gone.add(MAPPINGS)
        with pytest.raises(StoreUnavailable, match="mapping accept"):
            await two.make(**SQS, FunctionName="bills")

    async def test_17_of_a_stream(self, api: Api) -> None:
        uuid = (await api.make(**KINESIS))["UUID"]
        refused = await api.refused("Create", document={"FunctionName": "orders", **KINESIS})
        assert str(refused) == (
            f'The event source arn (" {STREAM} ") and function (" orders ") provided mapping already exists. Please '
            f"update or delete the existing mapping with UUID {uuid}"
        )

    async def test_18_of_a_cluster_that_shares_a_server(self, api: Api) -> None:
        uuid = (await api.make(**KAFKA))["UUID"]
        servers = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["c:1", "b:9092"]}}}
        refused = await api.refused("Create", document={"FunctionName": "orders", **KAFKA, **servers})
        assert str(refused) == (
            f'An event source mapping with event source ("c:1,b:9092"), function ("{FUNCTION_ARN}"), topics ("orders") '
            f"already exists. Please update or delete the existing mapping with UUID {uuid}"
        )
        assert await api.make(**{**KAFKA, **servers, "Topics": ["bills"]})

    async def test_36a_of_a_consumer_group(self, api: Api) -> None:
        group = {"SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "mine"}}
        await api.make(**KAFKA, **group)
        again = {"FunctionName": "bills", **KAFKA, **group, "Topics": ["bills"]}
        refused = await api.refused("Create", document=again)
        assert refused.code == "ResourceConflictException"
        assert '"mine"' in str(refused)
        elsewhere = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["c:1"]}}}
        assert await api.make(**{**again, **elsewhere})

    @pytest.mark.parametrize("source", [SQS, KINESIS, KAFKA], ids=["queue", "stream", "kafka"])
    async def test_qualifications_of_one_function_are_several(self, api: Api, source: dict[str, Any]) -> None:
        for name in ("orders", "orders:live", "orders:1"):
            await api.make(**{**source, "FunctionName": name})
        for name in ("orders:$LATEST", "orders:live", f"{FUNCTION_ARN}:1"):
            refused = await api.refused("Create", document={**source, "FunctionName": name})
            assert refused.code == "ResourceConflictException"

    async def test_two_at_once_are_one(self, api: Api) -> None:
        ends = await asyncio.gather(*(api.make(**SQS) for _ in range(5)), return_exceptions=True)
        assert len(api.catalogue.mappings) == 1
        assert sum(isinstance(end, ApiError) and end.code == "ResourceConflictException" for end in ends) == 4

    async def test_a_function_that_is_changed_to_is_a_duplicate_too(self, api: Api) -> None:
        await api.make(**SQS)
        other = await api.make(**SQS, FunctionName="bills")
        api.settle()
        refused = await api.refused("Update", other["UUID"], {"FunctionName": "orders"})
        assert refused.code == "ResourceConflictException"
        assert (await api.call("Get", other["UUID"]))["FunctionArn"].endswith(":bills")


class TestStates:
    """Of each kind of source, from a call to where it comes to."""

    @pytest.mark.parametrize(("source", "is_stream"), [(SQS, False), (KINESIS, True), (DYNAMODB, True), (KAFKA, False)])
    async def test_they_pass_as_on_aws(self, api: Api, source: dict[str, Any], is_stream: bool) -> None:  # noqa: FBT001
        made = await api.make(**source)
        uuid = made["UUID"]
        assert made["State"] == "Creating"
        assert (await api.call("Get", uuid))["State"] == "Creating"
        api.settle()
        assert (await api.call("Get", uuid))["State"] == "Enabled"

        assert (await api.call("Update", uuid, {"BatchSize": 5}))["State"] == "Updating"
        assert (await api.call("Get", uuid))["State"] == "Updating"
        api.settle()
        assert (await api.call("Get", uuid))["State"] == "Enabled"

        assert (await api.call("Update", uuid, {"Enabled": False}))["State"] == "Disabling"
        assert (await api.call("Get", uuid))["State"] == "Disabling"
        api.settle()
        assert (await api.call("Get", uuid))["State"] == "Disabled"

        changed = await api.call("Update", uuid, {"BatchSize": 6})
        assert changed["State"] == ("Updating" if is_stream else "Disabled")
        assert (await api.call("Get", uuid))["State"] == "Disabled"

        assert (await api.call("Update", uuid, {"Enabled": True}))["State"] == "Enabling"
        assert (await api.call("Get", uuid))["State"] == "Enabling"
        api.settle()
        assert (await api.call("Get", uuid))["State"] == "Enabled"

        assert (await api.call("Delete", uuid))["State"] == "Deleting"
        assert (await api.call("Get", uuid))["State"] == "Deleting"
        assert api.world.left == 1
        await api.catalogue.drop_mapping(uuid)
        assert str(await api.refused("Get", uuid)) == GONE

    @pytest.mark.parametrize(("source", "at_once"), [(SQS, "Disabled"), (KINESIS, "Creating"), (DYNAMODB, "Creating")])
    async def test_one_that_is_made_disabled(self, api: Api, source: dict[str, Any], at_once: str) -> None:
        made = await api.make(**source, Enabled=False)
        assert made["State"] == at_once
        assert (await api.call("Get", made["UUID"]))["State"] == "Disabled"

    async def test_a_change_that_what_runs_does_not_see_is_done_at_once(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        api.world.next_stage = Stage.OPEN
        assert (await api.call("Update", uuid, {"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1"}))[
            "State"
        ] == "Updating"
        assert (await api.call("Get", uuid))["State"] == "Enabled"

    async def test_one_that_has_settled_stays_so_while_its_source_is_opened_again(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        assert (await api.call("Get", uuid))["State"] == "Enabled"
        api.world.stages[uuid] = Stage.OPENING
        assert (await api.call("Get", uuid))["State"] == "Enabled"

    async def test_a_change_that_could_not_be_kept_began_nothing(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        assert (await api.call("Get", uuid))["State"] == "Enabled"
        api.store.write_fault = "disk full"
        with pytest.raises(StoreUnavailable):
            await api.call("Update", uuid, {"BatchSize": 5})
        api.world.stages[uuid] = Stage.OPENING
        assert (await api.call("Get", uuid))["State"] == "Enabled"

    async def test_after_a_restart_it_is_where_it_was_left(self, api: Api) -> None:
        enabled = (await api.make(**SQS))["UUID"]
        disabled = (await api.make(**KINESIS, Enabled=False))["UUID"]
        again = Api()
        again.store.texts.update(api.store.texts)
        await again.catalogue.load()
        again.world.stages[enabled] = Stage.OPENING
        assert (await again.call("Get", enabled))["State"] == "Enabled"
        assert (await again.call("Get", disabled))["State"] == "Disabled"


class TestInUse:
    @pytest.mark.parametrize("verb", ["Update", "Delete"])
    async def test_38_what_has_not_settled_is_not_changed(self, api: Api, verb: str) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        refused = await api.refused(verb, uuid, {"BatchSize": 5})
        assert (refused.code, refused.status) == ("ResourceInUseException", 400)
        assert str(refused) == IN_USE.format(verb.lower())
        assert refused.document == {"Type": "User", "Message": str(refused)}
        api.settle()
        assert await api.call(verb, uuid, {"BatchSize": 5})

    async def test_what_is_being_deleted_is_not_deleted_again(self, api: Api) -> None:
        uuid = (await api.make(**SQS, Enabled=False))["UUID"]
        await api.call("Delete", uuid)
        assert str(await api.refused("Delete", uuid)) == IN_USE.format("delete")
        assert str(await api.refused("Update", uuid, {"Enabled": True})) == IN_USE.format("update")

    async def test_of_many_at_once_one_is_done(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        calls = [api.call("Update", uuid, {"BatchSize": size}) for size in range(1, 6)]
        ends = await asyncio.gather(*calls, *(api.call("Delete", uuid) for _ in range(5)), return_exceptions=True)
        done = [end for end in ends if isinstance(end, dict)]
        assert [end["BatchSize"] for end in done] == [1]
        assert {str(end) for end in ends if isinstance(end, ApiError)} == {
            IN_USE.format("update"),
            IN_USE.format("delete"),
        }

    async def test_what_does_not_come_to_run_can_still_be_deleted(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        del api.world.stages[uuid]
        assert (await api.call("Delete", uuid))["State"] == "Deleting"


class TestUnknown:
    @pytest.mark.parametrize("verb", ["Get", "Update", "Delete"])
    async def test_37(self, api: Api, verb: str) -> None:
        refused = await api.refused(verb, "11111111-2222-4333-8444-555555555555")
        assert (refused.code, refused.status) == ("ResourceNotFoundException", 404)
        assert refused.document == {"Type": "User", "Message": GONE}


class TestUpdate:
    async def test_what_is_asked_for_is_judged_as_when_it_was_made(self, api: Api) -> None:
        uuid = (await api.make(**KINESIS))["UUID"]
        api.settle()
        refused = await api.refused("Update", uuid, {"BatchSize": 10001, "ScalingConfig": {}})
        assert (refused.code, "at 'batchSize'" in str(refused)) == ("ValidationException", True)
        refused = await api.refused("Update", uuid, {"ScalingConfig": {}, "FunctionName": "nobody"})
        assert str(refused) == "Unsupported ScalingConfig parameter for given event source mapping type."

    async def test_a_function_is_named_anew_and_shown_at_once(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        api.now_s += 5
        changed = await api.call("Update", uuid, {"FunctionName": "bills:live"})
        assert changed["FunctionArn"].endswith(":function:bills:live")
        assert changed["LastModified"] == 1_800_000_005.123
        assert changed["State"] == "Updating"

    async def test_a_consumer_group_is_no_duplicate_of_its_own(self, api: Api) -> None:
        uuid = (await api.make(**KAFKA))["UUID"]
        api.settle()
        assert (await api.call("Update", uuid, {"FunctionName": "bills"}))["FunctionArn"].endswith(":bills")

    async def test_7_holds_for_the_function_that_is_named(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        api.world.found[QUEUE] = FoundSource(1)
        assert await api.call("Update", uuid, {"BatchSize": 2})
        api.settle()
        refused = await api.refused("Update", uuid, {"FunctionName": "bills"})
        assert str(refused) == "Queue visibility timeout: 1 seconds is less than Function timeout: 3 seconds"

    async def test_a_function_that_is_not_there(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        assert str(await api.refused("Update", uuid, {"FunctionName": "nobody"})) == "Function does not exist"

    async def test_what_was_lifted_when_it_was_made_stays_so(self, api: Api) -> None:
        api.is_strict = False
        uuid = (await api.make(**OWN, MaximumRetryAttempts=3))["UUID"]
        api.settle()
        api.is_strict = True
        assert (await api.call("Update", uuid, {"Enabled": False}))["State"] == "Disabling"

    async def test_what_is_made_for_good_stays(self, api: Api) -> None:
        made = await api.make(**KAFKA)
        api.settle()
        changed = await api.call(
            "Update",
            made["UUID"],
            {"Topics": ["others"], "StartingPosition": "LATEST", "EventSourceArn": QUEUE, "BatchSize": 7},
        )
        assert changed["BatchSize"] == 7
        assert changed["Topics"] == ["orders"]
        assert changed["StartingPosition"] == "TRIM_HORIZON"
        assert "EventSourceArn" not in changed

    async def test_what_cannot_be_kept_is_not_changed(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        api.store.write_fault = "disk full"
        with pytest.raises(StoreUnavailable):
            await api.call("Update", uuid, {"BatchSize": 5})
        now = await api.call("Get", uuid)
        assert (now["BatchSize"], now["State"]) == (10, "Enabled")

    async def test_who_looks_before_what_runs_has_heard_does_not_end_the_change(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        follow, seen = api.catalogue.follow, []

        async def late() -> None:
            seen.append((await api.call("Get", uuid))["State"])
            await follow()
            api.world.stages[uuid] = Stage.LEAVING

        api.catalogue.follow = late
        await api.call("Update", uuid, {"BatchSize": 5})
        assert seen == ["Updating"]
        assert (await api.call("Get", uuid))["State"] == "Updating"
        assert str(await api.refused("Delete", uuid)) == IN_USE.format("delete")

    async def test_a_deleted_function_leaves_its_mapping_as_it_is(self, api: Api) -> None:
        uuid = (await api.make(**SQS))["UUID"]
        api.settle()
        await api.catalogue.drop_function("orders")
        api.settle()
        assert (await api.call("Get", uuid))["State"] == "Enabled"
        assert (await api.call("Update", uuid, {"BatchSize": 5}))["BatchSize"] == 5
        api.settle()
        assert (await api.call("Delete", uuid))["State"] == "Deleting"


class TestOfTheFile:
    async def test_it_is_shown_and_not_changed(self, api: Api) -> None:
        made = await api.make(**SQS)
        record = api.catalogue.mappings[made["UUID"]]
        theirs = msgspec.structs.replace(record, uuid="f" * 8, name="from-file", is_of_file=True)
        api.catalogue.show_file({}, {theirs.uuid: theirs})
        api.world.stages["from-file"] = Stage.OPEN
        shown = await api.call("Get", theirs.uuid)
        assert (shown["UUID"], shown["State"]) == (theirs.uuid, "Enabled")
        for verb in ("Update", "Delete"):
            refused = await api.refused(verb, theirs.uuid, {"BatchSize": 5})
            assert (refused.code, refused.status) == ("ResourceConflictException", 409)
            assert str(refused) == ("Event source mapping from-file is defined in headrace.yaml: change it there")

    async def test_it_is_a_duplicate_like_any(self, api: Api) -> None:
        made = await api.make(**SQS, Enabled=False)
        record = api.catalogue.mappings[made["UUID"]]
        await api.catalogue.drop_mapping(made["UUID"])
        theirs = msgspec.structs.replace(record, uuid="f" * 8, name="from-file", is_of_file=True)
        api.catalogue.show_file({}, {theirs.uuid: theirs})
        refused = await api.refused("Create", document={"FunctionName": "orders", **SQS})
        assert str(refused).endswith("with UUID ffffffff")

    async def test_one_that_the_file_has_made_a_duplicate_can_be_stopped(self, api: Api) -> None:
        made = await api.make(**SQS)
        other = await api.make(**SQS, FunctionName="bills")
        api.settle()
        record = api.catalogue.mappings[made["UUID"]]
        theirs = msgspec.structs.replace(record, uuid="f" * 8, name="from-file", is_of_file=True)
        api.catalogue.show_file({}, {theirs.uuid: theirs})
        stopped = await api.call("Update", made["UUID"], {"FunctionName": "orders", "Enabled": False})
        assert stopped["State"] == "Disabling"
        api.settle()
        refused = await api.refused("Update", other["UUID"], {"FunctionName": "orders"})
        assert "already exists" in str(refused)


class TestList:
    async def test_filters_hold_together(self, api: Api) -> None:
        queue = await api.make(**SQS)
        alias = await api.make(**SQS, FunctionName="orders:live")
        other = await api.make(EventSourceArn=FIFO)
        bills = await api.make(**SQS, FunctionName="bills")

        async def listed(**query: str) -> list[str]:
            found = await api.call("List", **query)
            assert found.get("NextMarker") is None
            return [each["UUID"] for each in found["EventSourceMappings"]]

        uuids = [each["UUID"] for each in (queue, alias, other, bills)]
        assert await listed() == sorted(uuids)
        assert await listed(EventSourceArn=QUEUE) == [uuids[0], uuids[1], uuids[3]]
        # Unqualified names no alias.
        assert await listed(FunctionName="orders") == [uuids[0], uuids[2]]
        assert await listed(FunctionName=FUNCTION_ARN) == [uuids[0], uuids[2]]
        assert await listed(FunctionName="orders:live") == [uuids[1]]
        assert await listed(FunctionName="orders", EventSourceArn=FIFO) == [uuids[2]]
        assert await listed(FunctionName="nobody") == []
        assert await listed(EventSourceArn=STREAM) == []

    async def test_pages_follow_each_other_by_their_markers(self, api: Api) -> None:
        made = sorted([(await api.make(EventSourceArn=f"{QUEUE}{number}"))["UUID"] for number in range(5)])
        seen, query = [], {"MaxItems": "2"}
        while True:
            page = await api.call("List", **query)
            seen.append([each["UUID"] for each in page["EventSourceMappings"]])
            if "NextMarker" not in page:
                break
            query["Marker"] = page["NextMarker"]
        assert seen == [made[:2], made[2:4], made[4:]]
        assert (await api.call("List", Marker="no marker"))["EventSourceMappings"] == []

    async def test_a_page_has_100_at_most(self, api: Api) -> None:
        for number in range(101):
            await api.make(EventSourceArn=f"{QUEUE}{number}")
        page = await api.call("List", MaxItems="10000")
        assert len(page["EventSourceMappings"]) == 100
        [last] = (await api.call("List", Marker=page["NextMarker"]))["EventSourceMappings"]
        assert last["UUID"] > page["EventSourceMappings"][-1]["UUID"]

    @pytest.mark.parametrize(
        ("count", "bound"), [("0", "greater than or equal to 1"), ("10001", "less than or equal to 10000")]
    )
    async def test_max_items_has_a_range(self, api: Api, count: str, bound: str) -> None:
        refused = await api.refused("List", MaxItems=count)
        assert str(refused) == (
            f"1 validation error detected: Value '{count}' at 'maxItems' failed to satisfy constraint: Member must "
            f"have value {bound}"
        )

    async def test_filters_under_a_key_are_not_listed(self, api: Api) -> None:
        key = "arn:aws:kms:us-east-1:000000000000:key/1"
        filters = {"Filters": [{"Pattern": '{"body": [ "a" ]}'}]}
        made = await api.make(**SQS, KMSKeyArn=key, FilterCriteria=filters)
        assert made["FilterCriteria"] == filters
        assert (await api.call("Get", made["UUID"]))["FilterCriteria"] == filters
        open_one = await api.make(EventSourceArn=f"{QUEUE}2", FilterCriteria=filters)
        bare = await api.make(EventSourceArn=f"{QUEUE}3", KMSKeyArn=key)
        listed = {each["UUID"]: each for each in (await api.call("List"))["EventSourceMappings"]}
        assert listed[made["UUID"]]["FilterCriteria"] is None
        assert listed[open_one["UUID"]]["FilterCriteria"] == filters
        assert "FilterCriteria" not in listed[bare["UUID"]]
