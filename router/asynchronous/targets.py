"""Who is told of an asynchronous event that is done with. Pure.

Source of the rules: AWS Lambda developer guide, "Asynchronous invocation": the config of what was invoked (function,
version or alias) names a destination for successes and one for failures; the dead-letter queue is a setting of each
version, which keeps the one that it was published with. Where both are set for a failure, both are told. What was
invoked may be gone by then: a version that is gone had, as far as is known, the queue of the function as it is now.
"""

from __future__ import annotations

from typing import Final

from router.api.names import Here
from router.catalogue.records import LATEST, Function, Version
from router.core.asynchronous import AsyncEvent, Condition, Settled

ON_SUCCESS: Final = "on_success"
ON_FAILURE: Final = "on_failure"
DEAD_LETTER: Final = "dead_letter"


def targets_of(settled: Settled, function: Function) -> tuple[str, ...]:
    """Name who is to be told, each as `kind arn`."""
    config = function.invoke_configs.get(settled.event.qualifier or LATEST)
    if settled.condition is Condition.SUCCESS:
        named = [(ON_SUCCESS, config.on_success if config else None)]
    else:
        queue = _version(settled.event, function).dead_letter_arn
        named = [(ON_FAILURE, config.on_failure if config else None), (DEAD_LETTER, queue)]
    return tuple(f"{kind} {arn}" for kind, arn in named if arn)


def read_target(target: str) -> tuple[str, str]:
    """Give the kind of a target, and its ARN."""
    kind, _, arn = target.partition(" ")
    return kind, arn


def shown(targets: tuple[str, ...]) -> str | None:
    """Name targets for people, as destinations of mappings are named: "sqs:orders-dlq"; None = there are none."""
    arns = [read_target(each)[1] for each in targets]
    return ", ".join(f"{arn.split(':')[2]}:{arn.split(':', 5)[5]}" for arn in arns) or None


def _version(event: AsyncEvent, function: Function) -> Version:
    """Give the version that ran last, or that would have."""
    ran = event.last.executed_version if event.last else None
    alias = function.aliases.get(event.qualifier or "")
    for number in (ran, event.qualifier, alias and alias.version):
        found = function.version(number) if number else None
        if found:
            return found
    return function.latest


def arn_of(place: str, here: Here) -> str:
    """Give the ARN of a place that a file names: one already, or `sqs:NAME` and the like, of our region and account."""
    if place.startswith("arn:"):
        return place
    service, _, resource = place.partition(":")
    if service == "s3":
        return f"arn:{here.partition}:s3:::{resource}"
    return f"arn:{here.partition}:{service}:{here.region}:{here.account_id}:{resource}"


def function_here(arn: str, here: Here) -> tuple[str, str | None] | None:
    """Give name and qualifier of a function that an ARN of our region and account means; None = it is no such ARN."""
    parts = arn.split(":")
    if len(parts) not in (7, 8) or parts[2] != "lambda" or parts[3:6] != [here.region, here.account_id, "function"]:
        return None
    return parts[6], parts[7] if len(parts) == 8 else None
