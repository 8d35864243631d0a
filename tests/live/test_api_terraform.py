"""docs/terraform.md, followed with Terraform and the AWS provider where the machine has both."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import uuid
import zipfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka.admin import NewTopic

from tests.live.daemon import Daemon, cluster
from tests.live.page_script import blocks
from tests.live.queue_rig import Queues
from tests.live.stream_rig import Streams

PAGE = "terraform.md"
#: Where the provider is, which Terraform would download otherwise.
PROVIDER = "HEADRACE_TEST_TERRAFORM_PROVIDER"
PATIENCE_S = 200.0
#: Names that others in the same LocalStack and Kafka may have.
NAMES = ("orders-failed", "invoices", "payments.fifo", "clicks", "stock", "shipments")


@pytest.fixture
def terraform(tmp_path: Path) -> dict[str, str]:
    """The environment in which the command finds the provider."""
    provider = os.environ.get(PROVIDER)
    if shutil.which("terraform") is None:
        pytest.skip("no terraform on PATH")
    if not provider:
        pytest.skip(f"{PROVIDER} names no binary of the AWS provider")
    folder = tmp_path / "provider"
    folder.mkdir()
    (folder / "terraform-provider-aws").symlink_to(provider)
    settings = tmp_path / "terraform.rc"
    settings.write_text(
        f'provider_installation {{\n dev_overrides {{ "hashicorp/aws" = "{folder}" }}\n direct {{}}\n}}\n'
    )
    return {**os.environ, "TF_CLI_CONFIG_FILE": str(settings), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}


class Project:
    """A folder with the files of the page, and a daemon."""

    def __init__(self, folder: Path, environment: dict[str, str], aws: str, bootstrap: str) -> None:
        self.daemon = Daemon(folder / "daemon")
        self.daemon.folder.mkdir()
        self.url = f"http://127.0.0.1:{self.daemon.port}"
        places = {"http://127.0.0.1:4566": aws, "127.0.0.1:9301": f"127.0.0.1:{self.daemon.port}"}
        self.daemon.text = blocks(PAGE, "yaml", {**places, "./.headrace": "./state"})
        self.folder = folder / "project"
        self.folder.mkdir()
        self._environment = environment
        self.names = {name: f"headrace-{uuid.uuid4().hex[:8]}-{name}" for name in NAMES}
        configuration = blocks(PAGE, "hcl", {**places, "127.0.0.1:9092": bootstrap})
        for name, ours in self.names.items():  # but not where it is that of the resource, before its block
            configuration, count = re.subn(rf'"{name}"(?! \{{)', f'"{ours}"', configuration)
            assert count
        (self.folder / "main.tf").write_text(configuration)
        self.write_code(blocks(PAGE, "python", {}))

    def write_code(self, text: str) -> None:
        with zipfile.ZipFile(self.folder / "orders.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("orders.py", (2026, 1, 1, 0, 0, 0)), text)

    async def terraform(self, *words: str) -> tuple[int, str]:
        command = await asyncio.create_subprocess_exec(
            *("terraform", *words, "-no-color", "-input=false"),
            cwd=self.folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await command.communicate()
        return command.returncode or 0, out.decode()

    async def apply(self, *words: str) -> str:
        """Apply, and see that nothing is left to be done then."""
        status, out = await self.terraform("apply", "-auto-approve", *words)
        assert status == 0, out
        status, plan = await self.terraform("plan", "-detailed-exitcode", *words)
        assert status == 0, plan
        return out

    async def get(self, path: str) -> Any:
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/2015-03-31/{path}") as answer:
            return await answer.json()

    async def mappings(self) -> list[dict[str, Any]]:
        return list((await self.get("event-source-mappings/"))["EventSourceMappings"])

    async def handled(self, text: str) -> None:
        """Wait until the function has printed this."""
        log = self.daemon.state / "logs/orders.log"
        await self.daemon.until(lambda: log.exists() and text in log.read_text(), f"the function prints {text}")


async def test_the_page(
    tmp_path: Path, terraform: dict[str, str], queues: Queues, streams: Streams, kafka_bootstrap: str
) -> None:
    project = Project(tmp_path, terraform, streams.endpoint_url, kafka_bootstrap)
    async with project.daemon as daemon, cluster(kafka_bootstrap) as kafka:
        await kafka.create_topics([NewTopic(project.names["shipments"], 1, 1)])
        await daemon.start()
        assert "Apply complete! Resources: 14 added, 0 changed, 0 destroyed." in await project.apply()
        mappings = await project.mappings()
        assert [(each["State"], each["BatchSize"]) for each in mappings] == [("Enabled", 10)] * 5

        project.write_code(blocks(PAGE, "python", {}).replace("print(", 'print("second",'))
        changed = await project.apply("-var", "batch_size=5")
        assert "0 added, 7 changed, 0 destroyed." in changed
        assert [(each["State"], each["BatchSize"]) for each in await project.mappings()] == [("Enabled", 5)] * 5
        function = (await project.get("functions/orders"))["Configuration"]
        assert function["Environment"]["Variables"] == {"TABLE": "orders", "BATCH": "5"}
        assert (await project.get("functions/orders/aliases/live"))["FunctionVersion"] == "2"
        await queues.client.send_message(QueueUrl=await _url(queues, project.names["invoices"]), MessageBody="invoice")
        await project.handled("second orders 2")

        # The function with all that hangs on it; the provider would take minutes to see queues off.
        status, out = await project.terraform("destroy", "-auto-approve", "-target=aws_lambda_function.orders")
        assert status == 0, out
        assert "Destroy complete! Resources: 9 destroyed." in out
        assert (await project.mappings(), (await project.get("functions/"))["Functions"]) == ([], [])
        for name in ("orders-failed", "invoices", "payments.fifo"):
            await queues.client.delete_queue(QueueUrl=await _url(queues, project.names[name]))
        await streams.kinesis.delete_stream(StreamName=project.names["clicks"])
        await streams.dynamodb.delete_table(TableName=project.names["stock"])
        assert await daemon.terminate() == 0


async def _url(queues: Queues, name: str) -> str:
    return (await queues.client.get_queue_url(QueueName=name))["QueueUrl"]
