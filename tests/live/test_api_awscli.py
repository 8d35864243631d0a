"""docs/boto3.md in a shell, followed with the AWS command line from PyPI."""

from __future__ import annotations

import uuid
from pathlib import Path

import aiohttp
import pytest

from tests.live.daemon import Daemon
from tests.live.page_script import blocks
from tests.services.install import virtual_environment
from tests.services.process import DOWNLOADS, ServiceError

REQUIREMENTS = Path(__file__).parents[1] / "services" / "awscli-requirements.txt"
PATIENCE_S = 240.0


@pytest.fixture(scope="session")
def aws() -> Path:
    """The folder of the command, in an environment of its own: it needs another botocore than we do."""
    wanted = ("3.11", "3.12", "3.13")
    try:
        python = virtual_environment(DOWNLOADS / "awscli", REQUIREMENTS, wanted, "downloading the AWS command line")
    except ServiceError as error:
        pytest.skip(f"no AWS command line: {error}")
    return Path(python).parent


async def test_the_page(tmp_path: Path, aws: Path, aws_endpoint: str) -> None:
    name = f"headrace-{uuid.uuid4().hex[:8]}-greetings"
    async with Daemon(tmp_path) as daemon:
        places = {"http://127.0.0.1:4566": aws_endpoint, "127.0.0.1:9301": f"127.0.0.1:{daemon.port}"}
        daemon.text = blocks("boto3.md", "yaml", {**places, "./.headrace": "./state"})
        script = blocks("boto3.md", "sh", {**places, "greetings": name})
        await daemon.start()
        status, out, err = await daemon.run("bash", "-euxc", f'PATH="{aws}:$PATH"\n{script}', within_s=PATIENCE_S)
        assert status == 0, f"{out}\n{err}"
        said = [line.strip() for line in out.splitlines()]
        assert '{"hello": "you"}' in out
        for expected in ('"StatusCode": 200,', "5", "Enabled", '"StatusCode": 202', "Deleting"):
            assert expected in said, out
        url = f"http://127.0.0.1:{daemon.port}/2015-03-31/functions"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            assert (await answer.json())["Functions"] == []
        assert await daemon.terminate() == 0
