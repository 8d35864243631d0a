"""What goes wrong at the endpoint of a stream, or between its clock and ours: it is told, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import os

import pytest

from router.checkpoints import SHARD
from router.core.model import Reason, Returned
from router.ports import PutState
from tests.fakes.http_server import Answer, Request, refuse, say, send, stall
from tests.sim.endpoints import SITES, DynamoDbSite, KinesisSite
from tests.sim.virtual_time import in_virtual_time

HEAD = b"HTTP/1.1 200 OK\r\n"
HALF = send(HEAD + b"content-length: 1000\r\n\r\n" + b'{"Records":[{"Sequ')
HOUR_S = 3600.0
KINDS = pytest.mark.parametrize("kind", SITES)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")


# --- the endpoint


TROUBLES = {
    "500": (refuse(500, "InternalFailure"), "InternalFailure"),
    "503 without a word": (say(b"", 503), "HTTP status 503"),
    "400": (refuse(400, "ValidationException", "Limit is wrong"), "Limit is wrong"),
    "a page of a proxy": (say(b"<html>busy</html>"), "what answers is not the service"),
    "other JSON": (say({"Records": "none"}), "what answers is not the service"),
    "no HTTP": (send(b"\x00\x15\x03\x01garbage\r\n\r\n"), "does not speak HTTP"),
    "half a body": (HALF, "it closed the connection"),
    "no answer": (stall(), "did not answer within 10 s"),
}


@KINDS
@pytest.mark.parametrize(("trouble", "reason"), TROUBLES.values(), ids=TROUBLES)
@in_virtual_time
async def test_trouble_is_told_and_passes_without_a_record_lost_or_repeated(
    kind: str, trouble: Answer, reason: str
) -> None:
    site = SITES[kind]()
    async with site.served(), site.running():
        site.put("a", "b")
        await site.all_seen()
        site.break_down(trouble)
        failed = await site.note("source.failed")
        assert reason in failed["error"]
        site.put("c", "d")
        await asyncio.sleep(300)
        assert site.seen == ["a", "b"]
        code, sentence = site.why
        assert code == "SourceUnavailable"
        assert reason in sentence
        assert site.life.health().state == "retrying"
        site.mend()
        site.put("e")
        await site.all_seen()
        assert site.life.health().reason is None
    assert site.seen == ["a", "b", "c", "d", "e"]


@KINDS
@pytest.mark.parametrize(("trouble", "reason"), TROUBLES.values(), ids=TROUBLES)
@in_virtual_time
async def test_trouble_at_the_start_is_told_and_passes(kind: str, trouble: Answer, reason: str) -> None:
    site = SITES[kind]()
    async with site.served():
        site.break_down(trouble, "DescribeStreamSummary", "DescribeTable")
        async with site.running():
            waiting = await site.note("mapping.waiting")
            assert waiting["reason"] == "SourceUnavailable"
            assert reason in waiting["error"]
            await asyncio.sleep(300)
            assert reason in site.why[1]
            site.mend()
            site.put("a")
            await site.all_seen()
    assert site.seen == ["a"]


@KINDS
@in_virtual_time
async def test_too_many_reads_for_ten_minutes_are_told_and_slow_us_down(kind: str) -> None:
    site = SITES[kind]()
    async with site.served(), site.running():
        site.put("a")
        await site.all_seen()
        site.break_down(refuse(400, "ProvisionedThroughputExceededException", "Rate exceeded"))
        throttled = await site.note("source.throttled")
        assert "it is throttled" in throttled["error"]
        before = site.asked("GetRecords")
        site.put("b")
        await asyncio.sleep(600)
        assert site.asked("GetRecords") - before < 200
        code, sentence = site.why
        assert code == "SourceUnavailable"
        assert "it is throttled" in sentence
        assert not site.notes("source.failed")
        errors = site.metrics.registry.get_sample_value("headrace_polling_error_count_total", {"mapping": "m"})
        assert errors == len(site.notes("source.throttled"))
        site.mend()
        site.put("c")
        began_s = site.service_s()
        await site.all_seen()
        assert site.service_s() - began_s < 60
    assert site.seen == ["a", "b", "c"]


@KINDS
@in_virtual_time
async def test_credentials_that_are_wrong_until_they_are_right(kind: str) -> None:
    site = SITES[kind]()

    def only_the_right_ones(request: Request) -> Answer | None:
        if "Credential=AKIARIGHT/" in request.headers["authorization"]:
            return None
        return refuse(400, "UnrecognizedClientException", "The security token included in the request is invalid.")

    async with site.served():
        for operation in ("DescribeStreamSummary", "DescribeTable", "GetRecords"):
            site.trouble[operation] = only_the_right_ones
        async with site.running():
            waiting = await site.note("mapping.waiting")
            assert "the credentials are not accepted" in waiting["error"]
            site.put("a")
            os.environ["AWS_ACCESS_KEY_ID"] = "AKIARIGHT"
            await site.all_seen()
            site.break_down(refuse(400, "ExpiredTokenException", "The security token is expired"))
            failed = await site.note("source.failed")
            assert "ExpiredTokenException" in failed["error"]
            site.put("b")
            await asyncio.sleep(60)
            site.mend()
            await site.all_seen()
    assert site.seen == ["a", "b"]


LISTINGS = ("DescribeStreamSummary", "ListShards", "DescribeTable", "ListStreams", "DescribeStream")


@KINDS
@pytest.mark.parametrize("code", ["LimitExceededException", "InternalFailure"])
@in_virtual_time
async def test_a_listing_that_fails_holds_up_only_the_shards_that_it_would_name(kind: str, code: str) -> None:
    site = SITES[kind]()
    async with site.served(), site.running():
        site.put("a")
        await site.all_seen()
        site.break_down(refuse(400, code), *LISTINGS)
        site.put("b")
        await site.all_seen()
        site.reshard()
        site.put("c")
        failed = await site.note("source.failed")
        assert code in failed["error"]
        await asyncio.sleep(600)
        assert code in site.why[1]
        assert site.seen == ["a", "b"]
        site.mend()
        await site.all_seen()
        assert site.life.health().reason is None
    assert site.seen == ["a", "b", "c"]


# --- the stream


@KINDS
@in_virtual_time
async def test_a_stream_made_again_while_nobody_reads_is_read_whole(kind: str) -> None:
    site = SITES[kind]()
    async with site.served():
        async with site.running():
            site.put("a", "b")
            await site.all_seen()
        site.remake()
        site.put("c", "d")
        async with site.running():
            await site.all_seen()
    assert site.seen == ["a", "b", "c", "d"]
    # A table's former stream is read to its end, and no checkpoint is void.
    assert len(site.notes("stream.remade")) == (kind == "kinesis")


@KINDS
@in_virtual_time
async def test_a_stream_made_again_while_it_is_read_is_read_whole(kind: str) -> None:
    site = SITES[kind]()
    async with site.served(), site.running():
        site.put("a", "b")
        await site.all_seen()
        site.remake()
        site.put("c", "d")
        await site.all_seen()
        if kind == "kinesis":
            # Its positions were refused before the stream was looked at again: then all of it comes once more.
            await site.note("position.lost")
            await site.note("stream.remade")
            await site.until(lambda: site.seen[4:] == ["c", "d"])
    assert site.seen[:4] == ["a", "b", "c", "d"]


@in_virtual_time
async def test_a_stream_that_is_deleted_is_missed_until_it_is_there_again() -> None:
    site = KinesisSite()
    gone = refuse(400, "ResourceNotFoundException")
    async with site.served(), site.running():
        site.put("a")
        await site.all_seen()
        site.break_down(gone, "DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords")
        failed = await site.note("source.failed")
        assert "the stream does not exist there" in failed["error"]
        await asyncio.sleep(600)
        assert "the stream does not exist there" in site.why[1]
        site.remake()
        site.mend()
        site.put("b")
        await site.all_seen()
    assert site.seen == ["a", "b"]


@in_virtual_time
async def test_a_checkpoint_beyond_the_log_is_told_and_all_that_is_there_is_read() -> None:
    site = KinesisSite()
    async with site.served():
        async with site.running():
            site.put("a")
            await site.all_seen()
        [key] = [key for key in await site.store.states("m") if key.startswith(SHARD)]
        await site.store.apply([PutState("m", key, f'{{"checkpoint":"{10**30}"}}')])
        site.put("b")
        async with site.running():
            lost = await site.note("position.lost")
            assert lost["shard"] == key.removeprefix(SHARD)
            await site.all_seen()
    # Rather repeated than lost.
    assert site.seen == ["a", "a", "b"]


@KINDS
@in_virtual_time
async def test_records_that_were_trimmed_before_they_were_read_are_told(kind: str) -> None:
    site = SITES[kind]()
    async with site.served():
        async with site.running():
            site.put("a")
            await site.all_seen()
        site.put("trimmed", "b")
        site.trim()
        site.written.remove("trimmed")
        async with site.running():
            await site.note("position.lost")
            await site.all_seen()
    assert site.seen == ["a", "b"]


@KINDS
@in_virtual_time
async def test_an_iterator_that_expires_while_a_batch_takes_its_time_costs_nothing(kind: str) -> None:
    site = SITES[kind](batch_size=1, buffer_count=1)
    site.takes_s = 700.0
    async with site.served(), site.running():
        site.put("a", "b", "c")
        if isinstance(site, DynamoDbSite):  # those of Kinesis expire with time
            await asyncio.sleep(100)
            site.service.expire_iterators()
        await site.all_seen()
        assert site.asked("GetShardIterator") >= 2
    assert site.seen == ["a", "b", "c"]
    assert not site.notes("position.lost")
    assert not site.notes("source.failed")


@KINDS
@in_virtual_time
async def test_a_kill_repeats_what_was_not_committed_and_loses_nothing(kind: str) -> None:
    site = SITES[kind](batch_size=1)
    async with site.served():
        async with site.running(kill=True):
            site.put(*"abcdef")
            await site.until(lambda: len(site.seen) >= 3)
        before = len(site.seen)
        async with site.running():
            await site.all_seen()
        again = site.seen[before:]
    assert "".join(site.written).endswith("".join(again))
    assert "".join(site.seen[:before]) == "abcdef"[:before]


# --- clocks


SKEWS = pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S], ids=["ahead", "behind"])


@KINDS
@SKEWS
@in_virtual_time
async def test_latest_is_the_services_now_whatever_our_clock_says(kind: str, ahead_s: float) -> None:
    site = SITES[kind](ahead_s=ahead_s, starting_position="LATEST")
    async with site.served():
        site.put("before")
        site.written.clear()
        await asyncio.sleep(120)
        async with site.running():
            await site.note("shard.opened")
            await asyncio.sleep(5)
            site.put("a")
            await site.all_seen()
        site.put("b")
        async with site.running():
            await site.all_seen()
    assert site.seen == ["a", "b"]


@KINDS
@SKEWS
@in_virtual_time
async def test_a_batching_window_takes_as_long_whatever_our_clock_says(kind: str, ahead_s: float) -> None:
    site = SITES[kind](ahead_s=ahead_s, window_s=30.0, batch_size=100)
    async with site.served(), site.running():
        await site.note("shard.opened")
        began_s = site.service_s()
        site.put("a", "b")
        await site.all_seen()
        assert len(site.events) == 1
        assert 25 < site.service_s() - began_s <= 33


@KINDS
@in_virtual_time
async def test_records_look_too_old_to_a_clock_that_is_ahead_and_are_kept_as_failed(kind: str) -> None:
    site = SITES[kind](ahead_s=HOUR_S, maximum_record_age_s=600)
    async with site.served(), site.running():
        site.put("a", "b")
        await site.until(lambda: sum(failure.batch_size for failure in site.given_up) == 2)
        assert site.seen == []
        assert {failure.reason for failure in site.given_up} == {Reason.AGE}
        assert site.notes("batch.discarded")


@KINDS
@in_virtual_time
async def test_records_from_the_future_of_a_clock_that_is_behind_are_run(kind: str) -> None:
    site = SITES[kind](ahead_s=-HOUR_S, maximum_record_age_s=600)
    async with site.served(), site.running():
        site.put("a", "b")
        await site.all_seen()
    assert site.seen == ["a", "b"]
    assert site.given_up == []


@KINDS
@SKEWS
@in_virtual_time
async def test_each_record_is_in_its_own_tumbling_window_whatever_our_clock_says(kind: str, ahead_s: float) -> None:
    site = SITES[kind](ahead_s=ahead_s, tumbling_window_s=60)
    site.reply = lambda _: Returned({"state": {}})
    async with site.served(), site.running():
        for value in "abcd":
            site.put(value)
            await asyncio.sleep(90)
        await site.until(lambda: sum(event["isFinalInvokeForWindow"] for event in site.events) >= 3)
    assert site.seen == ["a", "b", "c", "d"]
    windows = [event["window"]["start"] for event in site.events if event["Records"]]
    assert len(set(windows)) == 4
    finals = [event["window"]["start"] for event in site.events if event["isFinalInvokeForWindow"]]
    assert finals[:3] == windows[:3]
