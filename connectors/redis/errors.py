"""What Redis and the network say, as StoreUnavailable with what to do about it. No user, no password."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

from redis import exceptions as redis_errors

from router.errors import StoreUnavailable

_FULL: Final = (
    "its memory is full (maxmemory): raise maxmemory, or delete failures (`headrace failures drop`); "
    "writing goes on by itself"
)
_GONE: Final = (
    "it is empty, or another one than before; put the former data back, or let each mapping begin anew "
    "(`headrace mapping accept NAME`)"
)
_CLUSTER: Final = "its cluster does not serve the slot of this fleet now; look at `CLUSTER INFO`"

#: By the word with which Redis begins its answer.
_ADVICE: Final = {
    "OOM": _FULL,
    "LOADING": "it has just started and reads its data; work goes on by itself once it has",
    "READONLY": "it is a replica, which cannot be written: name the primary in `state`",
    "MISCONF": "it takes no writes because it cannot save to its disk: look at its log, its disk and its space",
    "NOREPLICAS": "it takes no writes without enough replicas of its own (min-replicas-to-write)",
    "MASTERDOWN": "it is a replica that has lost its primary: name the primary in `state`",
    "WRONGPASS": "it refuses user or password: set them in `state` as Redis has them",
    "NOAUTH": "it wants a password: set it in `state`",
    "BUSY": "it is busy with a script of somebody's for too long; `SCRIPT KILL` ends one that has written nothing",
    "CROSSSLOT": "keys of one fleet are in several slots: this is a fault of headrace, please report it",
    "CLUSTERDOWN": _CLUSTER,
    "TRYAGAIN": _CLUSTER,
    "UNKILLABLE": "a script hangs in it; restart it",
    "WRONGTYPE": "a key of this fleet is of another program: choose another `fleet` name, or another database",
    "GONE": _GONE,
    "EXECABORT": "it did not accept a transaction",
}
#: What Redis says of a refused command, inside of a script and outside.
_REFUSED_COMMAND: Final = re.compile(r"permissions to run the '?([\w|-]+)'?|can't run this command.*'([\w|-]+)'")


@contextlib.contextmanager
def redis_errors_of(where: str) -> Iterator[None]:
    """Turn errors of the client, of the network and of Redis into StoreUnavailable; `where` is for people."""
    try:
        yield
    except (redis_errors.RedisError, OSError) as error:
        raise unavailable(where, error) from error


def unavailable(where: str, error: BaseException) -> StoreUnavailable:
    """Say what an error of the client means."""
    return StoreUnavailable(f"{where}: {_advice(error)}")


def _advice(error: BaseException) -> str:  # noqa: PLR0911 - one answer a kind
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    match error:
        case redis_errors.MovedError():
            host, port = error.node_addr
            return f"in its cluster, the slot of this fleet is at {host}:{port}: name that node in `state`"
        case redis_errors.AskError():
            return _CLUSTER
        case redis_errors.NoPermissionError() | redis_errors.ResponseError() if named := _refused(str(error)):
            return f"its ACL refuses {named}; give the user that right (`ACL SETUSER`)"
        case redis_errors.RedisError() if code in _ADVICE:
            return _ADVICE[code]
        case TimeoutError() | redis_errors.TimeoutError():
            return "it does not answer in time: look whether it runs, and at the network"
        case redis_errors.AuthenticationError():
            return _ADVICE["WRONGPASS"]
        case redis_errors.ConnectionError() | OSError():
            return f"it cannot be reached: {error}"
        case redis_errors.ResponseError() if "OOM command not allowed" in str(error):
            return _FULL
    return f"it refused: {error}"


def _refused(said: str) -> str | None:
    """Name what an ACL refuses: a command, or keys."""
    if found := _REFUSED_COMMAND.search(said):
        return f"the command {(found[1] or found[2]).upper()}"
    if re.search(r"access (a key|(at least )?one of the keys)", said):
        return "the keys of this fleet"
    return None
