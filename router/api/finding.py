"""Functions as operations find them: there is one, the API may change it, and it is still as it was known."""

from __future__ import annotations

from router.api.call import Call
from router.api.errors import invalid, of_file
from router.api.names import Reference, missing, parse, revised
from router.api.parts import Parts
from router.catalogue.records import LATEST, Function


def named(parts: Parts, call: Call, *, is_read: bool = False) -> Reference:
    """Read which function an operation is on, in which version or alias. Raises ApiError."""
    return parse(call.path["FunctionName"], parts.here, call.one("Qualifier"), is_read=is_read)


def named_whole(parts: Parts, call: Call) -> str:
    """Read the name of the function that an operation is on as a whole, not in a version. Raises ApiError."""
    reference = parse(call.path["FunctionName"], parts.here)
    if reference.qualifier not in (None, LATEST):
        raise invalid(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
            "Please specify either a function name or an unqualified function ARN."
        )
    return reference.name


def find(parts: Parts, name: str, qualifier: str | None = None) -> Function:
    """Give a function. Raises ApiError, which names the ARN with the qualifier: there is none of that name."""
    function = parts.catalogue.function(name)
    if function is None:
        raise missing(parts.here.function(name, qualifier))
    return function


def find_ours(parts: Parts, name: str, qualifier: str | None = None) -> Function:
    """Give a function that the API may change. Raises ApiError: there is none, or it is of the file."""
    function = find(parts, name, qualifier)
    refuse_of_file(parts, function)
    return function


def refuse_of_file(parts: Parts, function: Function) -> None:
    """Refuse to change a function of the file. Raises ApiError."""
    if function.is_of_file:
        raise of_file("Function", function.name, parts.file)


def refuse_changed(wanted: str | None, latest: str, api: str = "GetFunction/GetAlias") -> None:
    """Refuse a change that is wanted only of one revision. Raises ApiError."""
    if wanted and wanted != latest:
        raise revised(api)
