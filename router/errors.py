"""What can go wrong outside the core, named by what the caller must do about it.

Messages are read by operators: they say what happened, where and what to do, and never hold a secret.
A failing handler is not here: it is an `Outcome` (router.core.model), data like any other.
"""

from __future__ import annotations


class RouterError(Exception):
    """Base of all errors of this program; never raised itself."""


class ConfigError(RouterError):
    """The operator must edit something. Raised before any I/O; exit status 2."""


class SourceUnavailable(RouterError):
    """The source cannot be reached or refuses us for now. The engine backs off and asks again."""


class Throttled(SourceUnavailable):
    """The source is read more often, or more of it, than it allows. The engine asks again soon."""


class ShardGone(RouterError):
    """The stream has no such shard any more, whatever was left to read in it."""

    def __init__(self, shard: str, message: str) -> None:
        super().__init__(message)
        #: The shard that is gone.
        self.shard = shard


class PositionLost(RouterError):
    """The shard no longer holds the position to read from; the engine asks the source for a new one."""

    def __init__(self, shard: str, message: str) -> None:
        super().__init__(message)
        #: The shard whose position is gone.
        self.shard = shard


class LeaseLost(RouterError):
    """The shard is no longer ours. Drop the work, commit nothing."""


class PeerGone(RouterError):
    """Another replica ended, or is not there. Ask who has taken over; what was asked of it may or may not be done."""


class DestinationUnavailable(RouterError):
    """A destination did not accept a failure record. It stays in the store and is sent again; never dropped."""


class StoreUnavailable(RouterError):
    """The store could not write or read (disk full, read-only, locked). Nothing moves past it until it can."""


class Overtaken(RouterError):
    """Another replica has changed meanwhile what was to be changed. Nothing is written; read it again."""


class HandlerUnavailable(RouterError):
    """No worker can run the function now: it cannot be spawned or initialised. Spends no attempt."""


class CodeRefused(RouterError):
    """A function's code cannot be taken: it is not there, broken, unsafe or too large. Who sent it must change it."""


class CannotListen(RouterError):
    """An address or socket cannot be listened on: taken, or not ours."""


class NotRunning(RouterError):
    """No daemon runs on this state directory, and the command needs one; exit status 3."""


class DecisionNeeded(RouterError):
    """An operator must say what is meant before a mapping can run; the message says how."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        #: A reason code of router.telemetry.
        self.code = code


class InUse(RouterError):
    """What a command names is in use, and cannot be changed while it is."""


class NotFound(RouterError):
    """What a command names is not there."""
