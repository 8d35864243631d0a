"""A daemon over a table whose shards roll and split and whose endpoint errs, which DynamoDB Local does not show."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.fakes.dynamodb_server import FakeDynamoDb, serving
from tests.fakes.http_server import refuse
from tests.live.table_rig import TableDaemon, Tables

#: Items of the table.
ITEMS = 12


class Writer:
    """Changes items, each in the open shard that has its place; shards split and roll under it."""

    def __init__(self, service: FakeDynamoDb) -> None:
        self._service = service
        service.create_table("orders")
        self._shards = list(service.enable("orders", shards=2).shards)
        self.written = 0

    def write(self, rounds: int) -> None:
        """Change each item so many times."""
        for _ in range(rounds):
            for item in range(ITEMS):
                change = {"NewImage": {"pk": {"S": f"{item}"}, "change": {"N": f"{self.written}"}}}
                shard = self._shards[item % len(self._shards)]
                self._service.append(shard, {"pk": {"S": f"{item}"}, "sk": {"N": "0"}}, dynamodb=change)
                self.written += 1

    def split(self) -> None:
        """Put two shards in the place of each: the items of a shard are in these two."""
        children = [self._service.roll(shard, 2) for shard in self._shards]
        self._shards = [one for one, _ in children] + [other for _, other in children]

    def roll(self) -> None:
        self._shards = [self._service.roll(shard)[0] for shard in self._shards]


@pytest.mark.parametrize("factor", [1, 3])
async def test_changes_come_in_order_for_each_item_through_splits_rolls_faults_and_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: int
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    service = FakeDynamoDb()
    async with serving(service) as server:
        tables = Tables(server.url, None)
        async with TableDaemon(tmp_path, tables, "orders", batch_size=5, parallelization_factor=factor) as daemon:
            writer = Writer(service)
            writer.write(5)
            writer.split()
            writer.write(5)
            await daemon.start()
            writer.roll()
            writer.write(5)
            service.faults["GetRecords"].extend([refuse(400, "ProvisionedThroughputExceededException")] * 5)
            service.faults["DescribeStream"].append(refuse(500, "InternalServerError"))
            await daemon.until(lambda: len(list(daemon.records())) >= writer.written, "all before the crash")
            writer.roll()
            writer.write(5)
            await daemon.kill()
            service.expire_iterators()
            writer.split()
            writer.write(5)
            await daemon.start()

            def changes() -> dict[str, list[int]]:
                """Give the changes of each item once, as they came first."""
                seen: dict[str, dict[int, None]] = defaultdict(dict)
                for record in daemon.records():
                    image = record["dynamodb"]["NewImage"]
                    seen[image["pk"]["S"]][int(image["change"]["N"])] = None
                return {item: list(numbers) for item, numbers in seen.items()}

            await daemon.until(lambda: sum(map(len, changes().values())) == writer.written, "all changes")
            expected = {f"{item}": list(range(item, writer.written, ITEMS)) for item in range(ITEMS)}
            assert changes() == expected
            assert await daemon.terminate() == 0
