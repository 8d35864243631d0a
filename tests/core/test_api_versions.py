"""Functions are changed, published in versions, and named by aliases."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from router.api.errors import ApiError
from router.catalogue.records import LATEST, InvokeConfig
from tests.fakes.api import ARN, ROLE, ApiSite, archive, zipped
from tests.fakes.lambda_model import unknown_members

INVALID = "InvalidParameterValueException"
#: AWS answers it, though its model does not have it.
UNMODELLED = "LastUpdateStatusReasonCode=Creating"
LENGTHS = "Member must have length less than or equal to 1024, Member must have length greater than or equal to 1"
STALE = (
    "The Revision Id provided does not match the latest Revision Id. "
    "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
)


@pytest.fixture
async def site() -> ApiSite:
    site = ApiSite()
    await site.create()
    return site


async def latest(site: ApiSite) -> dict[str, Any]:
    return await site.call("GetFunctionConfiguration", "orders")


class TestConfiguration:
    async def test_an_update_answers_what_is_set_and_that_it_goes_on(self, site: ApiSite) -> None:
        before = await latest(site)
        site.now_s += 60
        document = await site.call(
            "UpdateFunctionConfiguration",
            "orders",
            Description="changed",
            Timeout=10,
            MemorySize=512,
            Runtime="python3.11",
            Handler="other.handler",
            Role=ROLE + "2",
            Environment={"Variables": {"A1": "a"}},
            TracingConfig={"Mode": "Active"},
        )
        assert (
            document.items()
            >= {
                "State": "Active",
                "LastUpdateStatus": "InProgress",
                "LastUpdateStatusReason": "The function is being created.",
                "LastUpdateStatusReasonCode": "Creating",
                "LastModified": "2026-11-30T17:01:00.000+0000",
                "Description": "changed",
                "Timeout": 10,
                "MemorySize": 512,
                "Runtime": "python3.11",
                "Handler": "other.handler",
                "Role": ROLE + "2",
                "Environment": {"Variables": {"A1": "a"}},
                "TracingConfig": {"Mode": "Active"},
            }.items()
        )
        assert document["RevisionId"] != before["RevisionId"]
        assert document["CodeSha256"] == before["CodeSha256"]
        after = await latest(site)
        assert after["LastUpdateStatus"] == "Successful"
        assert after["RevisionId"] == document["RevisionId"]
        assert unknown_members("UpdateFunctionConfiguration", document) == [f"UpdateFunctionConfiguration.{UNMODELLED}"]

    async def test_what_is_not_named_stays_and_what_is_emptied_goes(self, site: ApiSite) -> None:
        given = {
            "Environment": {"Variables": {"A1": "a"}},
            "DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"},
            "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
            "Layers": ["arn:aws:lambda:us-east-1:000000000000:layer:tools:1"],
            "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1",
            "FileSystemConfigs": [{"Arn": "a", "LocalMountPath": "/mnt/a"}],
        }
        await site.call("UpdateFunctionConfiguration", "orders", **given)
        await site.call("UpdateFunctionConfiguration", "orders", Timeout=5)
        assert given.keys() <= (await latest(site)).keys()
        emptied = {
            "Environment": {"Variables": {}},
            "DeadLetterConfig": {"TargetArn": ""},
            "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
            "Layers": [],
            "KMSKeyArn": "",
            "FileSystemConfigs": [],
        }
        await site.call("UpdateFunctionConfiguration", "orders", **emptied)
        after = await latest(site)
        assert not given.keys() & after.keys()
        assert after["Timeout"] == 5

    async def test_a_key_goes_with_the_variables_that_it_encrypts(self, site: ApiSite) -> None:
        key, variables = {"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1"}, {"Variables": {"A1": "a"}}
        await site.call("UpdateFunctionConfiguration", "orders", **key)
        assert "KMSKeyArn" not in await latest(site)
        await site.call("UpdateFunctionConfiguration", "orders", Environment=variables)
        assert "KMSKeyArn" not in await latest(site)
        await site.call("UpdateFunctionConfiguration", "orders", **key)
        assert (await latest(site)).items() >= key.items()
        await site.call("UpdateFunctionConfiguration", "orders", Environment={"Variables": {}})
        assert "KMSKeyArn" not in await latest(site)

    async def test_logging_is_changed_in_part_and_levels_go_with_json(self, site: ApiSite) -> None:
        await site.call("UpdateFunctionConfiguration", "orders", LoggingConfig={"LogGroup": "/mine"})
        await site.call(
            "UpdateFunctionConfiguration", "orders", LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "WARN"}
        )
        assert (await latest(site))["LoggingConfig"] == {
            "LogFormat": "JSON",
            "LogGroup": "/mine",
            "ApplicationLogLevel": "INFO",
            "SystemLogLevel": "WARN",
        }
        await site.call("UpdateFunctionConfiguration", "orders", LoggingConfig={"LogFormat": "Text"})
        assert (await latest(site))["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/mine"}

    @pytest.mark.parametrize(
        ("members", "code"),
        [
            ({"Timeout": 901}, "ValidationException"),
            ({"Runtime": "nodejs22.x"}, INVALID),
            ({"Runtime": ""}, INVALID),
            ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, INVALID),
            ({"DeadLetterConfig": {"TargetArn": "arn:aws:s3:::b"}}, INVALID),
        ],
    )
    async def test_what_no_function_can_be_is_refused(self, site: ApiSite, members: dict[str, Any], code: str) -> None:
        before = await latest(site)
        assert (await site.refusal("UpdateFunctionConfiguration", "orders", **members)).code == code
        assert await latest(site) == before

    async def test_a_version_is_not_changed(self, site: ApiSite) -> None:
        error = await site.refusal("UpdateFunctionConfiguration", "orders:1", Timeout=5)
        assert (error.code, str(error)[:57]) == (INVALID, "This operation is permitted on Lambda functions only. Ali")
        await site.call("UpdateFunctionConfiguration", "orders:$LATEST", Timeout=5)

    @pytest.mark.parametrize(
        ("operation", "path", "members"),
        [
            ("UpdateFunctionConfiguration", ["orders"], {"Timeout": 5}),
            ("UpdateFunctionCode", ["orders"], {"ZipFile": zipped("x = 1")}),
            ("PublishVersion", ["orders"], {}),
            ("UpdateAlias", ["orders", "live"], {"Description": "d"}),
        ],
    )
    async def test_a_change_may_be_wanted_of_one_revision_alone(
        self, site: ApiSite, operation: str, path: list[str], members: dict[str, Any]
    ) -> None:
        alias = await site.call("CreateAlias", "orders", Name="live", FunctionVersion=LATEST)
        revision = alias["RevisionId"] if len(path) > 1 else (await latest(site))["RevisionId"]
        error = await site.refusal(operation, *path, RevisionId="another", **members)
        assert (error.code, error.status, str(error)) == ("PreconditionFailedException", 412, STALE)
        await site.call(operation, *path, RevisionId=revision, **members)

    async def test_of_those_who_change_one_revision_at_once_one_does(self, site: ApiSite) -> None:
        revision = (await latest(site))["RevisionId"]
        answers = await asyncio.gather(
            *(
                site.answer("UpdateFunctionConfiguration", ["orders"], Timeout=number, RevisionId=revision)
                for number in range(1, 6)
            ),
            return_exceptions=True,
        )
        assert sorted(each.status for each in answers) == [200, 412, 412, 412, 412]

    async def test_what_is_not_there_is_not_found(self, site: ApiSite) -> None:
        for operation, path, members in (
            ("UpdateFunctionConfiguration", ["nobody"], {}),
            ("UpdateFunctionCode", ["nobody"], {"ZipFile": zipped()}),
            ("PublishVersion", ["nobody"], {}),
            ("ListVersionsByFunction", ["nobody"], {}),
            ("ListAliases", ["nobody"], {}),
            ("GetAlias", ["nobody", "live"], {}),
            ("UpdateAlias", ["nobody", "live"], {}),
            ("DeleteAlias", ["nobody", "live"], {}),
            ("GetFunctionConcurrency", ["nobody"], {}),
            ("DeleteFunctionConcurrency", ["nobody"], {}),
            ("GetFunctionCodeSigningConfig", ["nobody"], {}),
        ):
            error = await site.refusal(operation, *path, **members)
            assert (error.status, str(error)) == (404, f"Function not found: {ARN}:nobody")


class TestCode:
    async def test_other_code_takes_the_place_of_the_former(self, site: ApiSite) -> None:
        document = await site.call("UpdateFunctionCode", "orders", ZipFile=zipped("x = 1"), Architectures=["arm64"])
        digest = hashlib.sha256(archive("x = 1"))
        assert document["CodeSha256"] == base64.b64encode(digest.digest()).decode()
        assert document["LastUpdateStatus"] == "InProgress"
        assert document["Architectures"] == ["arm64"]
        assert (await latest(site))["CodeSize"] == len(archive("x = 1"))
        assert list(site.code.archives) == [digest.hexdigest()]
        assert unknown_members("UpdateFunctionCode", document) == [f"UpdateFunctionCode.{UNMODELLED}"]

    async def test_the_former_stays_where_a_version_has_it(self, site: ApiSite) -> None:
        await site.call("PublishVersion", "orders")
        await site.call("UpdateFunctionCode", "orders", ZipFile=zipped("x = 1"))
        assert len(site.code.archives) == 2
        await site.call("DeleteFunction", "orders:1")
        assert len(site.code.archives) == 1

    async def test_a_dry_run_changes_nothing(self, site: ApiSite) -> None:
        before = await latest(site)
        document = await site.call("UpdateFunctionCode", "orders", ZipFile=zipped("x = 1"), DryRun=True)
        assert document["CodeSize"] == len(archive("x = 1"))
        assert await latest(site) == before
        assert len(site.code.archives) == 1
        error = await site.refusal("UpdateFunctionCode", "orders", ZipFile="YWJj", DryRun=True)
        assert str(error).startswith("Could not unzip uploaded file.")

    async def test_it_may_be_published_at_once(self, site: ApiSite) -> None:
        document = await site.call("UpdateFunctionCode", "orders", ZipFile=zipped("x = 1"), Publish=True)
        assert (document["Version"], document["FunctionArn"]) == ("1", f"{ARN}:orders:1")

    async def test_images_and_nothing_are_no_code(self, site: ApiSite) -> None:
        error = await site.refusal("UpdateFunctionCode", "orders", ImageUri="a/b:c")
        assert str(error) == "Please don't provide ImageUri when updating a function with packageType Zip."
        assert str(await site.refusal("UpdateFunctionCode", "orders")) == "Please provide a source for function code."


class TestPublish:
    async def test_versions_count_from_1_and_stay_as_they_were(self, site: ApiSite) -> None:
        answer = await site.answer("PublishVersion", ["orders"], Description="first")
        first = dict(answer.document or {})
        assert answer.status == 201
        assert (first["Version"], first["FunctionArn"]) == ("1", f"{ARN}:orders:1")
        assert (first["State"], first["LastUpdateStatus"], first["Description"]) == ("Active", "Successful", "first")
        await site.call("UpdateFunctionConfiguration", "orders", Timeout=9)
        assert (await site.call("PublishVersion", "orders"))["Version"] == "2"
        assert await site.call("GetFunctionConfiguration", "orders:1") == first
        assert (await site.call("GetFunctionConfiguration", "orders:2"))["Timeout"] == 9
        assert unknown_members("PublishVersion", first) == []

    async def test_what_has_not_changed_is_not_published_again(self, site: ApiSite) -> None:
        first = await site.call("PublishVersion", "orders", Description="first")
        assert await site.call("PublishVersion", "orders", Description="again") == first
        await site.call("TagResource", f"{ARN}:orders", Tags={"a": ""})
        await site.call("PutFunctionConcurrency", "orders", ReservedConcurrentExecutions=1)
        assert await site.call("PublishVersion", "orders") == first
        await site.call("UpdateFunctionConfiguration", "orders", Description="other")
        assert (await site.call("PublishVersion", "orders"))["Version"] == "2"
        await site.call("UpdateFunctionCode", "orders", ZipFile=zipped("x = 1"))
        assert (await site.call("PublishVersion", "orders"))["Version"] == "3"

    async def test_a_last_version_that_is_gone_is_published_anew(self, site: ApiSite) -> None:
        await site.call("PublishVersion", "orders")
        await site.call("DeleteFunction", "orders:1")
        assert (await site.call("PublishVersion", "orders"))["Version"] == "2"

    async def test_it_may_be_wanted_of_certain_code_alone(self, site: ApiSite) -> None:
        sha256 = (await latest(site))["CodeSha256"]
        error = await site.refusal("PublishVersion", "orders", CodeSha256="other")
        assert (error.code, str(error)) == (
            INVALID,
            (
                f"CodeSHA256 (other) is different from current CodeSHA256 in $LATEST ({sha256}). "
                "Please try again with the CodeSHA256 in $LATEST."
            ),
        )
        await site.call("PublishVersion", "orders", CodeSha256=sha256)

    async def test_lists_begin_with_latest_and_go_up(self, site: ApiSite) -> None:
        for timeout_s in range(1, 12):
            await site.call("UpdateFunctionConfiguration", "orders", Timeout=timeout_s)
            await site.call("PublishVersion", "orders")
        document = await site.call("ListVersionsByFunction", "orders", query={"MaxItems": 10_000})
        assert [each["Version"] for each in document["Versions"]] == [LATEST, *map(str, range(1, 12))]
        assert document["Versions"][0]["FunctionArn"] == f"{ARN}:orders:$LATEST"
        assert "NextMarker" not in document
        assert unknown_members("ListVersionsByFunction", document) == []
        page = await site.call("ListVersionsByFunction", "orders", query={"MaxItems": 10})
        rest = await site.call("ListVersionsByFunction", "orders", query={"Marker": page["NextMarker"]})
        assert [each["Version"] for each in rest["Versions"]] == ["10", "11"]

    async def test_those_who_publish_at_once_make_one_version(self, site: ApiSite) -> None:
        documents = await asyncio.gather(*(site.call("PublishVersion", "orders") for _ in range(5)))
        assert {each["Version"] for each in documents} == {"1"}


@pytest.fixture
async def versioned(site: ApiSite) -> ApiSite:
    """Give a site whose function has versions 1 and 2."""
    await site.call("PublishVersion", "orders")
    await site.call("UpdateFunctionConfiguration", "orders", Timeout=9)
    await site.call("PublishVersion", "orders")
    return site


class TestAliases:
    async def test_an_alias_is_made_read_changed_and_deleted(self, versioned: ApiSite) -> None:
        answer = await versioned.answer("CreateAlias", ["orders"], Name="live", FunctionVersion="1", RoutingConfig={})
        made = dict(answer.document or {})
        assert answer.status == 201
        assert made == {
            "AliasArn": f"{ARN}:orders:live",
            "Name": "live",
            "FunctionVersion": "1",
            "Description": "",
            "RevisionId": made["RevisionId"],
        }
        assert await versioned.call("GetAlias", "orders", "live") == made
        changed = await versioned.call("UpdateAlias", "orders", "live", FunctionVersion="2", Description="moved")
        assert changed == made | {
            "FunctionVersion": "2",
            "Description": "moved",
            "RevisionId": changed["RevisionId"],
        }
        assert changed["RevisionId"] != made["RevisionId"]
        for _ in range(2):
            assert (await versioned.answer("DeleteAlias", ["orders", "live"])).status == 204
        error = await versioned.refusal("GetAlias", "orders", "live")
        assert (error.status, str(error)) == (404, f"Cannot find alias arn: {ARN}:orders:live")
        error = await versioned.refusal("UpdateAlias", "orders", "live")
        assert (error.status, str(error)) == (404, f"Alias not found: {ARN}:orders:live")
        assert unknown_members("UpdateAlias", changed) == []

    async def test_it_may_share_between_two_versions(self, versioned: ApiSite) -> None:
        weights = {"AdditionalVersionWeights": {"2": 0.2}}
        made = await versioned.call("CreateAlias", "orders", Name="live", FunctionVersion="1", RoutingConfig=weights)
        assert made["RoutingConfig"] == weights
        assert (await versioned.call("UpdateAlias", "orders", "live", Description="d"))["RoutingConfig"] == weights
        for none in ({}, {"AdditionalVersionWeights": {}}):
            await versioned.call("UpdateAlias", "orders", "live", RoutingConfig=weights)
            assert "RoutingConfig" not in await versioned.call("UpdateAlias", "orders", "live", RoutingConfig=none)

    @pytest.mark.parametrize(
        ("version", "weights", "code", "text"),
        [
            (
                "1",
                {"1": 0.5, "2": 0.5},
                INVALID,
                "Number of items in AdditionalVersionWeights cannot be greater than 1",
            ),
            (
                "1",
                {"2": 2.0},
                "ValidationException",
                (
                    "1 validation error detected: Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' "
                    "failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less "
                    "than or equal to 1.0, Member must have value greater than or equal to 0.0, "
                    "Member must not be null]"
                ),
            ),
            (
                "1",
                {LATEST: 0.5},
                "ValidationException",
                (
                    "1 validation error detected: Value '{$LATEST=0.5}' at 'routingConfig.additionalVersionWeights' "
                    "failed to satisfy constraint: Map keys must satisfy constraint: "
                    f"[{LENGTHS}, Member must satisfy regular expression "
                    "pattern: [0-9]+]"
                ),
            ),
            (
                "1",
                {"1": 0.5},
                INVALID,
                "Invalid function version 1. Function version 1 is already included in routing configuration.",
            ),
            (LATEST, {"1": 0.5}, INVALID, "$LATEST is not supported for an alias pointing to more than 1 version"),
            ("1", {"10": 0.5}, "ResourceNotFoundException", f"Function not found: {ARN}:orders:10"),
            ("10", {}, "ResourceNotFoundException", f"Function not found: {ARN}:orders:10"),
        ],
    )
    async def test_rules_of_weights(
        self, versioned: ApiSite, version: str, weights: dict[str, float], code: str, text: str
    ) -> None:
        routing = {"AdditionalVersionWeights": weights}
        error = await versioned.refusal(
            "CreateAlias", "orders", Name="live", FunctionVersion=version, RoutingConfig=routing
        )
        assert (error.code, str(error)) == (code, text)
        await versioned.call("CreateAlias", "orders", Name="live", FunctionVersion="2")
        error = await versioned.refusal("UpdateAlias", "orders", "live", FunctionVersion=version, RoutingConfig=routing)
        assert (error.code, str(error)) == (code, text)

    async def test_a_version_cannot_come_to_where_its_weight_is(self, versioned: ApiSite) -> None:
        routing = {"AdditionalVersionWeights": {"2": 0.2}}
        await versioned.call("CreateAlias", "orders", Name="live", FunctionVersion="1", RoutingConfig=routing)
        assert "already included" in str(await versioned.refusal("UpdateAlias", "orders", "live", FunctionVersion="2"))

    async def test_names_are_given_once_and_are_no_numbers(self, versioned: ApiSite) -> None:
        await versioned.call("CreateAlias", "orders", Name="live", FunctionVersion="1")
        error = await versioned.refusal("CreateAlias", "orders", Name="live", FunctionVersion="1")
        assert (error.status, str(error)) == (409, f"Alias already exists: {ARN}:orders:live")
        error = await versioned.refusal("CreateAlias", "orders", Name="2024", FunctionVersion="1")
        assert str(error) == (
            "1 validation error detected: Value '2024' at 'name' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)"
        )
        error = await versioned.refusal("CreateAlias", "nobody", Name="live", FunctionVersion="1")
        assert str(error) == f"Function not found: {ARN}:nobody:1"

    async def test_lists_are_by_name_and_may_be_of_one_version(self, versioned: ApiSite) -> None:
        for name, version in (("c", "1"), ("a", "2"), ("b", "1")):
            await versioned.call("CreateAlias", "orders", Name=name, FunctionVersion=version)
        document = await versioned.call("ListAliases", "orders")
        assert [each["Name"] for each in document["Aliases"]] == ["a", "b", "c"]
        assert unknown_members("ListAliases", document) == []
        document = await versioned.call("ListAliases", "orders", query={"FunctionVersion": "1", "MaxItems": 1})
        assert [each["Name"] for each in document["Aliases"]] == ["b"]
        assert document["NextMarker"]

    async def test_what_was_said_of_an_alias_goes_with_it(self, versioned: ApiSite) -> None:
        await versioned.call("CreateAlias", "orders", Name="live", FunctionVersion="1")
        statement = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
        await versioned.call("AddPermission", "orders:live", **statement)
        await versioned.call("PutFunctionEventInvokeConfig", "orders:live", MaximumRetryAttempts=1)
        function = versioned.catalogue.function("orders")
        assert function
        assert isinstance(function.invoke_configs["live"], InvokeConfig)
        await versioned.call("DeleteAlias", "orders", "live")
        function = versioned.catalogue.function("orders")
        assert function
        assert not function.policies
        assert not function.invoke_configs


class TestConcurrency:
    async def test_it_is_set_read_and_taken_away(self, site: ApiSite) -> None:
        assert await site.call("GetFunctionConcurrency", "orders") == {}
        for reserved in (5, 0):
            document = {"ReservedConcurrentExecutions": reserved}
            assert await site.call("PutFunctionConcurrency", "orders", **document) == document
            assert await site.call("GetFunctionConcurrency", "orders") == document
        assert (await site.answer("DeleteFunctionConcurrency", ["orders"])).status == 204
        assert await site.call("GetFunctionConcurrency", "orders") == {}

    async def test_it_is_of_the_whole_function(self, site: ApiSite) -> None:
        error = await site.refusal("PutFunctionConcurrency", f"{ARN}:orders:1", ReservedConcurrentExecutions=1)
        assert (error.code, str(error)) == (
            INVALID,
            (
                "This operation is permitted on Lambda functions only. Aliases and versions do not support this "
                "operation. Please specify either a function name or an unqualified function ARN."
            ),
        )
        error = await site.refusal("PutFunctionConcurrency", "nobody", ReservedConcurrentExecutions=1)
        assert str(error) == f"Function not found: {ARN}:nobody:$LATEST"
        assert (await site.refusal("PutFunctionConcurrency", "orders")).code == "ValidationException"

    async def test_100_are_left_to_others_where_the_api_is_strict(self, site: ApiSite) -> None:
        await site.create("other")
        await site.call("PutFunctionConcurrency", "other", ReservedConcurrentExecutions=400)
        await site.call("PutFunctionConcurrency", "orders", ReservedConcurrentExecutions=500)
        await site.call("PutFunctionConcurrency", "orders", ReservedConcurrentExecutions=500)
        error = await site.refusal("PutFunctionConcurrency", "orders", ReservedConcurrentExecutions=501)
        assert str(error) == (
            "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
            "below its minimum value of [100]."
        )
        site.is_strict = False
        await site.call("PutFunctionConcurrency", "orders", ReservedConcurrentExecutions=501)

    async def test_those_who_reserve_at_once_leave_them_too(self, site: ApiSite) -> None:
        await site.create("other")
        ended = await asyncio.gather(
            *(
                site.call("PutFunctionConcurrency", name, ReservedConcurrentExecutions=500)
                for name in ("orders", "other")
            ),
            return_exceptions=True,
        )
        assert [type(each) for each in ended] == [dict, ApiError]

    async def test_the_account_counts_it_and_code(self, site: ApiSite) -> None:
        await site.call("PutFunctionConcurrency", "orders", ReservedConcurrentExecutions=5)
        await site.call("PublishVersion", "orders")
        document = await site.call("GetAccountSettings")
        assert document == {
            "AccountLimit": {
                "TotalCodeSize": 80530636800,
                "CodeSizeUnzipped": 262144000,
                "CodeSizeZipped": 52428800,
                "ConcurrentExecutions": 1000,
                "UnreservedConcurrentExecutions": 995,
            },
            "AccountUsage": {"TotalCodeSize": 2 * len(archive()), "FunctionCount": 1},
        }
        assert unknown_members("GetAccountSettings", document) == []

    async def test_there_are_no_signing_configurations(self, site: ApiSite) -> None:
        document = await site.call("GetFunctionCodeSigningConfig", "orders")
        assert document == {"CodeSigningConfigArn": "", "FunctionName": "orders"}
