"""What a handler's AWS libraries go by is what the daemon goes by."""

from __future__ import annotations

import pytest

from handlers.aws_environment import CREDENTIALS, aws_variables, usual_region
from tests.handlers.conftest import Shop

BOTO = """
    import boto3

    def handle(event, context):
        session = boto3.Session()
        client = session.client("sqs")
        keys = session.get_credentials().get_frozen_credentials()
        return [client.meta.endpoint_url, client.meta.region_name, keys.access_key, keys.secret_key, keys.token]
"""
ENDPOINT = "http://127.0.0.1:4566"


async def test_boto3_is_there_in_our_own_interpreter_and_goes_by_what_the_daemon_goes_by(shop: Shop) -> None:
    daemon = {"AWS_ACCESS_KEY_ID": "AKIAORDERS", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_SESSION_TOKEN": "token"}
    aws = aws_variables(daemon, (), ENDPOINT)
    outcome = await shop.run(BOTO, aws=aws, region="eu-west-1", timeout_s=30)
    assert outcome.body == [ENDPOINT, "eu-west-1", "AKIAORDERS", "s3cret", "token"]


async def test_a_profile_is_read_by_the_handler_itself_also_from_a_relative_path(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.folder)
    shop.folder.joinpath("keys").write_text(
        "[shop]\naws_access_key_id = AKIASHOP\naws_secret_access_key = s3cret\naws_session_token = t\n"
    )
    aws = aws_variables({"AWS_PROFILE": "shop", "AWS_SHARED_CREDENTIALS_FILE": "keys"}, (), ENDPOINT)
    outcome = await shop.run(BOTO, aws=aws, timeout_s=30)
    assert outcome.body == [ENDPOINT, "us-east-1", "AKIASHOP", "s3cret", "t"]


def test_only_what_aws_libraries_read_is_given() -> None:
    daemon = {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "DATABASE_PASSWORD": "p",
        "HTTPS_PROXY": "http://u:p@proxy",
        "AWS_CA_BUNDLE": "/ca",
    }
    assert aws_variables(daemon, (), None) == {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_CA_BUNDLE": "/ca"}


@pytest.mark.parametrize("name", sorted(CREDENTIALS))
def test_a_function_that_says_who_it_is_gets_no_credentials_of_the_daemon(name: str) -> None:
    daemon = {**dict.fromkeys(CREDENTIALS, "/daemon"), "AWS_ENDPOINT_URL": ENDPOINT}
    assert aws_variables(daemon, {name: "own"}, None) == {"AWS_ENDPOINT_URL": ENDPOINT}


def test_the_endpoint_of_the_file_goes_before_those_of_the_environment() -> None:
    daemon = {"AWS_ENDPOINT_URL": "http://elsewhere", "AWS_ENDPOINT_URL_SQS": "http://queues"}
    assert aws_variables(daemon, (), None) == daemon
    assert aws_variables(daemon, (), ENDPOINT) == {"AWS_ENDPOINT_URL": ENDPOINT}


@pytest.mark.parametrize(
    ("environment", "region"),
    [
        ({}, "eu-north-1"),
        ({"AWS_PROFILE": "shop"}, "eu-west-3"),
        ({"AWS_PROFILE": "nobody"}, None),
        ({"AWS_DEFAULT_REGION": "sa-east-1", "AWS_PROFILE": "shop"}, "sa-east-1"),
        ({"AWS_CONFIG_FILE": "/nowhere"}, None),
    ],
)
def test_the_region_is_that_of_the_environment_or_of_the_profile(tmp_path, environment, region) -> None:
    file = tmp_path / "config"
    file.write_text("[default]\nregion = eu-north-1\n[profile shop]\nregion = eu-west-3\noutput = 100%\n")
    assert usual_region({"AWS_CONFIG_FILE": str(file), **environment}) == region


def test_a_config_file_that_cannot_be_read_says_no_region(tmp_path) -> None:
    file = tmp_path / "config"
    file.write_text("region = eu-north-1\n")
    assert usual_region({"AWS_CONFIG_FILE": str(file)}) is None
