"""Functions and event source mappings have tags."""

from __future__ import annotations

import asyncio

import pytest

from router.catalogue import records
from tests.fakes.api import ARN, ApiSite
from tests.fakes.lambda_model import unknown_members

UUID = "11111111-2222-4333-8444-555555555555"
MAPPING = f"arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{UUID}"


@pytest.fixture
async def site() -> ApiSite:
    site = ApiSite()
    await site.create()
    await site.catalogue.put_mapping(records.Mapping(uuid=UUID, function="orders", properties={}, name=UUID))
    return site


async def tags_of(site: ApiSite, arn: str) -> dict[str, str]:
    document = await site.call("ListTags", arn)
    assert unknown_members("ListTags", document) == []
    tags: dict[str, str] = document["Tags"]
    return tags


@pytest.mark.parametrize("arn", [f"{ARN}:orders", MAPPING, MAPPING.replace(":", "%3A")])
class TestResources:
    async def test_tags_are_set_overwritten_and_taken_away(self, site: ApiSite, arn: str) -> None:
        assert await tags_of(site, arn) == {}
        assert (await site.answer("TagResource", [arn], Tags={"a": "1", "b": "2"})).status == 204
        await site.call("TagResource", arn, Tags={"b": "3", "c": ""})
        assert await tags_of(site, arn) == {"a": "1", "b": "3", "c": ""}
        assert (await site.answer("UntagResource", [arn], {"tagKeys": ["a", "c", "none"]})).status == 204
        assert await tags_of(site, arn) == {"b": "3"}

    async def test_those_who_tag_at_once_lose_nothing(self, site: ApiSite, arn: str) -> None:
        await asyncio.gather(*(site.call("TagResource", arn, Tags={str(number): ""}) for number in range(9)))
        assert len(await tags_of(site, arn)) == 9

    async def test_there_are_50_at_most(self, site: ApiSite, arn: str) -> None:
        await site.call("TagResource", arn, Tags={str(number): "" for number in range(50)})
        error = await site.refusal("TagResource", arn, Tags={"other": ""})
        assert (error.code, str(error)) == (
            "InvalidParameterValueException",
            "Number of tags exceeds resource tag limit.",
        )
        await site.call("TagResource", arn, Tags={"0": "again"})

    async def test_no_tags_are_no_request(self, site: ApiSite, arn: str) -> None:
        assert str(await site.refusal("TagResource", arn, Tags={})) == (
            "An error occurred and the request cannot be processed."
        )
        text = "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be null"
        assert str(await site.refusal("TagResource", arn)) == text.format("tags")
        assert str(await site.refusal("UntagResource", arn)) == text.format("tagKeys")

    async def test_keys_and_values_have_their_lengths(self, site: ApiSite, arn: str) -> None:
        for tags in ({"k" * 129: ""}, {"": ""}, {"k": "v" * 257}, {"k": "#"}):
            assert (await site.refusal("TagResource", arn, Tags=tags)).code == "ValidationException"
        await site.call("TagResource", arn, Tags={"k" * 128: "v" * 256, "ä b": "_.:/=+-@"})


class TestNames:
    @pytest.mark.parametrize("operation", ["TagResource", "UntagResource", "ListTags"])
    async def test_what_is_not_there_is_not_found(self, site: ApiSite, operation: str) -> None:
        members = {"Tags": {"a": ""}} if operation == "TagResource" else {}
        query = {"tagKeys": "a"}
        gone = MAPPING.replace("11111111", "99999999")
        error = await site.refusal(operation, gone, query=query, **members)
        assert (error.status, str(error)) == (404, f"Event source mapping not found: {gone}")
        error = await site.refusal(operation, f"{ARN}:nobody", query=query, **members)
        assert (error.status, str(error)) == (404, f"Function not found: {ARN}:nobody")

    @pytest.mark.parametrize("arn", ["orders", "arn:aws:something", f"{MAPPING}:alias", f"{ARN}:orders:a:b", f"{ARN}:"])
    async def test_what_is_no_such_arn_breaks_the_pattern(self, site: ApiSite, arn: str) -> None:
        error = await site.refusal("ListTags", arn)
        assert error.code == "ValidationException"
        assert str(error).startswith(
            f"1 validation error detected: Value '{arn}' at 'resource' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: arn:(aws[a-zA-Z-]*):lambda:"
        )

    async def test_versions_and_aliases_have_no_tags(self, site: ApiSite) -> None:
        error = await site.refusal("ListTags", f"{ARN}:orders:1")
        assert (error.code, str(error)) == (
            "InvalidParameterValueException",
            "Tags on function aliases and versions are not supported. Please specify a function ARN.",
        )

    async def test_other_things_of_aws_are_not_here(self, site: ApiSite) -> None:
        arn = "arn:aws:lambda:us-east-1:000000000000:layer:tools"
        assert (await site.refusal("ListTags", arn)).status == 404

    async def test_another_region_or_account_is_not_reached(self, site: ApiSite) -> None:
        assert (await site.refusal("ListTags", f"{ARN}:orders".replace("us-east-1", "eu-west-1"))).status == 404
        assert (await site.refusal("ListTags", f"{ARN}:orders".replace("000000000000", "111111111111"))).status == 403
        assert (await site.refusal("ListTags", MAPPING.replace("us-east-1", "eu-west-1"))).status == 404

    async def test_a_mapping_that_leaves_or_is_of_the_file_is_not_changed(self, site: ApiSite) -> None:
        record = records.Mapping(uuid=UUID, function="orders", properties={}, name="stream", is_of_file=True)
        site.catalogue.show_file({}, {UUID: record})
        error = await site.refusal("TagResource", MAPPING, Tags={"a": ""})
        assert (error.code, error.status) == ("ResourceConflictException", 409)
        assert "headrace.yaml: change it there" in str(error)
        site.catalogue.show_file({}, {})
        await site.catalogue.put_mapping(
            records.Mapping(uuid=UUID, function="orders", properties={}, name=UUID, is_leaving=True)
        )
        assert (await site.refusal("TagResource", MAPPING, Tags={"a": ""})).status == 404
