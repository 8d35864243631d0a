"""What the API shows, and the inbox goes by, of events of a function that the file defines."""

from __future__ import annotations

from pathlib import Path

from router.api.names import Here
from router.catalogue.records import InvokeConfig
from router.effective import shown_functions
from tests.core.configured import configuration

HERE = Here("eu-west-1", "111122223333")


def test_what_the_file_says_of_events_is_shown_with_arns_of_here(tmp_path: Path) -> None:
    text = """\
functions:
  f:
    handler: app.handle
    code: .
    event_invoke_config:
      maximum_retry_attempts: 0
      destination_config: {on_success: {function: g}, on_failure: {s3: {bucket: failed}}}
    dead_letter_config: {target_arn: "arn:aws:sqs:eu-west-1:123456789012:q"}
  g: {handler: app.handle, code: ., dead_letter_config: {target_arn: "arn:aws:sns:eu-west-1:123456789012:t"}}
  h: {handler: app.handle, code: .}
event_source_mappings:
  m: {function: f, source: {sqs: {queue: orders}}}
"""
    shown = shown_functions(configuration(tmp_path, text), HERE)
    assert shown["f"].invoke_configs == {
        "$LATEST": InvokeConfig(
            maximum_retry_attempts=0,
            on_success="arn:aws:lambda:eu-west-1:111122223333:function:g",
            on_failure="arn:aws:s3:::failed",
        )
    }
    assert shown["f"].latest.dead_letter_arn == "arn:aws:sqs:eu-west-1:123456789012:q"
    assert shown["g"].invoke_configs == {}
    assert shown["g"].latest.dead_letter_arn == "arn:aws:sns:eu-west-1:123456789012:t"
    assert shown["h"].latest.dead_letter_arn is None
    assert all(each.is_of_file for each in shown.values())
