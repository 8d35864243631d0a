"""The operations about event-invoke configs against what is recorded of AWS's answers and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from router.api.call import Answer, Call
from router.api.errors import ApiError
from router.api.invoke_configs import InvokeConfigs
from router.api.names import Here
from router.api.parts import Parts
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import Alias, Code, Function, InvokeConfig, Version
from tests.fakes.store import MemoryStore

ARN = "arn:aws:lambda:us-east-1:000000000000:function"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
NOW_S = 1_767_225_600.1234567
NOTHING = "You must specify at least one of error handling or destination setting."


def version(number: str) -> Version:
    return Version(number=number, runtime="python3.12", handler="a.b", role="r", code=Code())


def function(name: str, **changes: Any) -> Function:
    made = Function(
        name=name,
        latest=version("$LATEST"),
        versions={"1": version("1")},
        aliases={"live": Alias(name="live", version="1")},
    )
    return structs.replace(made, **changes)


class Api:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.catalogue = Catalogue(self.store)
        unused: Any = None
        self.operations = InvokeConfigs(
            Parts(
                catalogue=self.catalogue,
                functions=unused,
                code=unused,
                objects=unused,
                check_archive=unused,
                mappings=unused,
                where=lambda: Here("us-east-1", "000000000000"),
                is_strict=lambda: True,
                file="headrace.yaml",
                wall=lambda: NOW_S,
                new_id=lambda: "id",
                log=unused,
                accepts=unused,
            )
        ).operations

    async def call(
        self, operation: str, name: str = "worker", body: Mapping[str, Any] | None = None, **query: str
    ) -> Answer:
        call = Call("r", {"FunctionName": name}, {key: [each] for key, each in query.items()}, {}, body or {})
        return await self.operations[f"{operation}FunctionEventInvokeConfig"](call)

    async def document(
        self, operation: str, name: str = "worker", body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        answer = await self.call(operation, name, body)
        assert answer.status == 200
        return cast("dict[str, Any]", answer.document)


@pytest.fixture
async def api() -> Api:
    made = Api()
    for name in ("worker", "other"):
        await made.catalogue.put_function(function(name))
    return made


def to(success: str | None = None, failure: str | None = None) -> dict[str, Any]:
    places = {"OnSuccess": success, "OnFailure": failure}
    return {"DestinationConfig": {name: {"Destination": arn} for name, arn in places.items() if arn is not None}}


def unfit(success: str, failure: str) -> str:
    config = f"DestinationConfig(onSuccess={success}, onFailure={failure})"
    return f"The provided destination config {config} is invalid."


async def refused(api: Api, operation: str, name: str = "worker", body: Mapping[str, Any] | None = None) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await api.call(operation, name, body)
    return raised.value


async def test_what_is_put_is_answered_as_recorded_and_what_was_not_said_is_absent_or_empty(api: Api) -> None:
    assert await api.document("Put", body={"MaximumRetryAttempts": 0}) == {
        "LastModified": 1_767_225_600.123,
        "FunctionArn": f"{ARN}:worker:$LATEST",
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
        "MaximumRetryAttempts": 0,
    }
    body = {"MaximumEventAgeInSeconds": 60, **to(failure=QUEUE)}
    assert await api.document("Put", body=body) == {
        "LastModified": 1_767_225_600.123,
        "FunctionArn": f"{ARN}:worker:$LATEST",
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}},
        "MaximumEventAgeInSeconds": 60,
    }


async def test_an_update_keeps_what_it_does_not_mention(api: Api) -> None:
    await api.call("Put", body={"MaximumRetryAttempts": 1, **to(success=QUEUE)})
    updated = await api.document("Update", body={"MaximumEventAgeInSeconds": 100})
    assert updated["MaximumRetryAttempts"] == 1
    assert updated["MaximumEventAgeInSeconds"] == 100
    assert updated["DestinationConfig"] == {"OnSuccess": {"Destination": QUEUE}, "OnFailure": {}}
    emptied = await api.document("Update", body={"DestinationConfig": {"OnSuccess": {"Destination": ""}}})
    assert emptied["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}}
    assert await api.document("Get") == emptied


async def test_each_version_and_alias_has_a_config_of_its_own(api: Api) -> None:
    for name, retries in (("worker", 0), ("worker:1", 1), (f"{ARN}:worker:live", 2)):
        await api.call("Put", name, {"MaximumRetryAttempts": retries})
    shown = await api.document("Get", "worker:live")
    assert (shown["FunctionArn"], shown["MaximumRetryAttempts"]) == (f"{ARN}:worker:live", 2)
    assert (await api.call("Get", "worker", Qualifier="1")).document["MaximumRetryAttempts"] == 1  # type: ignore[index]
    assert (await api.call("Delete", "worker:1")).status == 204
    assert (
        str(await refused(api, "Get", "worker:1")) == f"The function {ARN}:worker:1 doesn't have an EventInvokeConfig"
    )
    assert await api.document("Get", "worker:$LATEST") == await api.document("Get")


async def test_what_is_written_is_there_after_a_restart(api: Api) -> None:
    await api.call("Put", body={"MaximumRetryAttempts": 1})
    again = Catalogue(api.store)
    await again.load()
    assert again.functions["worker"].invoke_configs == {
        "$LATEST": InvokeConfig(maximum_retry_attempts=1, modified_s=NOW_S)
    }


async def test_lists_come_in_pages(api: Api) -> None:
    list_configs = api.operations["ListFunctionEventInvokeConfigs"]
    for name in ("worker", "worker:1", "worker:live"):
        await api.call("Put", name, {"MaximumRetryAttempts": 1})
    seen: list[str] = []
    query: dict[str, list[str]] = {"MaxItems": ["2"]}
    while True:
        page = (await list_configs(Call("r", {"FunctionName": "worker"}, query, {}))).document
        assert page is not None
        seen += [each["FunctionArn"] for each in page["FunctionEventInvokeConfigs"]]
        if "NextMarker" not in page:
            break
        query["Marker"] = [page["NextMarker"]]
    assert sorted(seen) == sorted([f"{ARN}:worker:$LATEST", f"{ARN}:worker:1", f"{ARN}:worker:live"])
    empty = await list_configs(Call("r", {"FunctionName": "other"}, {}, {}))
    assert empty.document == {"FunctionEventInvokeConfigs": []}


@pytest.mark.parametrize("most", ["0", "51"])
async def test_a_page_has_bounds(api: Api, most: str) -> None:
    with pytest.raises(ApiError, match="'maxItems' failed to satisfy constraint") as raised:
        await api.operations["ListFunctionEventInvokeConfigs"](
            Call("r", {"FunctionName": "worker"}, {"MaxItems": [most]}, {})
        )
    assert raised.value.code == "ValidationException"


@pytest.mark.parametrize("operation", ["Put", "Update"])
@pytest.mark.parametrize("body", [{}, {"DestinationConfig": None}, {"Unknown": 1}])
async def test_something_must_be_said(api: Api, operation: str, body: dict[str, Any]) -> None:
    error = await refused(api, operation, body=body)
    assert (error.code, str(error)) == ("InvalidParameterValueException", NOTHING)


@pytest.mark.parametrize("name", ["nobody", "worker:2", "worker:dead"])
@pytest.mark.parametrize("operation", ["Put", "Update"])
async def test_a_function_must_be_there(api: Api, operation: str, name: str) -> None:
    error = await refused(api, operation, name, {"MaximumRetryAttempts": 1})
    assert (error.code, error.status, str(error)) == ("ResourceNotFoundException", 404, "The function doesn't exist.")
    assert error.document == {"Type": "User", "Message": "The function doesn't exist."}


@pytest.mark.parametrize("name", ["nobody", "worker", "worker:1"])
@pytest.mark.parametrize("operation", ["Get", "Delete"])
async def test_a_config_must_be_there(api: Api, operation: str, name: str) -> None:
    error = await refused(api, operation, name)
    qualified = name if ":" in name else f"{name}:$LATEST"
    assert (error.status, str(error)) == (404, f"The function {ARN}:{qualified} doesn't have an EventInvokeConfig")


async def test_what_is_not_there_is_not_updated(api: Api) -> None:
    error = await refused(api, "Update", body={"MaximumRetryAttempts": 1})
    assert str(error) == f"The function {ARN}:worker:$LATEST doesn't have an EventInvokeConfig"


@pytest.mark.parametrize(
    "body",
    [
        {"MaximumRetryAttempts": 3},
        {"MaximumRetryAttempts": -1},
        {"MaximumEventAgeInSeconds": 59},
        {"MaximumEventAgeInSeconds": 21601},
        to(success="q"),
        to(failure="arn:aws:sqs:nowhere:1:q"),
        to(failure="arn:aws:sqs:us-east-1:000000000000:" + "q" * 350),
    ],
)
async def test_ranges_and_forms_hold(api: Api, body: dict[str, Any]) -> None:
    assert (await refused(api, "Put", body=body)).code == "ValidationException"
    assert not api.catalogue.functions["worker"].invoke_configs


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (to(success=f"{ARN}:worker"), "You can't specify the function as a destination for itself."),
        (to(failure=f"{ARN}:worker:live"), "You can't specify the function as a destination for itself."),
        (to(failure=f"{ARN}:nobody"), f"The destination ARN {ARN}:nobody is invalid."),
        (to(success=f"{QUEUE}.fifo"), f"The destination ARN {QUEUE}.fifo is invalid."),
        (
            to(success="arn:aws:s3:::b"),
            unfit("OnSuccess(destination=arn:aws:s3:::b)", "null"),
        ),
        (
            to(QUEUE, "arn:aws:kinesis:us-east-1:000000000000:stream/s"),
            unfit(
                f"OnSuccess(destination={QUEUE})",
                "OnFailure(destination=arn:aws:kinesis:us-east-1:000000000000:stream/s)",
            ),
        ),
        (
            to(failure="kafka://topic"),
            unfit("null", "OnFailure(destination=kafka://topic)"),
        ),
    ],
)
async def test_destinations_are_looked_at(api: Api, body: dict[str, Any], text: str) -> None:
    for operation in ("Put", "Update"):
        if operation == "Update":
            await api.call("Put", body={"MaximumRetryAttempts": 1})
        error = await refused(api, operation, body=body)
        assert (error.code, str(error)) == ("InvalidParameterValueException", text)


@pytest.mark.parametrize(
    "place",
    [
        QUEUE,
        "arn:aws:sns:us-east-1:000000000000:t",
        "arn:aws:events:us-east-1:000000000000:event-bus/b",
        "arn:aws:s3:::b",
        f"{ARN}:other",
        f"{ARN}:other:live",
        "arn:aws:lambda:eu-west-1:111122223333:function:worker",
        f"{ARN}:orders".replace("us-east-1", "eu-west-1"),
    ],
)
async def test_all_kinds_of_destinations_are_taken(api: Api, place: str) -> None:
    shown = await api.document("Put", body=to(failure=place))
    assert shown["DestinationConfig"]["OnFailure"] == {"Destination": place}


@pytest.mark.parametrize("operation", ["Put", "Update", "Delete"])
async def test_what_the_file_defines_is_shown_and_not_changed(api: Api, operation: str) -> None:
    config = InvokeConfig(maximum_retry_attempts=1)
    api.catalogue.show_file({"filed": function("filed", is_of_file=True, invoke_configs={"$LATEST": config})}, {})
    error = await refused(api, operation, "filed", {"MaximumRetryAttempts": 2})
    assert (error.code, error.status) == ("ResourceConflictException", 409)
    assert str(error) == "Function filed is defined in headrace.yaml: change it there"
    assert (await api.document("Get", "filed"))["MaximumRetryAttempts"] == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(["", QUEUE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PLACE = JSON | st.fixed_dictionaries({}, optional={"Destination": JSON})
BODY = st.fixed_dictionaries(
    {},
    optional={
        "MaximumRetryAttempts": JSON,
        "MaximumEventAgeInSeconds": JSON,
        "DestinationConfig": JSON | st.fixed_dictionaries({}, optional={"OnSuccess": PLACE, "OnFailure": PLACE}),
    },
)


@given(
    operation=st.sampled_from(["Put", "Update", "Get", "Delete"]),
    name=st.sampled_from(["worker", "worker:1", "nobody", "", "a b", f"{ARN}:worker:live"]) | st.text(max_size=20),
    body=BODY,
    qualifier=st.none() | st.text(max_size=10),
)
def test_whatever_comes_is_answered_or_refused(
    operation: str, name: str, body: dict[str, Any], qualifier: str | None
) -> None:
    async def scenario() -> int:
        made = Api()
        await made.catalogue.put_function(function("worker"))
        query = {} if qualifier is None else {"Qualifier": qualifier}
        try:
            return (await made.call(operation, name, body, **query)).status
        except ApiError as error:
            return error.status

    assert asyncio.run(scenario()) in (200, 204, 400, 403, 404)
