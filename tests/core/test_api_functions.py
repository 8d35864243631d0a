"""Functions are made, read, listed and deleted through the API."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import zipfile
from typing import Any

import pytest
from msgspec.structs import replace

from router.api.function_documents import stamp
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import LATEST, Code, Function, Version
from router.errors import StoreUnavailable
from tests.fakes.api import ARN, BEGIN_S, ROLE, ApiSite, archive, new_function, zipped
from tests.fakes.lambda_model import unknown_members

INVALID = "InvalidParameterValueException"


@pytest.fixture
def site() -> ApiSite:
    return ApiSite()


def of_file(name: str = "ours") -> Function:
    latest = Version(
        runtime="python3.12",
        handler="ours.handler",
        role=ROLE,
        code=Code(folder="/srv/ours"),
        environment={"KEY": "s3cret"},
        modified_s=BEGIN_S,
        revision="r",
    )
    return Function(name=name, latest=latest, is_of_file=True)


CONFIGURATION = {
    "FunctionName": "orders",
    "FunctionArn": f"{ARN}:orders",
    "Runtime": "python3.12",
    "Role": ROLE,
    "Handler": "orders.handler",
    "CodeSize": len(archive()),
    "CodeSha256": base64.b64encode(hashlib.sha256(archive()).digest()).decode(),
    "Description": "",
    "Timeout": 3,
    "MemorySize": 128,
    "LastModified": "2026-11-30T17:00:00.000+0000",
    "Version": LATEST,
    "RevisionId": "00000000-0000-0000-0000-000000000001",
    "PackageType": "Zip",
    "Architectures": ["x86_64"],
    "EphemeralStorage": {"Size": 512},
    "TracingConfig": {"Mode": "PassThrough"},
    "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
    "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/orders"},
}


class TestCreate:
    async def test_it_answers_the_configuration_of_a_function_that_is_being_made(self, site: ApiSite) -> None:
        answer = await site.answer("CreateFunction", **new_function())
        assert answer.status == 201
        document = dict(answer.document or {})
        runtime = document.pop("RuntimeVersionConfig")["RuntimeVersionArn"]
        assert runtime.startswith("arn:aws:lambda:us-east-1::runtime:")
        assert document == {
            **CONFIGURATION,
            "State": "Pending",
            "StateReason": "The function is being created.",
            "StateReasonCode": "Creating",
        }

    async def test_it_is_active_when_it_is_asked_for(self, site: ApiSite) -> None:
        await site.create()
        document = await site.call("GetFunctionConfiguration", "orders")
        assert (document["State"], document["LastUpdateStatus"]) == ("Active", "Successful")
        assert document.items() >= CONFIGURATION.items()

    async def test_all_that_it_was_given_is_answered(self, site: ApiSite) -> None:
        await site.create(
            Description="takes orders",
            Timeout=30,
            MemorySize=256,
            Environment={"Variables": {"TABLE": "orders", "KEY": "s3cret"}},
            DeadLetterConfig={"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"},
            VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
            Layers=["arn:aws:lambda:us-east-1:000000000000:layer:tools:1"],
            FileSystemConfigs=[{"Arn": "arn:aws:elasticfilesystem:a", "LocalMountPath": "/mnt/a"}],
            KMSKeyArn="arn:aws:kms:us-east-1:000000000000:key/1",
            TracingConfig={"Mode": "Active"},
            Architectures=["arm64"],
            EphemeralStorage={"Size": 1024},
            SnapStart={"ApplyOn": "PublishedVersions"},
            LoggingConfig={"LogFormat": "JSON", "LogGroup": "/mine"},
            Tags={"team": "a"},
        )
        document = await site.call("GetFunction", "orders")
        assert document["Tags"] == {"team": "a"}
        assert (
            document["Configuration"].items()
            >= {
                "Description": "takes orders",
                "Timeout": 30,
                "MemorySize": 256,
                "Environment": {"Variables": {"TABLE": "orders", "KEY": "s3cret"}},
                "DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"},
                "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"], "VpcId": ""},
                "Layers": [{"Arn": "arn:aws:lambda:us-east-1:000000000000:layer:tools:1", "CodeSize": 0}],
                "FileSystemConfigs": [{"Arn": "arn:aws:elasticfilesystem:a", "LocalMountPath": "/mnt/a"}],
                "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1",
                "TracingConfig": {"Mode": "Active"},
                "Architectures": ["arm64"],
                "EphemeralStorage": {"Size": 1024},
                "SnapStart": {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"},
                "LoggingConfig": {
                    "LogFormat": "JSON",
                    "LogGroup": "/mine",
                    "ApplicationLogLevel": "INFO",
                    "SystemLogLevel": "INFO",
                },
            }.items()
        )
        assert unknown_members("GetFunction", document) == []

    async def test_what_is_answered_is_in_the_model(self, site: ApiSite) -> None:
        assert unknown_members("CreateFunction", await site.create(Environment={"Variables": {"A1": "b"}})) == []

    async def test_a_name_is_given_once(self, site: ApiSite) -> None:
        await site.create()
        error = await site.refusal("CreateFunction", **new_function())
        assert (error.code, error.status, str(error)) == (
            "ResourceConflictException",
            409,
            "Function already exist: orders",
        )

    async def test_two_at_once_make_one(self, site: ApiSite) -> None:
        answers = await asyncio.gather(
            *(site.answer("CreateFunction", **new_function()) for _ in range(5)), return_exceptions=True
        )
        assert [getattr(each, "status", None) for each in answers].count(201) == 1
        assert len(site.code.archives) == 1

    async def test_a_name_may_come_as_an_arn(self, site: ApiSite) -> None:
        assert (await site.create(f"{ARN}:orders"))["FunctionName"] == "orders"

    async def test_it_outlives_the_daemon(self, site: ApiSite) -> None:
        await site.create(Layers=["arn:aws:lambda:us-east-1:000000000000:layer:tools:1"])
        again = Catalogue(site.store)
        await again.load()
        assert again.function("orders") == site.catalogue.function("orders")

    async def test_published_at_once_it_answers_version_1_under_the_functions_arn(self, site: ApiSite) -> None:
        document = await site.create(Publish=True)
        assert (document["Version"], document["FunctionArn"]) == ("1", f"{ARN}:orders")
        assert (await site.call("GetFunctionConfiguration", "orders:1"))["FunctionArn"] == f"{ARN}:orders:1"


class TestRefusals:
    @pytest.mark.parametrize(
        ("members", "code", "text"),
        [
            ({"Role": "r1"}, "ValidationException", "Value 'r1' at 'role' failed"),
            ({"Role": None}, "ValidationException", "Value null at 'role' failed"),
            (
                {"Timeout": 901},
                "ValidationException",
                "at 'timeout' failed to satisfy constraint: Member must have value",
            ),
            ({"Timeout": 0}, "ValidationException", "Member must have value greater than or equal to 1"),
            ({"MemorySize": 127}, "ValidationException", "Value '127' at 'memorySize'"),
            ({"MemorySize": 10241}, "ValidationException", "less than or equal to 10240"),
            ({"Handler": "a b"}, "ValidationException", r"regular expression pattern: [^\s]+"),
            ({"Handler": "a" * 129}, "ValidationException", "less than or equal to 128"),
            ({"Description": "a" * 257}, "ValidationException", "less than or equal to 256"),
            (
                {"Architectures": ["x86_64", "arm64"]},
                "ValidationException",
                (
                    "Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: "
                    "Member must have length less than or equal to 1"
                ),
            ),
            (
                {"Architectures": ["X86_64"]},
                "ValidationException",
                (
                    "Value '[X86_64]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: "
                    "[Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"
                ),
            ),
            (
                {"SnapStart": {"ApplyOn": "invalidOption"}},
                "ValidationException",
                (
                    "Value 'invalidOption' at 'snapStart.applyOn' failed to satisfy constraint: "
                    "Member must satisfy enum value set: [PublishedVersions, None]"
                ),
            ),
            ({"EphemeralStorage": {"Size": 511}}, "ValidationException", "at 'ephemeralStorage.size'"),
            ({"Environment": {"Variables": {"1": "x"}}}, "ValidationException", "Value at 'environment.variables'"),
            ({"FunctionName": "a" * 65}, INVALID, "Member must have length less than or equal to 64"),
            ({"FunctionName": "or/ders"}, INVALID, "Value 'or/ders' at 'functionName'"),
            ({"Runtime": "nodejs22.x"}, INVALID, "nodejs22.x is not supported here"),
            ({"Runtime": "python2.7"}, INVALID, "python2.7 is not supported here"),
            ({"Runtime": None}, INVALID, "Runtime and Handler are mandatory parameters"),
            ({"Handler": None}, INVALID, "Runtime and Handler are mandatory parameters"),
            ({"PackageType": "Image"}, INVALID, "PackageType Image is not supported here"),
            ({"Code": {"ImageUri": "a/b:c"}}, INVALID, "PackageType Image is not supported here"),
            ({"Code": {}}, INVALID, "Please provide a source for function code."),
            ({"Code": {"S3Bucket": "code"}}, INVALID, "Please provide a source for function code."),
            (
                {"Code": {"ZipFile": zipped(), "S3Bucket": "code", "S3Key": "a"}},
                INVALID,
                "Please do not provide other FunctionCode parameters when providing a ZipFile.",
            ),
            ({"Code": {"ZipFile": "no base64!"}}, "SerializationException", "ZipFile is not Base64."),
            ({"Timeout": "3"}, "SerializationException", "STRING_VALUE can not be converted to an Integer"),
            ({"DeadLetterConfig": {"TargetArn": "arn:aws:s3:::b"}}, INVALID, "neither a standard SQS queue nor"),
            (
                {"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:q.fifo"}},
                INVALID,
                "neither a standard SQS queue nor",
            ),
            (
                {"Tags": {str(number): "" for number in range(51)}},
                INVALID,
                "Number of tags exceeds resource tag limit.",
            ),
            ({"ImageConfig": {"Command": ["a"]}}, INVALID, "Please don't provide ImageConfig"),
            ({"CodeSigningConfigArn": "arn:x"}, "CodeSigningConfigNotFoundException", "cannot be found"),
        ],
    )
    async def test_what_is_wrong_is_said(self, site: ApiSite, members: dict[str, Any], code: str, text: str) -> None:
        error = await site.refusal("CreateFunction", **new_function(**members))
        assert error.code == code
        assert text in str(error)
        assert not site.catalogue.functions
        assert not site.code.archives

    async def test_variables_of_the_runtime_cannot_be_set(self, site: ApiSite) -> None:
        error = await site.refusal(
            "CreateFunction",
            **new_function(Environment={"Variables": {"AWS_REGION": "x", "OK": "y", "LAMBDA_TASK_ROOT": "z"}}),
        )
        assert str(error) == (
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided contains reserved keys that are currently not supported for modification. "
            "Reserved keys used in this request: AWS_REGION, LAMBDA_TASK_ROOT"
        )

    async def test_variables_take_4_kb_at_most_and_are_not_repeated(self, site: ApiSite) -> None:
        fitting = 4096 - len('{"KEY":""}')
        await site.create("small", Environment={"Variables": {"KEY": "k" * fitting}})
        error = await site.refusal(
            "CreateFunction", **new_function(Environment={"Variables": {"KEY": "k" * (fitting + 1)}})
        )
        assert "exceeded the 4KB limit" in str(error)
        assert "kkk" not in str(error)

    async def test_nothing_of_it_is_left_where_the_store_is_full(self, site: ApiSite) -> None:
        site.store.write_fault = "disk full"
        with pytest.raises(StoreUnavailable):
            await site.create()
        assert not site.catalogue.functions
        assert not site.code.archives
        site.store.write_fault, site.code.fault = None, "disk full"
        with pytest.raises(StoreUnavailable):
            await site.create()
        assert not site.catalogue.functions

    @pytest.mark.parametrize("members", [{"Environment": {"Variables": {"KEY": "a\0b"}}}, {"Handler": "a\0b.handler"}])
    async def test_what_no_process_can_be_given_is_refused(self, site: ApiSite, members: dict[str, Any]) -> None:
        await site.create()
        for error in (
            await site.refusal("CreateFunction", **new_function("other", **members)),
            await site.refusal("UpdateFunctionConfiguration", "orders", **members),
        ):
            assert error.code == INVALID
            assert "NUL" in str(error)
            assert "a\0b" not in str(error)

    async def test_who_is_cancelled_leaves_the_code_of_what_may_have_been_written(self, site: ApiSite) -> None:
        making = asyncio.create_task(site.create())
        while not site.code.archives:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert list(site.code.archives.values()) == [archive()]


class TestCode:
    async def test_it_may_be_an_object_of_s3_in_a_version(self, site: ApiSite) -> None:
        site.objects.objects["code", "orders.zip", "v1"] = archive("x = 1")
        document = await site.create(Code={"S3Bucket": "code", "S3Key": "orders.zip", "S3ObjectVersion": "v1"})
        assert document["CodeSize"] == len(archive("x = 1"))
        assert list(site.code.archives.values()) == [archive("x = 1")]

    async def test_an_object_that_is_not_there_is_said_in_the_words_of_s3(self, site: ApiSite) -> None:
        error = await site.refusal("CreateFunction", **new_function(Code={"S3Bucket": "code", "S3Key": "none.zip"}))
        assert (error.code, str(error)) == (
            INVALID,
            (
                "Error occurred while GetObject. S3 Error Code: NoSuchKey. "
                "S3 Error Message: The specified key does not exist."
            ),
        )

    async def test_s3_that_is_away_is_nobodys_mistake(self, site: ApiSite) -> None:
        site.objects.is_away = True
        error = await site.refusal("CreateFunction", **new_function(Code={"S3Bucket": "code", "S3Key": "a.zip"}))
        assert (error.code, error.status) == ("ServiceException", 503)

    async def test_it_may_be_a_folder_of_this_machine(self, site: ApiSite, tmp_path) -> None:
        document = await site.create(Code={"S3Bucket": "headrace-local", "S3Key": f"{tmp_path}/"})
        assert document["CodeSize"] == 0
        assert "CodeSha256" not in document
        function = site.catalogue.function("orders")
        assert function
        assert (function.latest.code.folder, function.latest.code.sha256) == (str(tmp_path), "")
        assert (await site.call("GetFunction", "orders"))["Code"]["Location"] == tmp_path.as_uri()

    async def test_the_folder_that_is_looked_for_is_the_one_that_is_kept(self, site: ApiSite, tmp_path) -> None:
        (tmp_path / "elsewhere" / "folder").mkdir(parents=True)
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "folder")
        for key in (f"{tmp_path}/link/../folder", f"{tmp_path}/folder"):
            error = await site.refusal(
                "CreateFunction", **new_function(Code={"S3Bucket": "headrace-local", "S3Key": key})
            )
            assert error.code == INVALID

    @pytest.mark.parametrize("key", ["relative/folder", "/no/such/folder/here", "/etc/hostname", "/" + "a" * 1000])
    async def test_another_path_is_refused(self, site: ApiSite, key: str) -> None:
        error = await site.refusal("CreateFunction", **new_function(Code={"S3Bucket": "headrace-local", "S3Key": key}))
        assert error.code == INVALID
        assert "is no absolute path of a folder" in str(error)

    async def test_what_is_no_archive_is_refused_as_it_comes(self, site: ApiSite) -> None:
        error = await site.refusal(
            "CreateFunction", **new_function(Code={"ZipFile": base64.b64encode(b"abc").decode()})
        )
        assert (error.code, str(error)) == (
            INVALID,
            "Could not unzip uploaded file. Please check your file, then try to upload again.",
        )

    async def test_it_has_50_mb_at_most(self, site: ApiSite) -> None:
        text = base64.b64encode(bytes(52_428_801)).decode()
        error = await site.refusal("CreateFunction", **new_function(Code={"ZipFile": text}))
        assert (error.code, error.status) == ("RequestEntityTooLargeException", 413)
        assert str(error) == "Zipped size must be smaller than 52428800 bytes"

    async def test_an_archive_that_reaches_out_is_refused_with_what_is_wrong(self, site: ApiSite) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as evil:
            evil.writestr("../evil.py", "")
        text = base64.b64encode(content.getvalue()).decode()
        error = await site.refusal("CreateFunction", **new_function(Code={"ZipFile": text}))
        assert str(error).startswith(
            "Could not unzip uploaded file. Please check your file, then try to upload again. ("
        )
        assert "outside of its folder" in str(error)

    async def test_the_same_code_is_kept_once_and_until_nobody_uses_it(self, site: ApiSite) -> None:
        await site.create("one")
        await site.create("two")
        assert len(site.code.archives) == 1
        await site.call("DeleteFunction", "one")
        assert len(site.code.archives) == 1
        await site.call("DeleteFunction", "two")
        assert not site.code.archives

    async def test_making_and_deleting_at_once_loses_no_code_that_is_used(self, site: ApiSite) -> None:
        await site.create("one")
        await asyncio.gather(
            site.call("DeleteFunction", "one"),
            site.create("two"),
            site.create("three"),
            site.call("DeleteFunction", "two"),
        )
        functions = site.catalogue.functions
        assert {each.latest.code.sha256 for each in functions.values()} == set(site.code.archives)

    async def test_code_that_is_elsewhere_has_no_place(self, site: ApiSite) -> None:
        function = of_file()
        elsewhere = replace(function, latest=replace(function.latest, code=Code()))
        site.catalogue.show_file({"ours": elsewhere}, {})
        assert (await site.call("GetFunction", "ours"))["Code"] == {"RepositoryType": "S3"}

    async def test_the_key_that_it_came_encrypted_with_is_given_back(self, site: ApiSite) -> None:
        await site.create(Code={"ZipFile": zipped(), "SourceKMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1"})
        assert (await site.call("GetFunction", "orders"))["Code"]["SourceKMSKeyArn"].endswith("key/1")
        await site.call("UpdateFunctionCode", "orders", ZipFile=zipped(), SourceKMSKeyArn="arn:aws:kms:::key/2")
        assert (await site.call("GetFunction", "orders"))["Code"]["SourceKMSKeyArn"].endswith("key/2")

    async def test_a_link_gives_the_code_for_ten_minutes(self, site: ApiSite) -> None:
        await site.create()
        location = (await site.call("GetFunction", "orders"))["Code"]["Location"]
        assert location.startswith("http://127.0.0.1:9301/2015-03-31/code/")
        token = location.rpartition("/")[2]
        error = await site.refusal("GetCode", f"0{token[1:]}")
        assert error.status == 403
        for other in ("", ".", "a.b", "a.b.c", token.replace(".", "0", 1), "é.1.2"):
            assert (await site.refusal("GetCode", other)).status == 403
        site.now_s += 601
        assert "expired" in str(await site.refusal("GetCode", token))

    async def test_a_link_to_code_that_is_gone_is_not_found(self, site: ApiSite) -> None:
        await site.create()
        location = (await site.call("GetFunction", "orders"))["Code"]["Location"]
        await site.call("DeleteFunction", "orders")
        assert (await site.refusal("GetCode", location.rpartition("/")[2])).status == 404

    async def test_a_link_to_code_that_goes_as_it_is_read_is_not_found(self, site: ApiSite) -> None:
        await site.create()
        location = (await site.call("GetFunction", "orders"))["Code"]["Location"]
        # There is no file where the code in memory says that it is.
        assert (await site.refusal("GetCode", location.rpartition("/")[2])).status == 404


class TestRead:
    async def test_get_function_has_code_and_configuration_and_concurrency_only_where_reserved(
        self, site: ApiSite
    ) -> None:
        await site.create()
        document = await site.call("GetFunction", "orders")
        assert set(document) == {"Configuration", "Code"}
        assert document["Code"]["RepositoryType"] == "S3"
        await site.call("PutFunctionConcurrency", "orders", ReservedConcurrentExecutions=0)
        document = await site.call("GetFunction", "orders")
        assert document["Concurrency"] == {"ReservedConcurrentExecutions": 0}

    @pytest.mark.parametrize(
        ("path", "query", "arn"),
        [
            ("orders", {}, f"{ARN}:orders"),
            ("orders:$LATEST", {}, f"{ARN}:orders:$LATEST"),
            ("orders", {"Qualifier": "1"}, f"{ARN}:orders:1"),
            (f"{ARN}:orders:1", {"Qualifier": "1"}, f"{ARN}:orders:1"),
            ("orders:live", {}, f"{ARN}:orders:live"),
            ("000000000000:function:orders:live", {}, f"{ARN}:orders:live"),
        ],
    )
    async def test_its_arn_ends_as_it_was_asked_for(
        self, site: ApiSite, path: str, query: dict[str, str], arn: str
    ) -> None:
        await site.create(Publish=True)
        await site.call("CreateAlias", "orders", Name="live", FunctionVersion="1")
        for operation in ("GetFunction", "GetFunctionConfiguration"):
            document = await site.call(operation, path, query=query)
            assert document.get("Configuration", document)["FunctionArn"] == arn

    @pytest.mark.parametrize("operation", ["GetFunction", "GetFunctionConfiguration"])
    @pytest.mark.parametrize("path", ["nobody", "orders:7", "orders:none"])
    async def test_what_is_not_there_is_not_found(self, site: ApiSite, operation: str, path: str) -> None:
        await site.create()
        error = await site.refusal(operation, path)
        assert (error.status, str(error)) == (404, f"Function not found: {ARN}:{path}")

    async def test_lists_are_of_latest_versions_without_states(self, site: ApiSite) -> None:
        await site.create("b", Publish=True)
        await site.create("a")
        document = await site.call("ListFunctions")
        assert [each["FunctionArn"] for each in document["Functions"]] == [f"{ARN}:a", f"{ARN}:b"]
        assert not {"State", "LastUpdateStatus", "RuntimeVersionConfig"} & set(document["Functions"][0])
        assert unknown_members("ListFunctions", document) == []

    async def test_lists_of_all_versions_name_each(self, site: ApiSite) -> None:
        await site.create("b", Publish=True)
        await site.create("a")
        document = await site.call("ListFunctions", query={"FunctionVersion": "ALL"})
        assert [each["FunctionArn"] for each in document["Functions"]] == [
            f"{ARN}:a:$LATEST",
            f"{ARN}:b:$LATEST",
            f"{ARN}:b:1",
        ]
        error = await site.refusal("ListFunctions", query={"FunctionVersion": "invalid"})
        assert str(error) == (
            "1 validation error detected: Value 'invalid' at 'functionVersion' failed to satisfy constraint: "
            "Member must satisfy enum value set: [ALL]"
        )

    async def test_pages_follow_each_other_while_functions_come_and_go(self, site: ApiSite) -> None:
        for name in ("a", "c", "e", "g"):
            await site.create(name)
        page = await site.call("ListFunctions", query={"MaxItems": 2})
        assert [each["FunctionName"] for each in page["Functions"]] == ["a", "c"]
        await site.call("DeleteFunction", "c")
        await site.create("d")
        page = await site.call("ListFunctions", query={"MaxItems": 2, "Marker": page["NextMarker"]})
        assert [each["FunctionName"] for each in page["Functions"]] == ["d", "e"]
        page = await site.call("ListFunctions", query={"MaxItems": 2, "Marker": page["NextMarker"]})
        assert [each["FunctionName"] for each in page["Functions"]] == ["g"]
        assert "NextMarker" not in page
        assert "NextMarker" not in await site.call("ListFunctions", query={"MaxItems": 4}), "all are told"

    async def test_a_page_has_50_at_most_and_a_strange_marker_gives_none(self, site: ApiSite) -> None:
        for number in range(51):
            await site.create(f"f{number}")
        page = await site.call("ListFunctions", query={"MaxItems": 10000})
        assert len(page["Functions"]) == 50
        assert page["NextMarker"]
        assert await site.call("ListFunctions", query={"Marker": "%%%"}) == {"Functions": []}

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("0", "ValidationException"),
            ("10001", "ValidationException"),
            ("x", "SerializationException"),
            ("", "SerializationException"),
        ],
    )
    async def test_max_items_is_a_number_up_to_10000(self, site: ApiSite, text: str, code: str) -> None:
        assert (await site.refusal("ListFunctions", query={"MaxItems": text})).code == code

    @pytest.mark.parametrize(
        ("at_s", "expected"),
        [
            (0.0, "1970-01-01T00:00:00.000+0000"),
            (1.9996, "1970-01-01T00:00:02.000+0000"),
            (BEGIN_S + 0.25, "2026-11-30T17:00:00.250+0000"),
        ],
    )
    def test_times_have_milliseconds(self, at_s: float, expected: str) -> None:
        assert stamp(at_s) == expected


class TestDelete:
    async def test_a_function_goes_with_its_versions_and_may_be_made_again(self, site: ApiSite) -> None:
        await site.create(Publish=True)
        assert (await site.answer("DeleteFunction", ["orders"])).status == 204
        error = await site.refusal("GetFunction", "orders")
        assert str(error) == f"Function not found: {ARN}:orders"
        assert (await site.create(Publish=True))["Version"] == "1"

    async def test_one_that_is_not_there_is_not_found(self, site: ApiSite) -> None:
        for query in ({}, {"Qualifier": "1"}):
            error = await site.refusal("DeleteFunction", "nobody", query=query)
            assert (error.status, str(error)) == (404, f"Function not found: {ARN}:nobody")

    async def test_a_version_goes_alone_and_its_number_is_not_given_again(self, site: ApiSite) -> None:
        await site.create(Publish=True)
        for _ in range(2):
            assert (await site.answer("DeleteFunction", ["orders"], {"Qualifier": "1"})).status == 204
        assert (await site.refusal("GetFunction", "orders:1")).status == 404
        assert (await site.call("PublishVersion", "orders"))["Version"] == "2"

    async def test_a_version_that_an_alias_is_for_stays(self, site: ApiSite) -> None:
        await site.create(Publish=True)
        await site.call("CreateAlias", "orders", Name="live", FunctionVersion="1")
        error = await site.refusal("DeleteFunction", "orders:1")
        assert (error.code, error.status) == ("ResourceConflictException", 409)
        assert str(error) == "Unable to delete version because the following aliases reference it: [live]"

    @pytest.mark.parametrize(
        ("qualifier", "text"),
        [
            (LATEST, "$LATEST version cannot be deleted without deleting the function."),
            ("live", "Deletion of aliases is not currently supported."),
        ],
    )
    async def test_neither_latest_nor_an_alias_is_deleted(self, site: ApiSite, qualifier: str, text: str) -> None:
        await site.create()
        error = await site.refusal("DeleteFunction", "orders", query={"Qualifier": qualifier})
        assert (error.code, str(error)) == (INVALID, text)

    async def test_two_at_once_delete_it_once(self, site: ApiSite) -> None:
        await site.create()
        answers = await asyncio.gather(
            *(site.answer("DeleteFunction", ["orders"]) for _ in range(3)), return_exceptions=True
        )
        assert sorted(each.status for each in answers) == [204, 404, 404]


class TestOfTheFile:
    async def test_functions_of_the_file_are_shown_with_their_secrets_masked(self, site: ApiSite) -> None:
        site.catalogue.show_file({"ours": of_file()}, {})
        document = await site.call("GetFunctionConfiguration", "ours")
        assert document["Environment"] == {"Variables": {"KEY": "****"}}
        assert [each["FunctionName"] for each in (await site.call("ListFunctions"))["Functions"]] == ["ours"]

    @pytest.mark.parametrize(
        ("operation", "path", "members"),
        [
            ("DeleteFunction", ["ours"], {}),
            ("UpdateFunctionConfiguration", ["ours"], {"Timeout": 5}),
            ("UpdateFunctionCode", ["ours"], {"ZipFile": zipped()}),
            ("PublishVersion", ["ours"], {}),
            ("CreateAlias", ["ours"], {"Name": "live", "FunctionVersion": LATEST}),
            ("UpdateAlias", ["ours", "live"], {}),
            ("DeleteAlias", ["ours", "live"], {}),
            ("PutFunctionConcurrency", ["ours"], {"ReservedConcurrentExecutions": 1}),
            ("DeleteFunctionConcurrency", ["ours"], {}),
            (
                "AddPermission",
                ["ours"],
                {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"},
            ),
            ("RemovePermission", ["ours", "s"], {}),
        ],
    )
    async def test_what_would_change_one_is_refused(
        self, site: ApiSite, operation: str, path: list[str], members: dict[str, Any]
    ) -> None:
        site.catalogue.show_file({"ours": of_file()}, {})
        error = await site.refusal(operation, *path, **members)
        assert (error.code, error.status, str(error)) == (
            "ResourceConflictException",
            409,
            "Function ours is defined in headrace.yaml: change it there",
        )

    async def test_a_name_of_the_file_is_taken(self, site: ApiSite) -> None:
        site.catalogue.show_file({"ours": of_file()}, {})
        error = await site.refusal("CreateFunction", **new_function("ours"))
        assert (error.status, str(error)) == (409, "Function ours is defined in headrace.yaml: change it there")
