"""What the `api` block and an `aws.account_id` come to, and what a reload does about them."""

from config.diff import diff, running
from config.settings import ApiKey, ApiSettings
from connectors.settings import Secret
from tests.core.configured import RIGHT, configuration

KEYS = """\
listen: 0.0.0.0:9301
api:
  strict: false
  metrics_token: ${env:TOKEN}
  keys:
    - {access_key_id: AKIA, secret_access_key: "${env:SECRET}"}
    - {access_key_id: BUCKETS, secret_access_key: "${env:SECRET}", service: s3.amazonaws.com}
"""
ENVIRONMENT = {"TOKEN": "0123456789abcdef", "SECRET": "abcdef/0123456789"}
SECRET = Secret(ENVIRONMENT["SECRET"])


def test_keys_bring_their_secrets_and_let_others_in(tmp_path):
    made = configuration(tmp_path, RIGHT + KEYS, **ENVIRONMENT)
    assert made.listen_host == "0.0.0.0"
    keys = (ApiKey("AKIA", SECRET), ApiKey("BUCKETS", SECRET, "s3.amazonaws.com"))
    assert made.api == ApiSettings(strict=False, keys=keys, metrics_token=Secret(ENVIRONMENT["TOKEN"]))
    assert ENVIRONMENT["SECRET"] not in repr(made)


def test_a_file_may_leave_everything_to_the_api(tmp_path):
    for text in ("{}", "functions:\nevent_source_mappings: {}\n", "state: ./here\n"):
        made = configuration(tmp_path, text)
        assert (dict(made.functions), made.mappings, made.api) == ({}, (), ApiSettings())


def test_an_account_is_twelve_digits_also_as_a_number(tmp_path):
    for text in ("123456789012", '"012345678901"', "012345678901"):
        assert configuration(tmp_path, f"aws: {{account_id: {text}}}").aws.account_id == text.strip('"')
    assert configuration(tmp_path, "{}").aws.account_id == "000000000000"


def test_keys_are_taken_on_at_once_and_where_we_listen_is_not(tmp_path):
    old = configuration(tmp_path, RIGHT)
    new = configuration(tmp_path, RIGHT + KEYS, **ENVIRONMENT)
    changes = diff(old, new)
    assert (changes.taken_on, changes.need_restart) == (("api",), ("listen",))
    assert (running(old, new).api, running(old, new).listen_host) == (new.api, "127.0.0.1")
