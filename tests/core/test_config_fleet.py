"""State that replicas share: how the file says where it is, and what of it contradicts itself."""

from dataclasses import replace
from pathlib import Path

import pytest

from config.diff import diff, running
from config.load import load
from config.mistakes import InvalidConfiguration
from config.replicas import replica_name
from config.settings import FleetSettings
from config.state import Shared, state_of
from connectors.settings import RedisSettings, S3Destination, Secret
from router.errors import ConfigError
from tests.core.configured import NOW_S, RIGHT, configuration, mistakes, with_source, written

HERE = {"HEADRACE_REPLICA": "a"}
FORM = "redis://[[user]:password@]host[:port][/database], or rediss:// for TLS"
NO_SLASHES = "// is missing behind its scheme"
ALONE = "found with a state directory, which one daemon has alone; allowed with state: redis://... only"
SAME_FOLDER = "an absolute path, at which every replica finds the same folder"
PLAIN = RedisSettings(tls=False, host="db", port=6379, database=0)


def fleet(tmp_path, state, **environment):
    settings = configuration(tmp_path, f"{RIGHT}{state}\n", **HERE, **environment).fleet
    assert settings is not None
    return settings


@pytest.mark.parametrize(
    ("state", "redis"),
    [
        ("redis://db", PLAIN),
        ("redis://db:6379/0", PLAIN),
        ("rediss://db:7000/3", RedisSettings(tls=True, host="db", port=7000, database=3)),
        ("redis://:p%40ss@db", replace(PLAIN, password=Secret("p@ss"))),
        ("redis://me:word@db", replace(PLAIN, username="me", password=Secret("word"))),
        ("redis://[::1]:6379", replace(PLAIN, host="::1")),
        ("{redis: {url: redis://db}}", PLAIN),
        (
            "{redis: {url: redis://db, username: me, password: '${env:WORD}'}}",
            replace(PLAIN, username="me", password=Secret("a/b")),
        ),
    ],
)
def test_a_url_or_a_block_says_which_redis(tmp_path, state, redis):
    assert fleet(tmp_path, f"state: {state}", WORD="a/b") == FleetSettings(redis, "headrace", "a", 30.0)


def test_keys_among_replicas(tmp_path):
    settings = configuration(
        tmp_path, f"{RIGHT}state: redis://db\nfleet: west.1\nlease: 5s\nlocal: run\nlisten: 127.0.0.1:0\n", **HERE
    )
    assert settings.fleet == FleetSettings(PLAIN, "west.1", "a", 5.0)
    assert settings.state_dir == tmp_path / "run/a"


def test_large_payloads_go_elsewhere(tmp_path):
    over = replace(PLAIN, payloads_over_bytes=65536, payloads=Path("/mnt/payloads"))
    assert fleet(tmp_path, "state: {redis: {url: redis://db}, payloads: {folder: /mnt/payloads}}").redis == over
    bucket = S3Destination("large", "p/", "http://127.0.0.1:4566", "us-east-1")
    redis = fleet(
        tmp_path,
        "aws: {endpoint_url: 'http://127.0.0.1:4566', region: us-east-1}\n"
        "state: {redis: {url: redis://db}, payloads: {s3: {bucket: large, prefix: p/}}, payloads_over: 1MiB}",
    ).redis
    assert (redis.payloads, redis.payloads_over_bytes) == (bucket, 1024**2)


def test_certificates_belong_to_tls(tmp_path):
    (tmp_path / "ca.pem").touch()
    redis = fleet(tmp_path, "state: {redis: {url: rediss://db, ca: ca.pem, certificate: ca.pem, key: ca.pem}}").redis
    assert (redis.ca, redis.certificate, redis.key) == (tmp_path / "ca.pem",) * 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fleet: west", f"fleet: {ALONE}"),
        ("lease: 30s", f"lease: {ALONE}"),
        ("local: x", f"local: {ALONE}"),
        *(
            (f"state: {url}", f"state: found a URL (not shown) in which {NO_SLASHES}: allowed {FORM}")
            for url in ("redis:/ann:pass@db", "rediss:ann:pass@db/0", "Redis:db")
        ),
        ("state: s3://bucket/x", "state: found s3://, allowed a directory, redis:// or rediss://"),
        (
            "state: {redis: 'redis://:pass@db'}",
            "state.redis: found the URL of a Redis (not shown), allowed a block of keys",
        ),
        ("state: {redis: {url: db}}", f"state.redis.url: found a text without :// (not shown), allowed {FORM}"),
        ("state: {redis: {}}", f"state.redis.url: found nothing, allowed {FORM}"),
        ("state: {redis: {url: redis://db}, path: x}",
         "state.path: the embedded store is named by its directory alone: state: ./.headrace"),
        ("state: {redis: {url: redis://:w0rd@db, password: w0rd}}",
         "state.redis.password: found beside a password in url, allowed one of them"),
        ("state: {redis: {url: redis://db, username: me}}",
         "state.redis.password: found nothing, needed with username"),
        ("state: {redis: {url: redis://db, ca: headrace.yaml}}",
         "state.redis.ca: found with redis://, allowed with rediss:// only"),
        ("state: {redis: {url: rediss://db, key: headrace.yaml}}",
         "state.redis.certificate: found nothing, needed with key"),
        ("state: {redis: {url: redis://db}, payloads: {folder: payloads}}",
         f'state.payloads.folder: found "payloads", allowed {SAME_FOLDER}'),
        ("state: {redis: {url: redis://db}, payloads: {folder: /p, s3: {bucket: large}}}",
         "state.payloads: found folder and s3, allowed one of them"),
        ("state: {redis: {url: redis://db}, payloads: {}}", "state.payloads: found nothing, allowed s3 or folder"),
        ("state: {redis: {url: redis://db}, payloads_over: 1MiB}",
         "state.payloads: found nothing, needed with payloads_over"),
        ("lease: 1s", 'lease: found "1s", allowed 3s to 5m'),
        ("fleet: a b", 'fleet: found "a b", allowed 1 to 64 letters, digits, ., - and _'),
        ("fleet: '{a}'", 'fleet: found "{a}", allowed 1 to 64 letters, digits, ., - and _'),
    ],
)  # fmt: skip
def test_a_wrong_state(tmp_path, line, expected):
    more = "state: redis://db\n" if line.startswith(("lease: 1s", "fleet: a b", "fleet: '{")) else ""
    found = mistakes(tmp_path, f"{RIGHT}{line}\n{more}", **HERE)
    assert found == [f"headrace.yaml:7: {expected}"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://:w0rd@db:port",
        "redis://:w0rd@db/one",
        "redis://w0rd@db",
        "redis://:w0rd@db?db=1",
        "redis://:w0#rd@db",
        "redis://:w0/rd@db",
        "redis://:w0rd@",
        "redis://:w0rd @db",
        "redis://:w0rd@db:99999",
        "redis://:w0rd@[::1",
        "rds://:w0rd@db",
        "w0rd@db://",
    ],
)
def test_no_message_shows_a_password(tmp_path, url):
    for line in (f"state: '{url}'", f"state: {{redis: {{url: '{url}'}}}}"):
        [told] = mistakes(tmp_path, f"{RIGHT}{line}\n", **HERE)
        assert "w0" not in told
        assert "allowed" in told


def test_settings_show_no_password(tmp_path):
    settings = configuration(tmp_path, f"{RIGHT}state: redis://me:w0rd@db\n", **HERE)
    assert "w0rd" not in repr(settings)
    assert settings.fleet.redis.shown == "redis://db:6379/0"


# --- our name


def test_a_replica_is_called_as_it_is_told_else_as_the_environment_says_else_as_the_host(tmp_path):
    file = written(tmp_path, f"{RIGHT}state: redis://db\n")
    assert load(file, HERE, NOW_S, replica="b").fleet.replica == "b"
    assert load(file, HERE, NOW_S).state_dir == tmp_path / ".headrace/a"
    assert replica_name(None, {"HEADRACE_REPLICA": ""}) == replica_name(None, {})


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "x" * 65, "{a}"])
def test_a_name_that_is_no_name_of_a_folder_is_refused(name):
    with pytest.raises(ConfigError, match=r"--replica: found .* allowed 1 to 64 letters"):
        replica_name(name, {})
    if name:
        with pytest.raises(ConfigError, match="HEADRACE_REPLICA: found"):
            replica_name(None, {"HEADRACE_REPLICA": name})


def test_who_has_the_state_alone_needs_no_name(tmp_path):
    assert configuration(tmp_path, RIGHT, HEADRACE_REPLICA="a/b").fleet is None


def test_static_members_of_a_fleet_are_told_apart_by_name(tmp_path):
    shared = "state: redis://db\n"
    own = with_source("group_instance_id: 'orders-{replica}'")
    [mapping] = configuration(tmp_path, own + shared, **HERE).mappings
    assert mapping.source.group_instance_id == "orders-a"
    [told] = mistakes(tmp_path, with_source("group_instance_id: orders") + shared, **HERE)
    assert told.startswith(
        "headrace.yaml:6: event_source_mappings.m.source.kafka.group_instance_id: found without {rep"
    )
    [told] = mistakes(tmp_path, own, **HERE)
    assert told == (
        "headrace.yaml:6: event_source_mappings.m.source.kafka.group_instance_id: found with {replica} and a state "
        "directory, which one daemon has alone; allowed with state: redis://... only"
    )
    for wrong in ("{replica}-{replica}", "{host}", "a b", "x" * 250):
        [told] = mistakes(tmp_path, with_source(f"group_instance_id: '{wrong}'") + shared, **HERE)
        assert "allowed 1 to 249 letters, digits, ., - and _, and {replica} in them" in told


# --- reload


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ("state: redis://db", "state: redis://:new@db", ("state",)),
        ("state: redis://db", "state: .headrace", ("state",)),
        ("state: .headrace", "state: redis://db", ("state",)),
        ("state: redis://db", "state: redis://db\nlease: 5s\nfleet: other", ("fleet", "lease")),
        ("state: redis://db", "state: redis://db\nlocal: other", ("local",)),
        ("state: redis://db", "state: {redis: {url: redis://db}}", ()),
    ],
)
def test_where_the_state_is_needs_a_restart(tmp_path, before, after, keys):
    old, new = (configuration(tmp_path, f"{RIGHT}{text}\n", **HERE) for text in (before, after))
    assert diff(old, new).need_restart == keys
    assert running(old, new) == old


# --- where the state is, of a file that is wrong elsewhere


def shared(tmp_path, text, **environment):
    return state_of(written(tmp_path, text), {**HERE, **environment}, NOW_S)


def test_a_file_that_is_wrong_elsewhere_still_says_where_the_state_is(tmp_path):
    here = Shared(replace(PLAIN, password=Secret("w")), "west", 5.0, tmp_path / "run")
    keys = "state: redis://:${env:WORD}@db\nfleet: west\nlease: 5s\nlocal: run\n"
    assert shared(tmp_path, f"{RIGHT}{keys}", WORD="w") == here
    assert shared(tmp_path, f"{RIGHT}{keys}listen: 5\n", WORD="w") == here
    assert shared(tmp_path, f"functions: [\n{keys}", WORD="w") == here
    block = "state:\n  redis:\n    url: redis://:w@db\nfleet: west\nlease: 5s\nlocal: run\nfunctions: [\n"
    assert shared(tmp_path, block) == here


def test_half_of_where_the_state_is_says_nothing(tmp_path):
    for keys in ("state: redis://db\nfleet: a b\n", "state: redis://:${env:WORD}@db\n", "state: s3://b\n"):
        with pytest.raises(InvalidConfiguration):
            shared(tmp_path, f"{RIGHT}{keys}listen: 5\n")


def test_a_state_directory_is_one_whatever_else_is_wrong(tmp_path):
    assert shared(tmp_path, "state: here\nfleet: a b\nfunctions: [\n") == tmp_path / "here"
    assert shared(tmp_path, f"{RIGHT}listen: 5\n") == tmp_path / ".headrace"
