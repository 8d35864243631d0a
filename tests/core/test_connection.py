"""Clients of the listener: those that keep to HTTP, and those that are broken, slow, greedy or many."""

import asyncio
import resource
import socket
import tracemalloc
from contextlib import AsyncExitStack, ExitStack, suppress

import pytest

from router.http.connection import HEAD_BYTES, Times
from router.http.messages import Response
from tests.fakes.wire import HOST, ask, connected, head, listening, post, read_answer, until

FAST = Times(head_s=0.5, body_s=0.5, idle_s=0.5, read_s=0.5, linger_s=0.5, rate_bytes=1 << 40)
PATIENT = Times(head_s=300.0, body_s=300.0, idle_s=300.0)
LARGE = b"x" * (16 * 1024 * 1024)
SLOW = 1000
SLOW_DATA = (b"P", b"POST / HTTP/1.1\r\nHost: a\r\nX: ", head("POST", "/", len(LARGE)) + b"slow")


class Echo:
    """Gives back what was sent, once it may."""

    def __init__(self, *, by_callback):
        self.by_callback = by_callback
        self.body_bytes = 1000
        self.asked = []
        self.go = asyncio.Event()
        self.go.set()
        self.reply = None

    def plan(self, request):
        if request.path == "/refused":
            return Response(403, b"no")
        return self

    def too_large(self):
        return Response(413, b"too large")

    def busy(self):
        return Response(503, b"busy")

    def unreadable(self, status, message):
        return Response(status, message.encode())

    def begin(self, request, answered):
        if not self.by_callback:
            return self.answer(request)
        self.task = asyncio.create_task(self.answer(request))
        self.task.add_done_callback(lambda ended: ended.cancelled() or answered(ended.result()))
        return None

    async def answer(self, request):
        self.asked.append(request)
        await self.go.wait()
        return Response(200, request.body if self.reply is None else self.reply)


@pytest.fixture(params=[False, True], ids=["awaited", "by callback"])
def echo(request):
    return Echo(by_callback=request.param)


async def test_a_connection_carries_requests_one_after_the_other(echo):
    async with listening(echo) as (_, port), connected(port) as (reader, writer):
        for number in range(3):
            writer.write(post(f"/{number}?q=%20", b"body %d" % number, X_Twice="a"))
            got = await read_answer(reader)
            assert (got.status, got.body) == (200, b"body %d" % number)
            assert got.headers["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert [(each.path, each.query) for each in echo.asked] == [("/0", "q=%20"), ("/1", "q=%20"), ("/2", "q=%20")]


async def test_a_request_may_come_byte_by_byte(echo):
    async with listening(echo) as (_, port), connected(port) as (reader, writer):
        for byte in post("/path", b"body", X_Name="v"):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        got = await read_answer(reader)
    assert got.body == b"body"
    assert echo.asked[0].headers == {"host": HOST, "content-length": "4", "x-name": "v"}


async def test_values_of_a_header_that_comes_twice_are_joined(echo):
    async with listening(echo) as (_, port):
        await ask(port, b"GET / HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\nx-a: 2\r\n\r\n")
    assert echo.asked[0].headers["x-a"] == "1,2"


async def test_head_is_answered_without_a_body(echo):
    echo.reply = b"12345"
    async with listening(echo) as (_, port), connected(port) as (reader, writer):
        writer.write(head("HEAD", "/"))
        got = await read_answer(reader, is_bare=True)
        writer.write(head("GET", "/"))
        assert (got.headers["content-length"], (await read_answer(reader)).body) == ("5", b"12345")


async def test_a_client_that_asks_first_is_told_to_go_on(echo):
    async with listening(echo) as (_, port), connected(port) as (reader, writer):
        writer.write(head("POST", "/", 4, Expect="100-continue"))
        assert (await read_answer(reader)).status == 100
        writer.write(b"body")
        assert (await read_answer(reader)).body == b"body"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x00c\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nbody", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nbody", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 4\r\n\r\nbody", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nHost: a\r\n .example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", 403),
        (b"GET /" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: x\r\n" * HEAD_BYTES + b"\r\n", 431),
    ],
)
async def test_what_is_no_sound_request_is_refused_and_the_connection_ends(echo, data, status):
    async with listening(echo) as (_, port), connected(port) as (reader, writer):
        writer.write(data)
        got = await read_answer(reader)
        assert (got.status, got.headers["connection"]) == (status, "close")
        assert await reader.read() == b""
    assert not echo.asked


async def test_who_sends_a_large_body_comes_to_read_why_it_is_refused(echo):
    async with listening(echo) as (_, port):
        got = await ask(port, post("/", LARGE))
    assert (got.status, got.body) == (413, b"too large")


async def test_an_upgrade_is_not_taken_up(echo):
    async with listening(echo) as (_, port):
        got = await ask(port, head("GET", "/", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c") + b"PRI * HTTP/2.0")
    assert (got.status, got.headers["connection"]) == (200, "close")


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
async def test_the_body_of_a_request_that_offers_another_protocol_is_not_lost(echo, piece_bytes):
    data = post("/", b"0123456789", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c")
    async with listening(echo) as (_, port), connected(port) as (reader, writer):
        for begin in range(0, len(data), piece_bytes):
            writer.write(data[begin : begin + piece_bytes])
            await asyncio.sleep(0)
        got = await read_answer(reader)
        assert (got.status, got.body, got.headers["connection"]) == (200, b"0123456789", "close")
        assert await reader.read() == b""
    assert len(echo.asked) == 1


async def test_what_comes_behind_such_a_body_is_not_part_of_it(echo):
    data = post("/", b"body", Connection="Upgrade", Upgrade="h2c")
    async with listening(echo) as (_, port):
        assert (await ask(port, data + data)).body == b"body"
    assert len(echo.asked) == 1


async def test_the_body_of_such_a_request_is_waited_for_no_longer_than_others(echo):
    data = post("/", b"body", Connection="Upgrade", Upgrade="h2c")
    async with listening(echo, times=FAST, look_s=0.01) as (_, port):
        assert (await ask(port, data[:-1])).status == 408
    assert not echo.asked


async def test_a_request_that_comes_too_early_is_left_unanswered(echo):
    async with listening(echo) as (_, port), connected(port) as (reader, writer):
        writer.write(post("/1", b"one") + post("/2", b"two"))
        got = await read_answer(reader)
        assert (got.body, got.headers["connection"]) == (b"one", "close")
        assert await reader.read() == b""
    assert [each.path for each in echo.asked] == ["/1"]


async def test_a_truncated_request_is_nothing(echo):
    async with listening(echo) as (listener, port):
        for data in (b"POST / HT", head("POST", "/", 10), head("POST", "/", 10) + b"12345"):
            async with connected(port) as (reader, writer):
                writer.write(data)
                writer.write_eof()
                assert await reader.read() == b""
        assert listener.held_bytes == 0
    assert not echo.asked


async def test_who_goes_while_it_is_answered_disturbs_nobody(echo):
    echo.go.clear()
    async with listening(echo) as (listener, port), connected(port) as (_, writer):
        writer.write(post("/", b"body"))
        await until(lambda: echo.asked)
        writer.transport.abort()
        echo.go.set()
        assert (await ask(port, post("/", b"other"))).body == b"other"
        await until(lambda: not listener.connection_count)


async def test_who_shuts_its_side_down_is_answered_still(echo):
    echo.go.clear()
    async with listening(echo) as (_, port), connected(port) as (reader, writer):
        writer.write(post("/", b"body"))
        writer.write_eof()
        await until(lambda: echo.asked)
        echo.go.set()
        assert (await read_answer(reader)).body == b"body"


@pytest.mark.parametrize(
    ("data", "answer"),
    [(b"", b""), (b"GET / HT", b"408"), (head("POST", "/", 10) + b"12", b"408"), (post("/", b"a"), b"200")],
)
async def test_who_is_slow_is_cut_off(echo, data, answer):
    async with listening(echo, times=FAST, look_s=0.01) as (listener, port), connected(port) as (reader, writer):
        writer.write(data)
        assert (await reader.read())[9:12] == answer
        await until(lambda: not listener.connection_count)


async def test_who_does_not_read_its_answer_is_cut_off(echo):
    echo.reply = LARGE
    async with listening(echo, times=FAST, look_s=0.01) as (listener, port), connected(port, limit=1) as client:
        reader, writer = client
        writer.write(head("GET", "/"))
        await until(lambda: echo.asked and not listener.connection_count)
        assert listener.held_bytes == 0
        with suppress(ConnectionResetError):
            assert len(await reader.read()) < len(LARGE)


async def test_the_one_that_was_waited_for_longest_goes_where_there_are_too_many(echo):
    async with listening(echo, connections=8) as (listener, port), AsyncExitStack() as clients:
        first, *others = [await clients.enter_async_context(connected(port)) for _ in range(8)]
        await until(lambda: listener.connection_count == 8)
        assert (await ask(port, post("/", b"served"))).body == b"served"
        assert await first[0].read() == b""
        assert not any(reader.at_eof() for reader, _ in others)


async def test_what_is_larger_than_all_that_is_held_is_given_to_one_alone(echo):
    echo.reply = LARGE
    async with listening(echo, held_bytes=1000) as (listener, port), AsyncExitStack() as clients:
        assert (await ask(port, head("GET", "/"))).body == LARGE
        first, _ = [await clients.enter_async_context(connected(port)) for _ in range(2)]
        first[1].write(head("GET", "/"))
        await until(lambda: listener.held_bytes)
        assert (await ask(port, head("GET", "/"))).body == LARGE
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await read_answer(first[0])


async def test_what_is_held_for_all_is_bounded_and_the_oldest_goes(echo):
    echo.body_bytes = len(LARGE)
    part = LARGE[: len(LARGE) // 2]
    async with listening(echo, held_bytes=len(LARGE)) as (listener, port), AsyncExitStack() as clients:
        first, *others = [await clients.enter_async_context(connected(port)) for _ in range(4)]
        for _, writer in (first, *others):
            writer.write(head("POST", "/", len(LARGE)) + part)
        # Cut off while it sends: what it finds depends on how much of that was on its way.
        with suppress(ConnectionError):
            assert await first[0].read() == b""
        assert listener.held_bytes <= len(LARGE)
        assert (await ask(port, post("/", b"small"))).body == b"small"


async def test_bodies_are_refused_while_what_is_answered_holds_all_there_is(echo):
    body = b"x" * 20_000
    echo.body_bytes = 3 * len(body)
    echo.go.clear()
    async with listening(echo, held_bytes=2 * len(body)) as (listener, port), AsyncExitStack() as clients:
        first, early, second, late = [await clients.enter_async_context(connected(port)) for _ in range(4)]
        first[1].write(post("/first", body))
        await until(lambda: len(echo.asked) == 1)
        early[1].write(head("POST", "/early", len(body), Expect="100-continue"))
        assert (await read_answer(early[0])).status == 100
        second[1].write(post("/second", body))
        await until(lambda: len(echo.asked) == 2)

        late[1].write(head("POST", "/late", len(body), Expect="100-continue"))
        assert (await read_answer(late[0])).status == 503, "it is told before it sends its body"
        early[1].write(body[:-1])
        assert (await read_answer(early[0])).status == 503, "there was room when it asked"
        asking = asyncio.create_task(ask(port, post("/small", b"small")))
        await until(lambda: len(echo.asked) == 3)
        assert listener.held_bytes == 2 * len(body)

        echo.go.set()
        assert (await asking).body == b"small"
        assert [(await read_answer(reader)).body for reader, _ in (first, second)] == [body, body]
        assert (await ask(port, post("/again", body))).body == body


async def test_a_body_larger_than_all_that_is_held_is_taken_from_one_alone(echo):
    body = b"x" * 20_000
    echo.body_bytes = len(body)
    async with listening(echo, held_bytes=1000) as (_, port):
        assert (await ask(port, post("/", body))).body == body


@pytest.fixture
def many_files():
    """Let the test have both ends of its connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * SLOW + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{hard} files may be open at most, of {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_slow_clients_keep_nobody_out(echo):
    echo.body_bytes = len(LARGE)
    async with listening(echo, connections=2000, times=PATIENT) as (listener, port):
        loop = asyncio.get_running_loop()
        with ExitStack() as clients:
            for number in range(SLOW):
                client = clients.enter_context(socket.socket())
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", port))
                await loop.sock_sendall(client, SLOW_DATA[number % len(SLOW_DATA)])
            await until(lambda: listener.connection_count == SLOW)
            for number in range(20):
                assert (await ask(port, post("/", b"%d" % number))).body == b"%d" % number
            assert listener.held_bytes < 10_000


async def test_at_the_end_what_is_being_answered_is_answered(echo):
    echo.go.clear()
    async with listening(echo) as (listener, port):
        asking = asyncio.create_task(ask(port, post("/", b"last")))
        await until(lambda: echo.asked)
        async with connected(port) as _:
            closing = asyncio.create_task(listener.close(5.0))
            await asyncio.sleep(0)
            echo.go.set()
            got = await asking
            assert (got.body, got.headers["connection"]) == (b"last", "close")
            await closing
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)


async def test_a_large_body_is_in_memory_once_while_it_is_answered(echo):
    weighed = []

    async def weigh(request):
        weighed.append(tracemalloc.get_traced_memory()[0])
        return Response(200)

    echo.body_bytes, echo.answer = len(LARGE), weigh
    async with listening(echo) as (_, port):
        data = post("/", LARGE)
        tracemalloc.start()
        try:
            await ask(port, data)
        finally:
            tracemalloc.stop()
    assert weighed[0] < 1.5 * len(LARGE)


async def test_at_the_end_nobody_is_waited_for_longer_than_is_said(echo):
    echo.go.clear()
    async with listening(echo) as (listener, port):
        asking = asyncio.create_task(ask(port, post("/", b"late")))
        await until(lambda: echo.asked)
        await listener.close(0.01)
        assert await asking is None
        echo.go.set()  # an answer that comes now has nobody to go to
    assert (listener.connection_count, listener.held_bytes) == (0, 0)
