"""Answers of HTTP, read from bytes however they are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.http_answer import Answer, AnswerReader, NotHttp, TooLarge

OK = b"HTTP/1.1 200 OK\r\n"
LIMIT_BYTES = 1000


def read(data: bytes, *cuts: int, reader: AnswerReader | None = None) -> tuple[Answer | None, AnswerReader]:
    """Feed data cut in pieces, up to the answer."""
    reader = reader or AnswerReader(LIMIT_BYTES)
    places = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(places):
        answer = reader.feed(data[start:end])
        if answer:
            assert end == len(data), "it needed less"
            return answer._replace(fields={}), reader
    return None, reader


def chunked(*parts: bytes) -> bytes:
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


ANSWERS = [
    (OK + b"Content-Length: 5\r\n\r\nhello", Answer(200, b"hello"), True),
    (b"HTTP/1.1 400 \r\ncontent-length:0\r\n\r\n", Answer(400, b""), True),
    (b"HTTP/1.1 503\r\nCONTENT-LENGTH:   2  \r\n\r\n{}", Answer(503, b"{}"), True),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", Answer(200, b"{}"), False),
    (OK + b"Content-Length: 2\r\nConnection: Close\r\n\r\n{}", Answer(200, b"{}"), False),
    (OK + b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}", Answer(200, b"{}"), True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b""), True),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"X: y\r\nContent-Length: 1\r\n\r\nx", Answer(200, b"x"), True),
    (chunked(b"hello ", b"world" * 9) + b"0\r\n\r\n", Answer(200, b"hello " + b"world" * 9), True),
    (chunked() + b"0\r\n\r\n", Answer(200, b""), True),
    (
        chunked(b"\r\n", b"0\r\n\r\n") + b"000;last\r\nTrailer: x\r\nMore: y\r\n\r\n",
        Answer(200, b"\r\n0\r\n\r\n"),
        True,
    ),
    (chunked(b"x") + b"A ; name=value\r\n0123456789\r\n0\r\n\r\n", Answer(200, b"x0123456789"), True),
]


@pytest.mark.parametrize(("data", "expected", "stays"), ANSWERS)
@given(choice=st.data())
def test_an_answer_is_the_same_however_it_is_cut(
    data: bytes, expected: Answer, *, stays: bool, choice: st.DataObject
) -> None:
    cuts = choice.draw(st.lists(st.integers(0, len(data)), max_size=6))
    assert read(data)[0] == expected
    answer, reader = read(data, *(cut for cut in cuts if cut < len(data)))
    assert (answer, reader.stays, reader.started) == (expected, stays, True)


@pytest.mark.parametrize(("data", "expected", "stays"), ANSWERS)
def test_an_answer_is_not_there_before_its_end(data: bytes, expected: Answer, *, stays: bool) -> None:
    answer, reader = read(data[:-1], *range(len(data) - 1))
    assert (answer, reader.stays, reader.end()) == (None, False, None)
    assert read(data[-1:], reader=reader)[0] == expected


@pytest.mark.parametrize(("data", "expected", "stays"), ANSWERS)
def test_what_follows_an_answer_is_not_part_of_it_and_ends_the_connection(
    data: bytes, expected: Answer, *, stays: bool
) -> None:
    answer, reader = read(data + b"HTTP/1.1 200 OK\r\n")
    assert answer == expected
    if expected.status != 204:
        assert not reader.stays


@pytest.mark.parametrize("head", [OK, b"HTTP/1.0 200 OK\r\n", OK + b"Connection: close\r\n"])
def test_a_body_without_length_ends_with_the_connection(head: bytes) -> None:
    data = head + b"\r\nhello"
    answer, reader = read(data, *range(len(data)))
    ended = reader.end()
    assert ended
    assert (answer, ended.status, ended.body, reader.stays) == (None, 200, b"hello", False)


def test_the_fields_of_the_head_are_given_by_their_small_names() -> None:
    data = b"HTTP/1.1 100 Continue\r\nX-A: early\r\n\r\n" + OK + b"X-A: one\r\nx-a:  two \r\nContent-Length: 0\r\n\r\n"
    answer = AnswerReader(LIMIT_BYTES).feed(data)
    assert answer
    assert answer.fields == {b"x-a": b"two", b"content-length": b"0"}


def test_nothing_is_no_answer() -> None:
    reader = AnswerReader(LIMIT_BYTES)
    assert (reader.started, reader.end()) == (False, None)


def test_a_proxy_that_connects_has_no_body_and_one_that_refuses_has() -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno"
    for data, expected in [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", Answer(200, b"")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Answer(200, b"")),
        (refusal, Answer(407, b"no")),
    ]:
        answer, reader = read(data, reader=AnswerReader(LIMIT_BYTES, connecting=True))
        assert (answer, reader.stays) == (expected, True)


@pytest.mark.parametrize(
    "data",
    [
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"\r\n\r\n",
        OK + b"no field\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\n",
        OK + b"Content-Length: 0x1\r\n\r\n",
        OK + b"Content-Length:\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        chunked() + b"\r\n",
        chunked() + b"-1\r\n",
        chunked() + b"xyz\r\n",
        chunked() + b"123456789\r\n",
        chunked() + b"1\r\nxyz",
        chunked() + b"1" * 70_000,
        OK + b"x" * 70_000,
        b"HTTP/1.1 100 Continue\r\n\r\nand then",
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(NotHttp):
        read(data, reader=AnswerReader(10**6))


def test_chunks_may_be_many_and_small() -> None:
    data = chunked(*[b"a"] * 50_000) + b"0\r\n\r\n"
    assert read(data, reader=AnswerReader(10**6))[0] == Answer(200, b"a" * 50_000)


def test_a_length_that_is_told_twice_is_one() -> None:
    assert read(OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}")[0] == Answer(200, b"{}")


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001,
        OK + b"\r\n" + b"x" * 1001,
        chunked(*[b"x" * 100] * 11),
    ],
)
def test_a_body_beyond_the_limit_is_refused(data: bytes) -> None:
    with pytest.raises(TooLarge):
        read(data, *range(100, len(data), 90))


@given(st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=3))
def test_any_bytes_are_read_or_refused(noise: bytes, cuts: list[int]) -> None:
    places: list[Any] = [cut for cut in cuts if cut < len(noise)]
    for start in (b"", OK, OK + b"\r\n", chunked()):
        reader = AnswerReader(LIMIT_BYTES)
        try:
            for piece in (start, *(noise[a:b] for a, b in zip([0, *places], [*places, len(noise)], strict=True))):
                if reader.feed(piece):
                    break
            reader.end()
        except NotHttp:
            pass
