"""What runs by the file and by what was made through the API, and how it changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from config.diff import diff
from config.overlay import overlay
from config.settings import AnyFunction, Configuration, FunctionSettings, MappingSettings
from connectors.settings import Secret
from router.api.names import Here
from router.api_assembly import make_made_mapping
from router.catalogue import records
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import Alias, Code, Function, Version
from router.effective import Effective, reference_of, shown_functions
from router.errors import ConfigError
from router.telemetry import Log
from tests.core.test_config_diff import function, mapping, whole
from tests.fakes.api import MemoryCode
from tests.fakes.store import MemoryStore

SHA = "a" * 64
HERE = Here("us-east-1", "000000000000")


def version(**more: Any) -> Version:
    values = {"runtime": "python3.12", "handler": "app.handle", "role": "r", "code": Code(folder="/code")}
    return Version(**(values | more))


def record(uuid: str = "u", function: str = "made", **more: Any) -> records.Mapping:
    values = {"properties": {"queue": uuid}, "name": uuid}
    return records.Mapping(uuid=uuid, function=function, **(values | more))


class Site:
    """A catalogue, and what runs by it."""

    def __init__(self) -> None:
        self.catalogue = Catalogue(MemoryStore())
        self.code = MemoryCode()
        #: Each time settings of a mapping were made: which, and of what function.
        self.made: list[tuple[str, AnyFunction | None]] = []
        self.unfit: set[str] = set()
        self.effective = Effective(self.catalogue, self.code, self._make, Log())
        self.file = whole(mapping(), functions=(function(),))

    def _make(self, made: records.Mapping, used: AnyFunction | None, _: Configuration) -> MappingSettings:
        self.made.append((made.name, used))
        if made.name in self.unfit:
            raise ConfigError("batch_size: it is too large")
        return mapping(made.name, reference_of(made), queue=made.properties["queue"])

    async def now(self) -> Configuration:
        return await self.effective.over(self.file)


@pytest.fixture
async def site() -> Site:
    site = Site()
    await site.catalogue.load()
    return site


async def test_functions_run_in_each_of_their_versions(site: Site) -> None:
    await site.code.put(SHA, b"zip")
    one = version(number="1", code=Code(sha256=SHA), timeout_s=7, memory_mb=256, environment={"TOKEN": "secret"})
    await site.catalogue.put_function(Function(name="made", latest=version(), versions={"1": one}))
    functions = (await site.now()).functions
    assert list(functions) == ["made", "made:1", "f"]
    latest, first = functions["made"], functions["made:1"]
    assert isinstance(latest, FunctionSettings)
    assert isinstance(first, FunctionSettings)
    assert (latest.code, latest.handler, latest.runtime) == (Path("/code"), "app.handle", "python3.12")
    assert (latest.timeout_s, latest.memory_bytes, latest.python) == (3.0, 128 << 20, None)
    assert (first.code, first.timeout_s, first.memory_bytes) == (Path(f"/memory/{SHA}.zip"), 7.0, 256 << 20)
    assert first.environment == {"TOKEN": Secret("secret")}


async def test_others_make_functions_while_code_is_fetched(site: Site) -> None:
    """What they make is told by them, once it is kept."""
    code = version(code=Code(sha256=SHA))
    await site.code.put(SHA, b"zip")
    for name in ("one", "two"):
        await site.catalogue.put_function(Function(name=name, latest=code))
    find = site.code.path

    async def path(sha256: str) -> Path:
        await site.catalogue.put_function(Function(name="meanwhile", latest=version()))
        return await find(sha256)

    site.code.path = path  # type: ignore[method-assign]
    assert {"one", "two"} <= (await site.now()).functions.keys()
    assert "meanwhile" in (await site.now()).functions


async def test_only_mappings_that_are_enabled_and_stay_run(site: Site) -> None:
    for each in (record("a"), record("b", enabled=False), record("c", is_leaving=True)):
        await site.catalogue.put_mapping(each)
    running = (await site.now()).mappings
    assert [(each.mapping.name, each.is_made) for each in running] == [("m", False), ("a", True)]


async def test_the_file_wins(site: Site) -> None:
    made = version(number="1")
    await site.catalogue.put_function(Function(name="f", latest=version(), versions={"1": made}))
    await site.catalogue.put_mapping(record("m"))
    now = await site.now()
    assert now.functions == site.file.functions
    assert now.mappings == site.file.mappings


async def test_what_has_not_changed_stays_the_same_object(site: Site) -> None:
    await site.catalogue.put_function(Function(name="made", latest=version()))
    for number in range(3):
        await site.catalogue.put_mapping(record(f"{number}"))
    before = await site.now()
    await site.catalogue.put_mapping(replace(record("1"), properties={"queue": "another"}))
    after = await site.now()
    same = [one is other for one, other in zip(before.mappings, after.mappings, strict=True)]
    assert same == [True, True, False, True]
    assert before.functions["made"] is after.functions["made"]
    changes = diff(before, after).mappings
    assert [(each.name, each.action) for each in changes if each.action != "unchanged"] == [("1", "replace")]


async def test_records_that_are_read_anew_change_nothing(site: Site) -> None:
    await site.catalogue.put_mapping(record())
    await site.catalogue.put_function(Function(name="made", latest=version()))
    before = await site.now()
    await site.catalogue.load()
    after = await site.now()
    assert after.mappings[1] is before.mappings[1]
    assert after.functions["made"] is before.functions["made"]


@pytest.mark.parametrize("qualifier", [None, "1", "live"])
async def test_what_becomes_of_its_function_does_not_restart_a_mapping(site: Site, qualifier: str | None) -> None:
    alias = Alias(name="live", version="1")
    made = Function(name="made", latest=version(), versions={"1": version(number="1")}, aliases={"live": alias})
    await site.catalogue.put_function(made)
    await site.catalogue.put_mapping(record(qualifier=qualifier))
    states = [await site.now()]
    for changed in (
        replace(made, latest=version(timeout_s=60)),
        replace(made, reserved_concurrency=5),
        replace(made, aliases={"live": replace(alias, version="$LATEST")}),
    ):
        await site.catalogue.put_function(changed)
        states.append(await site.now())
    await site.catalogue.drop_function("made")
    states.append(await site.now())
    assert len({id(each.mappings[1]) for each in states}) == 1
    assert len(site.made) == 1
    assert site.made[0][1] is not None, "its drain is bounded by what its function is when it begins"


async def test_what_does_not_run_of_a_mapping_does_not_restart_it(site: Site) -> None:
    """Also where its function has another timeout by now, by which its drain would be bounded anew."""
    made = Function(name="made", latest=version())
    await site.catalogue.put_function(made)
    await site.catalogue.put_mapping(record())
    before = await site.now()
    await site.catalogue.put_function(replace(made, latest=version(timeout_s=60)))
    await site.catalogue.put_mapping(record(tags={"team": "b"}, modified_s=7.0))
    assert (await site.now()).mappings[1] is before.mappings[1]
    await site.catalogue.put_mapping(record(qualifier="1"))
    assert (await site.now()).mappings[1] is not before.mappings[1]


@pytest.mark.parametrize("qualifier", [None, "live"])
async def test_a_queue_is_read_for_as_much_as_its_function_has_reserved(site: Site, qualifier: str | None) -> None:
    site.effective = Effective(site.catalogue, site.code, make_made_mapping, Log())
    alias = Alias(name="live", version="$LATEST")
    made = Function(name="made", latest=version(), aliases={"live": alias}, reserved_concurrency=1)
    queue = {"EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:q", "BatchSize": 10}
    stream = {"EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/s", "StartingPosition": "LATEST"}
    await site.catalogue.put_function(made)
    await site.catalogue.put_mapping(record("q", qualifier=qualifier, properties=queue))
    await site.catalogue.put_mapping(record("s", qualifier=qualifier, properties=stream))
    before = await site.now()
    await site.catalogue.put_function(replace(made, reserved_concurrency=50))
    after = await site.now()
    assert [each.mapping.polling.function_concurrency for each in (before.mappings[1], after.mappings[1])] == [1, 50]
    assert after.mappings[2] is before.mappings[2]
    await site.catalogue.drop_function("made")
    assert (await site.now()).mappings[1] is after.mappings[1], "what has gone may come back"


async def test_only_what_the_file_says_of_its_own_cluster_restarts_a_mapping(site: Site) -> None:
    mine, another = (
        "arn:aws:kafka:us-east-1:000000000000:cluster/mine/1",
        "arn:aws:kafka:us-east-1:000000000000:cluster/b/1",
    )
    await site.catalogue.put_mapping(record(properties={"queue": "u", "EventSourceArn": mine}))
    before = await site.now()
    for clusters, is_kept in (({another: ["b:9092"]}, True), ({mine: ["b:9092"]}, False)):
        site.file = dataclasses.replace(site.file, api=dataclasses.replace(site.file.api, msk_clusters=clusters))
        assert ((await site.now()).mappings[1] is before.mappings[1]) is is_kept


async def test_a_mapping_of_no_function_runs(site: Site) -> None:
    await site.catalogue.put_mapping(record(function="nobody"))
    assert len((await site.now()).mappings) == 2
    assert site.made == [("u", None)]


async def test_a_mapping_may_use_a_function_of_the_file(site: Site) -> None:
    site.catalogue.show_file(shown_functions(site.file, HERE), {})
    await site.catalogue.put_mapping(record(function="f"))
    await site.now()
    assert site.made == [("u", site.file.functions["f"])]


async def test_code_that_is_missing_is_told_once_and_found_later(site: Site) -> None:
    await site.catalogue.put_function(Function(name="made", latest=version(code=Code(sha256=SHA))))
    with capture_logs() as lines:
        for _ in range(2):
            assert "made" not in (await site.now()).functions
    assert [(line["event"], line["function"]) for line in lines] == [("function.code_missing", "made")]
    await site.code.put(SHA, b"zip")
    assert "made" in (await site.now()).functions


async def test_a_mapping_that_does_not_fit_is_left_out(site: Site) -> None:
    site.unfit = {"u"}
    await site.catalogue.put_mapping(record())
    with capture_logs() as lines:
        assert len((await site.now()).mappings) == 1
    assert (lines[0]["event"], lines[0]["error"]) == ("mapping.unfit", "batch_size: it is too large")
    assert site.effective.why_unfit("u") == "batch_size: it is too large"
    assert site.effective.unfit() == [(record(), "batch_size: it is too large")]
    site.unfit = set()
    assert len((await site.now()).mappings) == 2
    assert site.effective.why_unfit("u") is None
    assert site.effective.unfit() == []


def test_functions_of_the_file_are_shown_without_their_secrets() -> None:
    settings = function("f", environment={"TOKEN": Secret("hush")}, timeout_s=2.5, reserved_concurrency=4)
    (shown,) = shown_functions(whole(functions=(settings,)), HERE).values()
    assert shown.is_of_file
    assert (shown.latest.environment, shown.latest.timeout_s) == ({"TOKEN": "****"}, 3)
    assert (shown.latest.code.folder, shown.reserved_concurrency) == ("code", 4)


def test_made_settings_do_not_change_those_of_the_file() -> None:
    file = whole(mapping(), functions=(function(),))
    now = overlay(file, {"made": function("made"), "f:1": function("f:1")}, [mapping("u", "made"), mapping("m")])
    assert list(now.functions) == ["made", "f"]
    assert [each.mapping.name for each in now.mappings] == ["m", "u"]
    assert now.mappings[0] is file.mappings[0]
