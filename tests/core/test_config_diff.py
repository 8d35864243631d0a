"""What one configuration changes about another."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.diff import Change, Diff, diff, running
from config.settings import AnyFunction, Configuration, FunctionSettings, MappingSettings, Retention
from connectors.settings import AwsSettings, Secret, SqsDestination, SqsSettings, UrlFunction
from router.core.model import QUEUE_RULES, EventSourceMapping
from tests.core.configured import RIGHT, configuration, with_source
from tests.core.test_config_streams import DYNAMODB, KINESIS

AT_TIME = "    starting_position: AT_TIMESTAMP\n    starting_position_timestamp: 5\n"


def function(name: str = "f", **more: Any) -> FunctionSettings:
    values: dict[str, Any] = {
        "handler": "app.handle",
        "code": Path("code"),
        "python": None,
        "timeout_s": 3.0,
        "memory_bytes": 128 * 1024 * 1024,
        "reserved_concurrency": None,
        "concurrency_per_worker": 1,
        "environment": {},
        "logs": True,
        "snap_start": False,
    }
    return FunctionSettings(name, **(values | more))


def mapping(
    name: str = "m", function: str = "f", *, queue: str = "q", batch_size: int = 10, **more: Any
) -> MappingSettings:
    return MappingSettings(
        EventSourceMapping(name, function, QUEUE_RULES, batch_size=batch_size),
        enabled=True,
        source=SqsSettings(name, queue, None, None, windowed=False),
        **{"filters": (), "destination": None, **more},
    )


def whole(*mappings: MappingSettings, functions: tuple[AnyFunction, ...] | None = None, **more: Any) -> Configuration:
    values: dict[str, Any] = {
        "path": Path("/headrace.yaml"),
        "state_dir": Path("/state"),
        "listen_host": "127.0.0.1",
        "listen_port": 9301,
        "aws": AwsSettings(),
        "drain_timeout_s": 30.0,
        "failures": Retention(1.0, 1, drop_oldest=False),
        "power_safe": True,
        "log_level": "info",
        "notices": (),
    }
    known = functions if functions is not None else (function("f"), function("g"))
    return Configuration(functions={each.name: each for each in known}, mappings=mappings, **(values | more))


def only(changes: tuple[Change, ...]) -> Change:
    [change] = [each for each in changes if each.action != "unchanged"]
    return change


def test_the_same_file_changes_nothing() -> None:
    assert diff(whole(mapping()), whole(mapping())).is_empty


def test_mappings_begin_end_and_are_replaced_by_name() -> None:
    old = whole(mapping("a"), mapping("b"), mapping("c"))
    changes = diff(old, whole(mapping("b", batch_size=7), mapping("c"), mapping("d")))
    assert [(each.name, each.action) for each in changes.mappings] == [
        ("b", "replace"),
        ("c", "unchanged"),
        ("d", "start"),
        ("a", "stop"),
    ]


@pytest.mark.parametrize(
    ("text", "changed", "keys"),
    [
        (RIGHT, RIGHT + "    batch_size: 7\n", ["batch_size"]),
        (RIGHT, RIGHT + "    maximum_batching_window_in_seconds: 7\n", ["maximum_batching_window_in_seconds"]),
        (RIGHT, RIGHT + "    enabled: false\n", ["enabled"]),
        (RIGHT, RIGHT + "    retry_backoff: {cap: 5s}\n", ["retry_backoff.cap"]),
        (RIGHT, RIGHT + '    filter_criteria: {filters: [{pattern: {value: ["a"]}}]}\n', ["filter_criteria"]),
        (RIGHT, RIGHT + "    destination_config: {on_failure: {file: {path: x}}}\n", ["destination_config"]),
        (RIGHT, with_source("client_id: other"), ["source.client_id"]),
        (RIGHT, with_source("session_timeout: 11s"), ["source.session_timeout"]),
        (RIGHT, RIGHT + "    bisect_batch_on_function_error: true\n", ["bisect_batch_on_function_error"]),
        (RIGHT, RIGHT + "    function_response_types: [ReportBatchItemFailures]\n", ["function_response_types"]),
        (RIGHT, RIGHT + "    renamed_from: old\n", ["source.consumer_group"]),
        (RIGHT, RIGHT + "    parallelization_factor: 2\n", ["parallelization_factor"]),
        (KINESIS, KINESIS + "    parallelization_factor: 2\n", ["parallelization_factor"]),
        (KINESIS, KINESIS + "    starting_position: LATEST\n", ["starting_position"]),
        (KINESIS, KINESIS + AT_TIME, ["starting_position", "starting_position_timestamp"]),
        (KINESIS, KINESIS + "    tumbling_window_in_seconds: 30\n", ["tumbling_window_in_seconds"]),
        (KINESIS, KINESIS.replace("clicks", "views"), ["source.stream"]),
        (KINESIS, KINESIS.replace("clicks", "clicks, poll_interval: 2s"), ["source.poll_interval"]),
        (KINESIS, KINESIS.replace("clicks", "clicks, deaggregate: true"), ["source.deaggregate"]),
        (DYNAMODB, DYNAMODB.replace("orders", "orders, poll_interval: 2s"), ["source.poll_interval"]),
        (DYNAMODB, DYNAMODB.replace("orders", "orders, poll_interval: 100ms"), ["source.poll_interval"]),
        (DYNAMODB, DYNAMODB.replace("orders", "orders, region: r"), ["source.region"]),
        (RIGHT, RIGHT.replace("code: .", "code: ., timeout: 9"), ["timeout of its function"]),
    ],
)
def test_a_change_is_called_as_in_the_file(tmp_path: Path, text: str, changed: str, keys: list[str]) -> None:
    change = only(diff(configuration(tmp_path, text), configuration(tmp_path, changed)).mappings)
    assert change.action == "replace"
    assert set(keys) <= set(change.keys)
    assert len(set(change.keys)) == len(change.keys)


def test_another_kind_of_source_is_one_change() -> None:
    old = configuration_of(mapping())
    kafka = replace(mapping(), source=Secret("stands for another kind"))  # type: ignore[arg-type]
    assert only(diff(old, configuration_of(kafka)).mappings).keys == ("source",)


def configuration_of(*mappings: MappingSettings) -> Configuration:
    return whole(*mappings)


def test_a_function_that_changed_gets_new_workers_and_its_mappings_go_on() -> None:
    old = whole(mapping(), functions=(function(),))
    new = whole(mapping(), functions=(function(code=Path("other"), environment={"A": Secret("hidden")}),))
    changes = diff(old, new)
    assert only(changes.functions) == Change("f", "renew", ("code", "environment.A"))
    assert changes.mappings == (Change("m", "unchanged"),)


def test_a_function_elsewhere_takes_its_mappings_with_it() -> None:
    there, other = (UrlFunction("f", Secret(url), {}, None, 60.0, 10, logs=True) for url in ("http://a", "http://b"))
    for old, new, key in ((function(), there, "its kind"), (there, function(), "its kind"), (there, other, "url")):
        changes = diff(whole(mapping(), functions=(old,)), whole(mapping(), functions=(new,)))
        assert only(changes.functions) == Change("f", "replace", (key,))
        assert only(changes.mappings) == Change("m", "replace", ("functions.f",))
    same = whole(mapping(), functions=(there,))
    assert diff(same, same).is_empty


@pytest.mark.parametrize(
    ("before", "after", "action"),
    [
        ({}, {"ships_logs": True}, "replace"),
        ({"ships_logs": True}, {}, "replace"),
        ({"ships_logs": True}, {"ships_logs": True, "log_group": "/shop"}, "replace"),
        ({"ships_logs": True}, {"ships_logs": True, "log_level": "info"}, "renew"),
        ({}, {"log_group": "/shop"}, "renew"),
        ({}, {"logs": False}, "renew"),
    ],
)
def test_where_what_is_printed_goes_is_the_same_for_all_workers(
    before: dict[str, Any], after: dict[str, Any], action: str
) -> None:
    changes = diff(*(whole(mapping(), functions=(function(**more),)) for more in (before, after)))
    assert only(changes.functions).action == action
    assert [each.action for each in changes.mappings] == ["replace" if action == "replace" else "unchanged"]


def test_functions_come_and_go_with_the_mappings_that_use_them() -> None:
    changes = diff(whole(mapping()), whole(mapping(function="g")))
    assert [(each.name, each.action) for each in changes.functions] == [("g", "start"), ("f", "stop")]
    assert only(changes.mappings).keys == ("function",)


def test_what_the_aws_block_says_concerns_workers_and_destinations() -> None:
    there = AwsSettings("http://127.0.0.1:1", "eu-west-1", "123456789012")
    told = mapping("told", destination=SqsDestination("dead", None, "us-east-1"))
    changes = diff(whole(mapping(), told), whole(mapping(), told, aws=there))
    assert only(changes.functions) == Change("f", "renew", ("aws.endpoint_url", "aws.region", "aws.account_id"))
    assert only(changes.mappings) == Change("told", "replace", ("aws.region", "aws.account_id"))


def test_what_cannot_change_while_it_runs_is_said_and_stays() -> None:
    old = whole(mapping())
    elsewhere = {"state_dir": Path("/elsewhere"), "listen_port": 1, "listen_host": "::1", "power_safe": False}
    new = whole(mapping(), **elsewhere, log_level="debug")
    changes = diff(old, new)
    assert (changes.need_restart, changes.taken_on) == (("state", "listen", "durability"), ("log_level",))
    assert running(old, new) == replace(old, log_level="debug")
    assert diff(running(old, new), new).need_restart == ("state", "listen", "durability"), (
        "it is said again until it is so"
    )


def test_a_rename_names_whom_it_follows_and_taking_the_key_out_changes_nothing() -> None:
    renamed = mapping("new", renamed_from="m")
    changes = diff(whole(mapping()), whole(renamed))
    assert changes.mappings[0] == Change("new", "start", renamed_from="m")
    assert diff(whole(renamed), whole(mapping("new"))).is_empty


SECRETS = st.sampled_from([Secret("s3cret-one"), Secret("s3cret-two")])
FUNCTIONS = st.builds(
    lambda names, envs, times: tuple(
        function(name, environment=env, timeout_s=time) for name, env, time in zip(names, envs, times, strict=True)
    ),
    st.just(("f", "g")),
    st.tuples(*[st.dictionaries(st.sampled_from("AB"), SECRETS)] * 2),
    st.tuples(*[st.sampled_from((1.0, 2.0))] * 2),
)
MAPPINGS = st.dictionaries(
    st.sampled_from("abc"),
    st.tuples(st.sampled_from("fg"), st.sampled_from(("q", "r")), st.integers(1, 2)),
).map(lambda found: [mapping(name, to, queue=queue, batch_size=size) for name, (to, queue, size) in found.items()])
WHOLES = st.builds(lambda mappings, functions: whole(*mappings, functions=functions), MAPPINGS, FUNCTIONS)


def applied(changes: Diff, old: Configuration, new: Configuration) -> tuple[dict[str, Any], dict[str, Any]]:
    """Do to what runs by `old` as a daemon does; gives its mappings, and the settings of the workers in use."""
    mappings = {each.mapping.name: each for each in old.mappings}
    wanted = {each.mapping.name: each for each in new.mappings}
    functions = {each.mapping.function: old.functions[each.mapping.function] for each in old.mappings}
    for change in changes.mappings:
        match change.action:
            case "start" | "replace":
                mappings[change.name] = wanted[change.name]
            case "stop":
                del mappings[change.name]
    for change in changes.functions:
        match change.action:
            case "start" | "renew" | "replace":
                functions[change.name] = new.functions[change.name]
            case "stop":
                del functions[change.name]
    return mappings, functions


@given(WHOLES, WHOLES)
def test_what_is_done_leads_from_the_old_to_the_new(old: Configuration, new: Configuration) -> None:
    changes = diff(old, new)
    mappings, functions = applied(changes, old, new)
    assert mappings == {each.mapping.name: each for each in new.mappings}
    assert functions == {each.mapping.function: new.functions[each.mapping.function] for each in new.mappings}
    assert all(each.keys for each in changes.mappings if each.action == "replace")
    assert "s3cret" not in repr(changes)
    assert diff(new, new).is_empty


def test_every_setting_of_a_mapping_is_compared() -> None:
    """One that differs in any field is never taken for unchanged."""
    old = mapping(destination=SqsDestination("dead", None, None))
    for path in _leaves(old, ()):
        changed = _with(old, path, Secret("another value"))
        found = diff(whole(old), whole(changed)).mappings
        assert [each.action for each in found if each.name == "m"] in (["replace"], ["stop"]), path


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not is_dataclass(value):
        return [path]
    found = [leaf for field in fields(value) for leaf in _leaves(getattr(value, field.name), (*path, field.name))]
    return [leaf for leaf in found if leaf != ("renamed_from",)]


def _with(value: Any, path: tuple[str, ...], leaf: object) -> Any:
    if not path:
        return leaf
    return replace(value, **{path[0]: _with(getattr(value, path[0]), path[1:], leaf)})
