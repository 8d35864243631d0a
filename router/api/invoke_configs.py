"""The operations about event-invoke configs: how events of a function, version or alias are treated, and who hears.

Ranges: AWS Lambda API reference. Texts, their order, and what is absent or empty in answers: as recorded on AWS. What
has no recording: a queue or topic in order is refused like a destination that does not exist, a bucket for successes
like a destination of no known kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import structs

from router.api.call import Answer, Call, Carry
from router.api.constraints import Number, Structure, Text, check
from router.api.errors import ApiError, invalid, not_found
from router.api.finding import refuse_of_file
from router.api.names import Here, Reference, parse
from router.api.pages import page
from router.api.parts import Parts
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import LATEST, Function, InvokeConfig

_ARN: Final = (
    r"$|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|"
    r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
)
_PLACE: Final = Structure({"Destination": Text(low=0, high=350, pattern=_ARN)})
_SHAPE: Final = Structure(
    {
        "MaximumRetryAttempts": Number(0, 2),
        "MaximumEventAgeInSeconds": Number(60, 21600),
        "DestinationConfig": Structure({"OnSuccess": _PLACE, "OnFailure": _PLACE}),
    }
)
#: Configs on a page of a list.
_PAGE: Final = 50
_MAX_ITEMS: Final = Number(1, _PAGE)
#: Parts of a function's ARN before its version or alias.
_NAME_PART: Final = 6
#: Services that a destination may be of (AWS Lambda developer guide, "Capturing records of asynchronous invocations").
_SERVICES: Final = {
    "OnSuccess": ("events", "lambda", "sns", "sqs"),
    "OnFailure": ("events", "lambda", "s3", "sns", "sqs"),
}
_NOTHING: Final = "You must specify at least one of error handling or destination setting."
_NO_FUNCTION: Final = "The function doesn't exist."
_ITSELF: Final = "You can't specify the function as a destination for itself."


class InvokeConfigs:
    """The five operations."""

    def __init__(self, parts: Parts) -> None:
        """Make them; nothing is read or written before one is called."""
        self._parts = parts
        self.operations: Mapping[str, Carry] = {
            "PutFunctionEventInvokeConfig": self._put,
            "UpdateFunctionEventInvokeConfig": self._update,
            "GetFunctionEventInvokeConfig": self._get,
            "DeleteFunctionEventInvokeConfig": self._delete,
            "ListFunctionEventInvokeConfigs": self._list,
        }

    async def _put(self, call: Call) -> Answer:
        return await self._write(call, merges=False)

    async def _update(self, call: Call) -> Answer:
        return await self._write(call, merges=True)

    async def _get(self, call: Call) -> Answer:
        reference = self._reference(call)
        function = self._parts.catalogue.function(reference.name)
        return Answer(document=self._shown(reference.name, *self._found(function, reference)))

    async def _delete(self, call: Call) -> Answer:
        reference = self._reference(call)
        catalogue = self._parts.catalogue
        async with catalogue.changing(reference.name):
            function = catalogue.function(reference.name)
            qualifier, _ = self._found(function, reference)
            assert function is not None, "it has a config"
            refuse_of_file(self._parts, function)
            left = {each: config for each, config in function.invoke_configs.items() if each != qualifier}
            await catalogue.put_function(_with(function, left))
        return Answer(204)

    async def _list(self, call: Call) -> Answer:
        reference = self._reference(call)
        function = self._parts.catalogue.function(reference.name)
        if function is None:
            raise not_found(_NO_FUNCTION)
        items = {each: self._shown(function.name, each, config) for each, config in function.invoke_configs.items()}
        shown, more = page(call, items, _PAGE, _MAX_ITEMS)
        return Answer(document={"FunctionEventInvokeConfigs": shown, **more})

    async def _write(self, call: Call, *, merges: bool) -> Answer:
        check(_SHAPE, call.document)
        reference = self._reference(call)
        if not any(call.document.get(member) is not None for member in _SHAPE.members):
            raise invalid(_NOTHING)
        catalogue = self._parts.catalogue
        async with catalogue.changing(reference.name):
            function = catalogue.function(reference.name)
            qualifier = reference.qualifier or LATEST
            if function is None or not _has(function, qualifier):
                raise not_found(_NO_FUNCTION)
            refuse_of_file(self._parts, function)
            former = self._found(function, reference)[1] if merges else InvokeConfig()
            check_destinations(call.document.get("DestinationConfig") or {}, function.name, catalogue, self._parts.here)
            config = _configured(call.document, former, self._parts.wall())
            await catalogue.put_function(_with(function, {**function.invoke_configs, qualifier: config}))
        return Answer(document=self._shown(function.name, qualifier, config))

    def _reference(self, call: Call) -> Reference:
        return parse(call.path["FunctionName"], self._parts.here, call.one("Qualifier"), is_read=True)

    def _found(self, function: Function | None, reference: Reference) -> tuple[str, InvokeConfig]:
        """Give the config that is meant, and its qualifier. Raises ApiError: there is none."""
        qualifier = reference.qualifier or LATEST
        config = function.invoke_configs.get(qualifier) if function else None
        if config is None:
            arn = self._parts.here.function(reference.name, qualifier)
            raise not_found(f"The function {arn} doesn't have an EventInvokeConfig")
        return qualifier, config

    def _shown(self, name: str, qualifier: str, config: InvokeConfig) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "LastModified": round(config.modified_s, 3),
            "FunctionArn": self._parts.here.function(name, qualifier),
            "DestinationConfig": {"OnSuccess": _place(config.on_success), "OnFailure": _place(config.on_failure)},
        }
        if config.maximum_event_age_s is not None:
            shown["MaximumEventAgeInSeconds"] = config.maximum_event_age_s
        if config.maximum_retry_attempts is not None:
            shown["MaximumRetryAttempts"] = config.maximum_retry_attempts
        return shown


def check_destinations(given: Mapping[str, Any], name: str, catalogue: Catalogue, here: Here) -> None:
    """Refuse destinations that a function cannot have.

    Args:
        given: DestinationConfig; its ARNs have the form of one.
        name: of the function.
        catalogue: has all functions that are here.
        here: what their ARNs are made of.

    Raises:
        ApiError
    """
    arns = {member: _destination(given, member) for member in _SERVICES}
    for member, arn in arns.items():
        if arn is None:
            continue
        service = arn.split(":")[2] if arn.startswith("arn:") else ""
        if service not in _SERVICES[member]:
            raise _unfit(arns)
        if arn.endswith(".fifo") or (service == "lambda" and not _may_be_there(arn, catalogue, here)):
            raise invalid(f"The destination ARN {arn} is invalid.")
        if service == "lambda" and _is_here(arn, here) and arn.split(":")[_NAME_PART] == name:
            raise invalid(_ITSELF)


def _destination(given: Mapping[str, Any], member: str) -> str | None:
    return (given.get(member) or {}).get("Destination") or None


def _unfit(arns: Mapping[str, str | None]) -> ApiError:
    failure, success = (
        f"{member}(destination={arns[member]})" if arns[member] else "null" for member in ("OnFailure", "OnSuccess")
    )
    config = f"DestinationConfig(onSuccess={success}, onFailure={failure})"
    return invalid(f"The provided destination config {config} is invalid.")


def _may_be_there(arn: str, catalogue: Catalogue, here: Here) -> bool:
    """Is a function ours, or one that is deployed elsewhere?"""
    parts = arn.split(":")
    if len(parts) <= _NAME_PART or parts[_NAME_PART - 1] != "function":
        return False
    return not _is_here(arn, here) or catalogue.function(parts[_NAME_PART]) is not None


def _is_here(arn: str, here: Here) -> bool:
    return arn.split(":")[3:5] == [here.region, here.account_id]


def _configured(document: Mapping[str, Any], former: InvokeConfig, now_s: float) -> InvokeConfig:
    """Give the config that a request asks for; what it does not mention stays as it was."""
    retries, age_s = document.get("MaximumRetryAttempts"), document.get("MaximumEventAgeInSeconds")
    places = document.get("DestinationConfig")
    return InvokeConfig(
        maximum_retry_attempts=former.maximum_retry_attempts if retries is None else retries,
        maximum_event_age_s=former.maximum_event_age_s if age_s is None else age_s,
        on_success=former.on_success if places is None else _destination(places, "OnSuccess"),
        on_failure=former.on_failure if places is None else _destination(places, "OnFailure"),
        modified_s=now_s,
    )


def _has(function: Function, qualifier: str) -> bool:
    return function.version(qualifier) is not None or qualifier in function.aliases


def _with(function: Function, configs: Mapping[str, InvokeConfig]) -> Function:
    return structs.replace(function, invoke_configs=dict(configs))


def _place(arn: str | None) -> dict[str, str]:
    return {"Destination": arn} if arn else {}
