"""How functions take asynchronous events now, by what the catalogue has of them: asked at each try.

A function that was deleted not long ago keeps the limits that it had for what was accepted before, as on AWS, where its
tries still count.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from router.api.errors import ApiError
from router.api.names import Here, Reference, resolve
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import LATEST, Function, InvokeConfig
from router.core.async_rules import MAXIMUM_AGE_S, MAXIMUM_RETRIES, Standing
from router.errors import StoreUnavailable

#: Of so many it is remembered how they stand.
KNOWN: Final = 1000
_DEFAULT: Final = InvokeConfig()


class Standings:
    """All functions, as their events see them."""

    def __init__(
        self, catalogue: Catalogue, where: Callable[[], Here], rng: Random, at_once: Callable[[str], int]
    ) -> None:
        """Make it.

        Args:
            catalogue: has the functions.
            where: gives what their ARNs are made of; may change with the file.
            rng: chance, for aliases with weights.
            at_once: says how many invocations run at once, at most, of a function of the file, or of one that has
                reserved nothing.
        """
        self._catalogue = catalogue
        self._where = where
        self._rng = rng
        self._at_once = at_once
        #: By name and qualifier, with the function that it was made of; without those that draw their version.
        self._known: dict[tuple[str, str | None], tuple[Function, Standing]] = {}

    def of(self, name: str, qualifier: str | None) -> Standing:
        """Say how a function takes what is invoked of it under a version, an alias, or neither."""
        function = self._catalogue.function(name)
        kept = self._known.get((name, qualifier))
        if kept is not None and kept[0] is function:
            return kept[1]
        standing = self._look(name, qualifier, function)
        if function is not None and standing.version is not None and not _draws(function, qualifier):
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[name, qualifier] = function, standing
        return standing

    def _look(self, name: str, qualifier: str | None, function: Function | None) -> Standing:
        known = self._catalogue.last_known(name, qualifier or LATEST)
        config = known.invoke_configs.get(qualifier or LATEST, _DEFAULT) if known else _DEFAULT
        retries, age_s = config.maximum_retry_attempts, config.maximum_event_age_s
        return Standing(
            self._version(name, qualifier) if function else None,
            MAXIMUM_RETRIES if retries is None else retries,
            MAXIMUM_AGE_S if age_s is None else float(age_s),
            is_shut=function is not None and function.reserved_concurrency == 0,
            is_known=function is not None or self._is_all_known(),
        )

    def room(self, name: str) -> int:
        """Say how many events of a function run at once, at most."""
        function = self._catalogue.function(name)
        reserved = function.reserved_concurrency if function and not function.is_of_file else None
        return reserved or self._at_once(name)

    def arn(self, name: str, qualifier: str | None) -> str | None:
        """Give the ARN that a function is told it was invoked under; None = the one that it knows."""
        return self._where().function(name, qualifier) if qualifier else None

    def _is_all_known(self) -> bool:
        try:
            self._catalogue.check()
        except StoreUnavailable:
            return False
        return True

    def _version(self, name: str, qualifier: str | None) -> str | None:
        try:
            return resolve(self._catalogue, Reference(name, qualifier), self._where()).version(self._rng.random())
        except ApiError:
            return None


def _draws(function: Function, qualifier: str | None) -> bool:
    """Is the version drawn anew each time?"""
    alias = function.aliases.get(qualifier or "")
    return alias is not None and bool(alias.weights)
