"""What Redis says, for an operator: what it means and what to do, and never who asked or with which password."""

from __future__ import annotations

import pytest
from redis import exceptions as said
from redis._parsers.base import BaseParser

from connectors.redis.errors import unavailable

WHERE = "state in redis://redis.internal:6379/0, fleet clicks"


def parsed(text: str) -> Exception:
    """Give what the client makes of an answer that begins with `-`."""
    error = BaseParser.parse_error(text)
    assert isinstance(error, Exception)
    return error


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'. script: 5a1, on @user_script:7.", "memory is full"),
        ("LOADING Redis is loading the dataset in memory", "has just started"),
        ("READONLY You can't write against a read only replica.", "name the primary in `state`"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "name the primary"),
        ("MISCONF Errors writing to the AOF file: No space left on device", "cannot save to its disk"),
        ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "refuses user or password"),
        ("NOAUTH Authentication required.", "wants a password"),
        ("NOPERM User secret-user has no permissions to run the 'hset' command", "ACL refuses the command HSET;"),
        ("NOPERM No permissions to access a key", "ACL refuses the keys of this fleet;"),
        (
            "ERR ACL failure in script: User secret-user has no permissions to run the 'config|get' command",
            "ACL refuses the command CONFIG|GET;",
        ),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "`SCRIPT KILL`"),
        ("UNKILLABLE Sorry the script already executed write commands", "restart it"),
        ("MOVED 1234 redis-3.internal:7001", "is at redis-3.internal:7001: name that node in `state`"),
        ("ASK 1234 redis-3.internal:7001", "does not serve the slot"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "does not serve the slot"),
        ("CLUSTERDOWN Hash slot not served", "does not serve the slot"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "please report it"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "of another program"),
        ("GONE from here", "headrace mapping accept NAME"),
        ("ERR something that nobody knows", "it refused: something that nobody knows"),
    ],
)
def test_an_answer_of_redis_is_told_with_what_to_do(answer: str, told: str) -> None:
    text = str(unavailable(WHERE, parsed(answer)))
    assert text.startswith(f"{WHERE}: ")
    assert told in text
    assert "secret-user" not in text


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), "does not answer in time"),
        (said.TimeoutError("Timeout connecting to server"), "does not answer in time"),
        (said.ConnectionError("Connection closed by server."), "cannot be reached: Connection closed by server."),
        (ConnectionResetError("reset"), "cannot be reached: reset"),
    ],
)
def test_what_the_network_does_is_told(error: Exception, told: str) -> None:
    assert told in str(unavailable(WHERE, error))
