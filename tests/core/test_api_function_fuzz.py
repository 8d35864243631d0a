"""Whatever a request about functions holds, it is answered or refused; nothing else comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.api import function_requests as requests
from router.api.call import Answer
from router.api.constraints import Flag, Listed, Map, Number, Structure
from router.api.errors import ApiError
from tests.fakes.api import ROLE, ApiSite, zipped
from tests.fakes.lambda_model import unknown_members

#: Operation -> number of the parts of its path, and the shape of its document.
OPERATIONS: Mapping[str, tuple[int, Structure]] = {
    "CreateFunction": (0, requests.CREATE),
    "UpdateFunctionConfiguration": (1, requests.UPDATE_CONFIGURATION),
    "UpdateFunctionCode": (1, requests.UPDATE_CODE),
    "PublishVersion": (1, requests.PUBLISH),
    "CreateAlias": (1, requests.CREATE_ALIAS),
    "UpdateAlias": (2, requests.UPDATE_ALIAS),
    "PutFunctionConcurrency": (1, requests.CONCURRENCY),
    "AddPermission": (1, requests.ADD_PERMISSION),
    "TagResource": (1, Structure({"Tags": requests.TAGS})),
    "GetFunction": (1, Structure()),
    "GetFunctionConfiguration": (1, Structure()),
    "DeleteFunction": (1, Structure()),
    "DeleteAlias": (2, Structure()),
    "GetAlias": (2, Structure()),
    "GetPolicy": (1, Structure()),
    "RemovePermission": (2, Structure()),
    "ListFunctions": (0, Structure()),
    "ListVersionsByFunction": (1, Structure()),
    "ListAliases": (1, Structure()),
    "ListTags": (1, Structure()),
    "UntagResource": (1, Structure()),
    "GetCode": (1, Structure()),
}
NAMES = [
    "orders",
    "orders:1",
    "orders:live",
    "live",
    "1",
    "$LATEST",
    "arn:aws:lambda:us-east-1:000000000000:function:orders",
]
TEXTS = st.sampled_from([*NAMES, ROLE, zipped(), "python3.12", "s3.amazonaws.com", "lambda:InvokeFunction", "", "*"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9) | TEXTS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=5,
)


def fitting(shape: Any) -> st.SearchStrategy[Any]:
    """Give values of about the right kind."""
    match shape:
        case Structure(members=members):
            optional = {name: fitting(each) | JSON for name, each in members.items()}
            found: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional=optional)
        case Listed(member=member):
            found = st.lists(fitting(member), max_size=3)
        case Map(value=value):
            found = st.dictionaries(TEXTS | st.text(max_size=5), fitting(value), max_size=3)
        case Number(low=low, high=high):
            found = st.integers(int(low or 0) - 1, int(high or 2000) + 1) | st.floats(0, 1)
        case Flag():
            found = st.booleans()
        case _:
            found = st.sampled_from(shape.words) if shape.words else TEXTS
    return found


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_is_answered_or_refused(name: str, data: st.DataObject) -> None:
    count, shape = OPERATIONS[name]
    path = [data.draw(st.sampled_from(NAMES) | st.text(max_size=20), label="path") for _ in range(count)]
    document = data.draw(fitting(shape), label="document")
    query = data.draw(
        st.dictionaries(
            st.sampled_from(["Qualifier", "MaxItems", "Marker", "tagKeys", "RevisionId"]), TEXTS, max_size=2
        ),
        label="query",
    )

    async def scenario() -> Answer | ApiError:
        site = ApiSite()
        await site.create(Publish=True)
        await site.call("CreateAlias", "orders", Name="live", FunctionVersion="1")
        try:
            return await site.answer(name, path, query, **document)
        except ApiError as error:
            return error

    found = asyncio.run(scenario())
    if isinstance(found, ApiError):
        assert 400 <= found.status < 500
        assert str(found)
    elif name != "GetCode":
        strange = unknown_members(name, dict(found.document or {}))
        assert [each for each in strange if not each.endswith("ReasonCode=Creating")] == []


@pytest.mark.parametrize("name", ["CreateFunction", "UpdateFunctionConfiguration", "CreateAlias"])
@settings(max_examples=30, deadline=None)
@given(document=st.dictionaries(st.text(max_size=9), JSON, max_size=4))
def test_members_that_are_unknown_are_ignored(name: str, document: dict[str, Any]) -> None:
    known = OPERATIONS[name][1].members
    unknown = {key: value for key, value in document.items() if key not in known and key.isidentifier()}

    async def scenario(more: dict[str, Any]) -> Answer | str:
        site = ApiSite()
        await site.create("other")
        base = {"FunctionName": "orders", "Name": "live", "FunctionVersion": "$LATEST", "Role": ROLE}
        given = {key: base[key] for key in OPERATIONS[name][1].required if key in base}
        try:
            return await site.answer(name, [] if name == "CreateFunction" else ["other"], None, **given, **more)
        except ApiError as error:
            return str(error)

    assert asyncio.run(scenario(unknown)) == asyncio.run(scenario({}))
