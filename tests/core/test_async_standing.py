"""How functions take asynchronous events, by what the catalogue has of them at that moment."""

from __future__ import annotations

from collections import Counter
from random import Random

from msgspec.structs import replace

from router.api.names import Here
from router.asynchronous.standing import Standings
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import Alias, Code, Function, InvokeConfig, Version
from router.core.async_rules import Standing
from tests.fakes.store import MemoryStore

#: What is said of each function that says nothing of that in the catalogue.
HERE = Here("eu-west-1", "000000000000")
AT_ONCE = {"orders": 4, "elsewhere": 50, "never-there": 4}.__getitem__


def version(number: str = "$LATEST") -> Version:
    return Version(number=number, runtime="python3.12", handler="a.b", role="", code=Code())


def orders(**settings: object) -> Function:
    return Function(name="orders", latest=version(), versions={"3": version("3")}, **settings)  # type: ignore[arg-type]


async def standings(*functions: Function) -> tuple[Catalogue, Standings]:
    catalogue = Catalogue(MemoryStore())
    await catalogue.load()
    for each in functions:
        await catalogue.put_function(each)
    return catalogue, Standings(catalogue, lambda: HERE, Random(1), AT_ONCE)


async def test_without_settings_aws_s_defaults_hold() -> None:
    _, found = await standings(orders())
    assert found.of("orders", None) == Standing("$LATEST", 2, 21_600.0)
    assert found.of("orders", "3") == Standing("3", 2, 21_600.0)
    assert found.room("orders") == 4


async def test_settings_are_of_what_was_invoked() -> None:
    configs = {
        "$LATEST": InvokeConfig(maximum_retry_attempts=0),
        "live": InvokeConfig(maximum_retry_attempts=1, maximum_event_age_s=60),
    }
    aliases = {"live": Alias(name="live", version="3")}
    _, found = await standings(orders(invoke_configs=configs, aliases=aliases, reserved_concurrency=7))
    assert found.of("orders", None) == Standing("$LATEST", 0, 21_600.0)
    assert found.of("orders", "live") == Standing("3", 1, 60.0)
    assert found.of("orders", "3") == Standing("3", 2, 21_600.0)
    assert found.room("orders") == 7


async def test_a_function_of_the_file_runs_as_many_as_its_workers_can_or_its_target_may_be_called() -> None:
    of_file = orders(is_of_file=True, reserved_concurrency=1)
    catalogue, found = await standings()
    catalogue.show_file({"orders": of_file, "elsewhere": replace(of_file, name="elsewhere")}, {})
    assert (found.room("orders"), found.room("elsewhere")) == (4, 50)


async def test_what_is_changed_holds_at_once() -> None:
    catalogue, found = await standings(orders())
    assert not found.of("orders", None).is_shut
    await catalogue.put_function(orders(reserved_concurrency=0))
    assert found.of("orders", None).is_shut
    await catalogue.put_function(orders(invoke_configs={"$LATEST": InvokeConfig(maximum_retry_attempts=1)}))
    assert found.of("orders", None) == Standing("$LATEST", 1, 21_600.0)


async def test_an_alias_with_weights_draws_each_time() -> None:
    aliases = {"live": Alias(name="live", version="3", weights={"$LATEST": 0.25})}
    _, found = await standings(orders(aliases=aliases))
    drawn = Counter(found.of("orders", "live").version for _ in range(400))
    assert 60 <= drawn["$LATEST"] <= 140
    assert drawn["3"] == 400 - drawn["$LATEST"]


async def test_what_is_gone_keeps_its_limits_and_runs_nothing() -> None:
    configs = {"live": InvokeConfig(maximum_retry_attempts=1, maximum_event_age_s=60)}
    catalogue, found = await standings(
        orders(aliases={"live": Alias(name="live", version="3")}, invoke_configs=configs)
    )
    await catalogue.drop_function("orders")
    assert found.of("orders", "live") == Standing(None, 1, 60.0)
    assert found.of("never-there", None) == Standing(None, 2, 21_600.0)
    assert found.room("never-there") == 4


async def test_before_the_catalogue_is_read_nothing_is_known_of_what_is_not_in_it() -> None:
    found = Standings(Catalogue(MemoryStore(), is_shared=True), lambda: HERE, Random(1), AT_ONCE)
    assert found.of("orders", None) == Standing(None, 2, 21_600.0, is_known=False)


async def test_a_function_is_told_the_arn_of_what_was_invoked_of_it() -> None:
    _, found = await standings(orders())
    assert found.arn("orders", "live") == "arn:aws:lambda:eu-west-1:000000000000:function:orders:live"
    assert found.arn("orders", None) is None
