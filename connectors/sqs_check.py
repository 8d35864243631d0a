"""Looks at a queue without receiving anything: can we reach it, and do its settings fit the function?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from connectors.settings import SqsSettings, queue_name
from connectors.sqs_queue import describe, find_queue
from router.errors import SourceUnavailable

#: Visibility timeout that AWS recommends, in timeouts of the function.
_RECOMMENDED: Final = 6


async def check_sqs(settings: SqsSettings, function_timeout_s: float) -> str:
    """Reach the queue and say what was found.

    Raises:
        SourceUnavailable: it cannot be reached, or a message would be visible again while the function still runs;
            the message says what to do.
    """
    queue = await find_queue(settings)
    if queue.state.visibility_s < function_timeout_s:
        raise SourceUnavailable(
            # Up to the semicolon in AWS Lambda's own words.
            f"{describe(settings)}: Queue visibility timeout: {queue.state.visibility_s} seconds is less than "
            f"Function timeout: {function_timeout_s:g} seconds; raise the first (AWS recommends {_RECOMMENDED} times "
            "the function's), or lower the second"
        )
    return (
        f"queue {queue_name(settings.queue)}: messages waiting: about {queue.state.waiting}; visibility timeout "
        f"{queue.state.visibility_s} s; {_redrive(queue.attributes)}"
    )


def _redrive(attributes: Mapping[str, str]) -> str:
    if "RedrivePolicy" not in attributes:
        return "no redrive policy, so that what always fails comes back until its retention ends"
    policy = json.loads(attributes["RedrivePolicy"])
    return f"after {policy['maxReceiveCount']} receives to {queue_name(policy['deadLetterTargetArn'])}"
