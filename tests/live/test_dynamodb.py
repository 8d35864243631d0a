"""A daemon over tables of DynamoDB Local: events, poison, order per item, crashes, streams that follow each other."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.table_rig import STREAM, TableDaemon, Tables, open_tables


@pytest.fixture
async def tables(dynamodb_endpoint: str) -> AsyncIterator[Tables]:
    async with open_tables(dynamodb_endpoint) as made:
        yield made


async def test_each_change_of_an_item_comes_as_the_event_that_aws_makes(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    raw = {"B": b"\x00\x01"}
    await tables.put(table, "é", 1, raw=raw, tags={"SS": ["a", "b"]}, deep={"L": [{"M": {"n": {"NULL": True}}}]})
    await tables.put(table, "é", 1, raw=raw)
    await tables.remove(table, "é", 1)
    async with TableDaemon(tmp_path, tables, table) as daemon:
        await daemon.start()
        await daemon.until(lambda: len(list(daemon.records())) == 3, "3 records")
    inserted, modified, removed = daemon.records()
    key = {"pk": {"S": "é"}, "sk": {"N": "1"}}
    full = {**key, "raw": {"B": "AAE="}, "tags": {"SS": ["a", "b"]}, "deep": {"L": [{"M": {"n": {"NULL": True}}}]}}
    assert [each["eventName"] for each in daemon.records()] == ["INSERT", "MODIFY", "REMOVE"]
    assert inserted["dynamodb"]["NewImage"] == full
    assert (modified["dynamodb"]["OldImage"], modified["dynamodb"]["NewImage"]) == (full, {**key, "raw": full["raw"]})
    assert "NewImage" not in removed["dynamodb"]
    assert list(inserted) == [
        *("eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb", "eventSourceARN")
    ]
    assert list(inserted["dynamodb"]) == [
        *("ApproximateCreationDateTime", "Keys", "NewImage", "SequenceNumber", "SizeBytes", "StreamViewType")
    ]
    assert f":table/{table}/stream/" in inserted["eventSourceARN"]


async def test_a_poison_change_is_isolated_stored_told_and_replayed(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    told = tmp_path / "told.jsonl"
    async with TableDaemon(
        tmp_path,
        tables,
        table,
        batch_size=8,
        maximum_batching_window_in_seconds=1,
        maximum_retry_attempts=1,
        bisect_batch_on_function_error=True,
        destination_config={"on_failure": {"file": {"path": str(told)}}},
    ) as daemon:
        for number in range(8):
            await tables.put(table, "order", number, **({"poison": {"BOOL": True}} if number == 5 else {}))
        await daemon.start()
        assert sorted(await daemon.until_items(7)) == [("order", number) for number in range(8) if number != 5]
        await daemon.line("failure.delivered")
        # It is told before it is stored.
        [failure] = await daemon.until_failures(lambda found: found[0]["status"] == "delivered", "it is delivered")
        assert (failure["batch_size"], failure["attempts"]) == (1, 2)
        shown = (await daemon.command("failures", "show", failure["id"], "--json")).json()
        [record] = shown["event"]["Records"]
        info = json.loads(told.read_text())["DDBStreamBatchInfo"]
        assert list(info) == [
            *("shardId", "startSequenceNumber", "endSequenceNumber", "approximateArrivalOfFirstRecord"),
            *("approximateArrivalOfLastRecord", "batchSize", "streamArn"),
        ]
        assert info["startSequenceNumber"] == info["endSequenceNumber"] == record["dynamodb"]["SequenceNumber"]
        assert info["streamArn"] == record["eventSourceARN"]
        assert len(info["approximateArrivalOfFirstRecord"]) == len("2026-01-01T00:00:01Z")

        (daemon.notes / "mended").touch()
        done = await daemon.command("failures", "replay", failure["id"], "--yes", "--json")
        assert done.status == 0, done.err
        assert daemon.items()[-1] == ("order", 5)


async def test_the_changes_of_an_item_come_in_order_whatever_runs_beside_them(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    async with TableDaemon(tmp_path, tables, table, batch_size=5, parallelization_factor=4) as daemon:
        daemon.document["functions"]["changes"]["reserved_concurrency"] = 4
        await daemon.start()
        for change in range(20):
            for item in range(8):
                await tables.put(table, f"item-{item}", 0, change={"N": str(change)}, sleep={"N": f"0.0{item % 3}"})
        await daemon.until(lambda: len(list(daemon.records())) >= 160, "160 changes")
        changes = defaultdict(list)
        for record in daemon.records():
            image = record["dynamodb"]["NewImage"]
            changes[image["pk"]["S"]].append(int(image["change"]["N"]))
        assert changes == {f"item-{item}": list(range(20)) for item in range(8)}


async def test_what_was_done_is_not_done_again_after_a_restart(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    async with TableDaemon(tmp_path, tables, table) as daemon:
        await tables.put(table, "a")
        await daemon.start()
        await daemon.until_items(1)
        assert await daemon.terminate() == 0
        await tables.put(table, "b")
        await daemon.start()
        assert await daemon.until_items(2) == [("a", 0), ("b", 0)]


async def test_a_crash_loses_nothing_and_changes_no_order(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    async with TableDaemon(tmp_path, tables, table, batch_size=7, parallelization_factor=3) as daemon:
        await daemon.start()
        for change in range(120):
            await tables.put(table, f"item-{change % 10}", change={"N": str(change)}, sleep={"N": "0.01"})
            if change % 40 == 20:
                await daemon.kill()
                await daemon.start(ready=False)

        def first_deliveries() -> list[int]:
            """Give all changes once, as they came first."""
            images = (record["dynamodb"]["NewImage"] for record in daemon.records())
            return list(dict.fromkeys(int(image["change"]["N"]) for image in images))

        await daemon.until(lambda: len(first_deliveries()) == 120, "120 changes")
        for item in range(10):
            mine = [change for change in first_deliveries() if change % 10 == item]
            assert mine == sorted(mine)


async def test_a_stream_that_is_disabled_enabled_and_made_anew_loses_nothing(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    async with TableDaemon(tmp_path, tables, table, batch_size=10) as daemon:
        await daemon.start()
        await tables.put(table, "a", 1)
        await daemon.until_items(1)
        assert await daemon.terminate() == 0
        await tables.put(table, "a", 2)
        await tables.disable(table)
        await tables.enable(table, "KEYS_ONLY")
        await tables.put(table, "a", 3)
        await tables.delete(table)
        await tables.make(table)
        await tables.put(table, "a", 4)
        await daemon.start()
        assert await daemon.until_items(4) == [("a", 1), ("a", 2), ("a", 3), ("a", 4)]
        views = [record["dynamodb"]["StreamViewType"] for record in daemon.records()]
        assert views == ["NEW_AND_OLD_IMAGES"] * 2 + ["KEYS_ONLY", "NEW_AND_OLD_IMAGES"]


async def test_a_table_made_again_with_other_keys_goes_on_in_order_of_these(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    async with TableDaemon(tmp_path, tables, table, parallelization_factor=3) as daemon:
        await tables.put(table, "a", 1)
        await daemon.start()
        await daemon.until_items(1)
        assert await daemon.terminate() == 0
        await tables.delete(table)
        await tables.client.create_table(
            TableName=table,
            KeySchema=[{"AttributeName": "number", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "number", "AttributeType": "N"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification=STREAM,
        )
        for change in range(30):
            item = {"number": {"N": str(change % 3)}, "change": {"N": str(change)}}
            await tables.client.put_item(TableName=table, Item=item)
        await daemon.start()
        await daemon.until(lambda: len(list(daemon.records())) == 31, "31 records")
        changes = defaultdict(list)
        for record in list(daemon.records())[1:]:
            changes[record["dynamodb"]["Keys"]["number"]["N"]].append(
                int(record["dynamodb"]["NewImage"]["change"]["N"])
            )
    assert changes == {f"{number}": list(range(number, 30, 3)) for number in range(3)}


async def test_latest_begins_with_what_is_written_after_the_first_start(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    async with TableDaemon(tmp_path, tables, table, starting_position="LATEST") as daemon:
        await daemon.start()
        await daemon.terminate()
        await tables.put(table, "while nobody read")
        await daemon.start()
        await tables.put(table, "while it was read")
        assert await daemon.until_items(2) == [("while nobody read", 0), ("while it was read", 0)]


async def test_a_table_without_a_stream_is_told_and_read_once_it_has_one(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make(stream=None)
    async with TableDaemon(tmp_path, tables, table) as daemon:
        daemon.write()
        checked = await daemon.command("check", "--connect")
        assert checked.status == 1
        assert f"aws dynamodb update-table --table-name {table}" in checked.out
        await daemon.start()
        reason = (await daemon.status("changes"))["reason"]
        assert "the table has no stream; enable one" in json.dumps(reason)
        await tables.enable(table, "NEW_IMAGE")
        await tables.put(table, "a")
        assert await daemon.until_items(1) == [("a", 0)]
        checked = await daemon.command("check", "--connect")
        assert (checked.status, checked.err) == (0, "")
        assert f"table {table}: NEW_IMAGE; open shards: 1" in checked.out


async def test_changes_that_a_filter_drops_move_the_checkpoint(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    pattern = {"eventName": ["INSERT"], "dynamodb": {"NewImage": {"kind": {"S": ["order"]}}}}
    async with TableDaemon(tmp_path, tables, table, filter_criteria={"filters": [{"pattern": pattern}]}) as daemon:
        await tables.put(table, "a", kind={"S": "order"})
        await tables.put(table, "b", kind={"S": "cart"})
        await daemon.start()
        await daemon.until_items(1)
        assert await daemon.terminate() == 0
        exported = await daemon.command("checkpoints", "export")
        assert exported.status == 0, exported.err
        [mapping] = exported.json()["mappings"]
        [order] = daemon.records()
        assert int(mapping["shards"][0]["position"]) > int(order["dynamodb"]["SequenceNumber"])
        assert f"table/{table}" in mapping["stream"]


async def test_a_failure_record_of_aws_is_read_again_from_the_stream(tables: Tables, tmp_path: Path) -> None:
    table = await tables.make()
    told = tmp_path / "told.jsonl"
    async with TableDaemon(
        tmp_path,
        tables,
        table,
        maximum_retry_attempts=0,
        destination_config={"on_failure": {"file": {"path": str(told)}}},
    ) as daemon:
        await tables.put(table, "order", 1, poison={"BOOL": True})
        await daemon.start()
        await daemon.line("failure.delivered")
        # As a queue is told: without the records.
        record = json.loads(told.read_text())
        del record["payload"]
        (tmp_path / "record.json").write_text(json.dumps(record))
        (daemon.notes / "mended").touch()
        done = await daemon.command("failures", "replay", "--from", str(tmp_path / "record.json"), "--yes")
        assert done.status == 0, done.err
        assert await daemon.until_items(1) == [("order", 1)]
