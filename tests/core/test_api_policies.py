"""Policies say which services may invoke a function, and in which version."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from router.api.call import Caller
from router.api.errors import ApiError
from router.api.policies import is_arn_like, permits
from tests.fakes.api import ARN, ApiSite
from tests.fakes.lambda_model import unknown_members

INVALID = "InvalidParameterValueException"
S3 = {"StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}


@pytest.fixture
async def site() -> ApiSite:
    site = ApiSite()
    await site.create(Publish=True)
    await site.call("CreateAlias", "orders", Name="live", FunctionVersion="1")
    return site


async def statements(site: ApiSite, *path: str, query: Any = None) -> list[dict[str, Any]]:
    document = await site.call("GetPolicy", *path, query=query)
    assert unknown_members("GetPolicy", document) == []
    policy = json.loads(document["Policy"])
    assert (policy["Version"], policy["Id"]) == ("2012-10-17", "default")
    found: list[dict[str, Any]] = policy["Statement"]
    return found


class TestStatements:
    async def test_a_statement_is_answered_as_it_will_stand(self, site: ApiSite) -> None:
        answer = await site.answer("AddPermission", ["orders"], **S3, SourceArn="arn:aws:s3:::uploads")
        assert answer.status == 201
        assert answer.document == {
            "Statement": '{"Sid":"s3","Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},'
            f'"Action":"lambda:InvokeFunction","Resource":"{ARN}:orders",'
            '"Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::uploads"}}}'
        }
        assert await statements(site, "orders") == [json.loads(answer.document["Statement"])]

    @pytest.mark.parametrize(
        ("principal", "expected"),
        [
            ("sns.amazonaws.com", {"Service": "sns.amazonaws.com"}),
            ("000000000000", {"AWS": "arn:aws:iam::000000000000:root"}),
            ("arn:aws:iam::000000000000:role/r", {"AWS": "arn:aws:iam::000000000000:role/r"}),
            ("*", "*"),
        ],
    )
    async def test_principals(self, site: ApiSite, principal: str, expected: object) -> None:
        await site.call("AddPermission", "orders", **S3 | {"Principal": principal})
        assert (await statements(site, "orders"))[0]["Principal"] == expected

    async def test_conditions_have_their_keys(self, site: ApiSite) -> None:
        await site.call(
            "AddPermission",
            "orders",
            **S3,
            SourceArn="arn:aws:s3:::uploads",
            SourceAccount="000000000000",
            EventSourceToken="token",
            PrincipalOrgID="o-0123456789",
            FunctionUrlAuthType="NONE",
        )
        assert (await statements(site, "orders"))[0]["Condition"] == {
            "StringEquals": {
                "AWS:SourceAccount": "000000000000",
                "lambda:EventSourceToken": "token",
                "aws:PrincipalOrgID": "o-0123456789",
                "lambda:FunctionUrlAuthType": "NONE",
            },
            "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::uploads"},
        }

    async def test_a_statement_for_function_urls_says_so(self, site: ApiSite) -> None:
        await site.call("AddPermission", "orders", **S3, InvokedViaFunctionUrl=True)
        await site.call("AddPermission", "orders", **S3 | {"StatementId": "any"}, InvokedViaFunctionUrl=False)
        one, other = await statements(site, "orders")
        assert one["Condition"] == {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}
        assert "Condition" not in other

    @pytest.mark.parametrize("qualifier", ["1", "live"])
    async def test_versions_and_aliases_have_policies_of_their_own(self, site: ApiSite, qualifier: str) -> None:
        await site.call("AddPermission", "orders", query={"Qualifier": qualifier}, **S3)
        await site.call("AddPermission", "orders", **S3)
        for path, query, arn in (
            (f"orders:{qualifier}", {}, f"{ARN}:orders:{qualifier}"),
            ("orders", {"Qualifier": qualifier}, f"{ARN}:orders:{qualifier}"),
            ("orders", {}, f"{ARN}:orders"),
        ):
            assert [each["Resource"] for each in await statements(site, path, query=query)] == [arn]

    async def test_they_stand_in_their_order_until_they_are_removed(self, site: ApiSite) -> None:
        for sid in ("b", "a"):
            await site.call("AddPermission", "orders", **S3 | {"StatementId": sid})
        assert [each["Sid"] for each in await statements(site, "orders")] == ["b", "a"]
        error = await site.refusal("RemovePermission", "orders", "c")
        assert (error.status, str(error)) == (404, "Statement c is not found in resource policy.")
        assert (await site.answer("RemovePermission", ["orders", "b"])).status == 204
        assert [each["Sid"] for each in await statements(site, "orders")] == ["a"]
        await site.call("RemovePermission", "orders", "a")
        error = await site.refusal("GetPolicy", "orders")
        assert (error.status, str(error)) == (404, "The resource you requested does not exist.")
        error = await site.refusal("RemovePermission", "orders", "a")
        assert (error.status, str(error)) == (404, "No policy is associated with the given resource.")

    async def test_those_who_add_at_once_lose_nothing(self, site: ApiSite) -> None:
        await asyncio.gather(
            *(site.call("AddPermission", "orders", **S3 | {"StatementId": str(number)}) for number in range(9))
        )
        assert len(await statements(site, "orders")) == 9


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "members", "code", "text"),
        [
            (
                "orders",
                {"StatementId": "example.com"},
                "ValidationException",
                (
                    "1 validation error detected: Value 'example.com' at 'statementId' failed to satisfy constraint: "
                    "Member must satisfy regular expression pattern: ([a-zA-Z0-9-_]+)"
                ),
            ),
            (
                "orders",
                {"Principal": "nobody.in.particular"},
                INVALID,
                "The provided principal was invalid. Please check the principal and try again.",
            ),
            ("orders:$LATEST", {}, INVALID, "We currently do not support adding policies for $LATEST."),
            ("orders:none", {}, "ResourceNotFoundException", f"Cannot find alias arn: {ARN}:orders:none"),
            ("orders:42", {}, "ResourceNotFoundException", f"Function not found: {ARN}:orders:42"),
            ("nobody", {}, "ResourceNotFoundException", f"Function not found: {ARN}:nobody"),
        ],
    )
    async def test_what_is_wrong_is_said(
        self, site: ApiSite, path: str, members: dict[str, str], code: str, text: str
    ) -> None:
        error = await site.refusal("AddPermission", path, **S3 | members)
        assert (error.code, str(error)) == (code, text)

    async def test_a_qualifier_may_be_no_name_at_all(self, site: ApiSite) -> None:
        error = await site.refusal("AddPermission", "orders", query={"Qualifier": "with-$-but-absent"}, **S3)
        assert str(error) == f"Function not found: {ARN}:orders:with-$-but-absent"
        error = await site.refusal("AddPermission", "orders", query={"Qualifier": "with-?"}, **S3)
        assert error.code == "ValidationException"

    async def test_an_id_is_given_once(self, site: ApiSite) -> None:
        await site.call("AddPermission", "orders", **S3)
        error = await site.refusal("AddPermission", "orders", **S3)
        assert (error.status, str(error)) == (
            409,
            (
                "The statement id (s3) provided already exists. "
                "Please provide a new statement id, or remove the existing statement."
            ),
        )

    async def test_of_what_is_not_there(self, site: ApiSite) -> None:
        error = await site.refusal("GetPolicy", "nobody")
        assert str(error) == "The resource you requested does not exist."
        error = await site.refusal("RemovePermission", "nobody", "s3")
        assert (error.status, str(error)) == (404, f"No policy found for: {ARN}:nobody")

    async def test_a_change_may_be_wanted_of_one_revision_alone(self, site: ApiSite) -> None:
        alias = await site.call("GetAlias", "orders", "live")
        error = await site.refusal("AddPermission", "orders:live", **S3, RevisionId="other")
        assert (error.code, error.status, str(error)) == (
            "PreconditionFailedException",
            412,
            (
                "The Revision Id provided does not match the latest Revision Id. "
                "Call the GetPolicy API to retrieve the latest Revision Id"
            ),
        )
        await site.call("AddPermission", "orders:live", **S3, RevisionId=alias["RevisionId"])
        revision = (await site.call("GetPolicy", "orders:live"))["RevisionId"]
        await site.call("AddPermission", "orders:live", **S3 | {"StatementId": "b"}, RevisionId=revision)
        error = await site.refusal("RemovePermission", "orders:live", "b", query={"RevisionId": revision})
        assert error.status == 412

    async def test_a_policy_has_20_kb_at_most(self, site: ApiSite) -> None:
        answers = await asyncio.gather(
            *(
                site.answer("AddPermission", ["orders"], **S3 | {"StatementId": f"{number:0100}"})
                for number in range(99)
            ),
            return_exceptions=True,
        )
        refused = [each for each in answers if isinstance(each, ApiError)]
        assert {each.code for each in refused} == {"PolicyLengthExceededException"}
        assert str(refused[0]).endswith("is bigger than the limit (20480).")
        policy = (await site.call("GetPolicy", "orders"))["Policy"]
        assert len(json.loads(policy)["Statement"]) == len(answers) - len(refused)
        assert 20_000 < len(policy) <= 20_480


class TestPermits:
    async def permits(self, site: ApiSite, caller: Caller, qualifier: str | None = None, **members: Any) -> bool:
        await site.call("AddPermission", "orders", **S3 | members)
        function = site.catalogue.function("orders")
        assert function
        return permits(function, qualifier, caller)

    @pytest.mark.parametrize(
        ("members", "caller", "expected"),
        [
            ({}, Caller(service="s3.amazonaws.com"), True),
            ({}, Caller(service="sns.amazonaws.com"), False),
            ({"Action": "lambda:GetFunction"}, Caller(service="s3.amazonaws.com"), False),
            ({"Action": "lambda:*"}, Caller(service="s3.amazonaws.com"), True),
            ({"Principal": "*"}, Caller(service="s3.amazonaws.com"), True),
            ({"SourceArn": "arn:aws:s3:::up*"}, Caller(service="s3.amazonaws.com"), False),
            (
                {"SourceArn": "arn:aws:s3:::up*"},
                Caller(service="s3.amazonaws.com", source_arn="arn:aws:s3:::uploads"),
                True,
            ),
            ({"SourceAccount": "000000000000"}, Caller(service="s3.amazonaws.com"), False),
            (
                {"SourceAccount": "000000000000"},
                Caller(service="s3.amazonaws.com", source_account="000000000000"),
                True,
            ),
            ({"EventSourceToken": "t"}, Caller(service="s3.amazonaws.com"), False),
            ({"Principal": "*", "InvokedViaFunctionUrl": True}, Caller(service="s3.amazonaws.com"), False),
        ],
    )
    async def test_a_service_may_what_a_statement_lets_it(
        self, site: ApiSite, members: dict[str, Any], caller: Caller, *, expected: bool
    ) -> None:
        assert await self.permits(site, caller, **members) is expected

    async def test_only_in_the_version_that_the_policy_is_of(self, site: ApiSite) -> None:
        assert not await self.permits(site, Caller(service="s3.amazonaws.com"), "live")

    @pytest.mark.parametrize(
        ("arn", "pattern", "expected"),
        [
            ("arn:aws:s3:::uploads", "arn:aws:s3:::uploads", True),
            ("arn:aws:s3:::uploads", "arn:aws:s3:::up?oads", True),
            ("arn:aws:s3:::uploads", "arn:aws:s3:::upload", False),
            ("arn:aws:sns:us-east-1:000000000000:a:b", "arn:aws:sns:*:000000000000:a*", True),
            ("arn:aws:sns:us-east-1:000000000000:a", "arn:aws:*:a", False),
            ("arn:aws:s3:::a.b", "arn:aws:s3:::a?b", True),
            ("arn:aws:s3:::axb", "arn:aws:s3:::a.b", False),
            ("", "arn:aws:s3:::a", False),
            ("arn:aws:s3:::ab", "arn:aws:s3:::*", True),
            ("arn:aws:s3:::abcab", "arn:aws:s3:::*ab", True),
            ("arn:aws:s3:::abcabd", "arn:aws:s3:::*ab", False),
            ("arn:aws:s3:::abcabd", "arn:aws:s3:::a**b?ab*", True),
            ("arn:aws:s3:::ab", "arn:aws:s3:::*ab*b", False),
            # Whoever tries all that each `*` may stand for does not come to an end with this one.
            (f"arn:aws:s3:::{'a' * 9999}b", f"arn:aws:s3:::{'*a' * 99}", False),
        ],
    )
    def test_arns_are_compared_part_by_part(self, arn: str, pattern: str, *, expected: bool) -> None:
        assert is_arn_like(arn, pattern) is expected
