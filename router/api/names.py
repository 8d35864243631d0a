"""How functions are named: by name, ARN or the end of one, with a version or alias behind; and what that stands for.

Forms, lengths and texts: AWS Lambda API reference ("FunctionName", "Qualifier"), and as recorded. A name is resolved
anew each time something is to be invoked, so that an alias that moves is followed, and a function that is gone missed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from router.api.constraints import Text, broke, detected
from router.api.errors import ApiError, denied, invalid, not_found, violated
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import LATEST, Function
from router.core.model import partition_of

_REGION: Final = r"(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}"
_BEGINNING: Final = rf"(arn:(aws[a-zA-Z-]*)?:lambda:)?({_REGION}:)?(\d{{12}}:)?(function:)?"
#: As operations name functions that may be of any version, and those that change them.
_READING: Final = rf"{_BEGINNING}([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
_CHANGING: Final = rf"{_BEGINNING}([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
_LENGTH: Final = 256
_CREATE_LENGTH: Final = 140
_NAME_LENGTH: Final = 64
QUALIFIER: Final = Text(low=1, high=128, pattern=r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+")

#: A whole ARN also of a region that is none of AWS's, for stand-ins may be told any.
_FORMS: Final = re.compile(
    rf"(?P<arn>arn:[^:]*:lambda:(?P<arn_region>[a-z0-9-]+):(?P<arn_account>\d{{12}}):function:)?"
    rf"(?(arn)|(((?P<region>{_REGION}):)?((?P<account>\d{{12}}):)?(function:)?))"
    r"(?P<name>[a-zA-Z0-9-_]+)(:(?P<qualifier>\$LATEST|[a-zA-Z0-9-_]+))?"
)

REVISION: Final = (
    "The Revision Id provided does not match the latest Revision Id. Call the {} API to retrieve the latest Revision Id"
)


@dataclass(frozen=True, slots=True)
class Here:
    """Where the API says that it is: what is in the ARNs that it makes."""

    region: str
    account_id: str

    @property
    def partition(self) -> str:
        """Give the part of AWS that the region is in."""
        return partition_of(self.region)

    def function(self, name: str, qualifier: str | None = None) -> str:
        """Give the ARN of a function, or of a version or alias of it."""
        return self._arn(f"function:{name}" + (f":{qualifier}" if qualifier else ""))

    def mapping(self, uuid: str) -> str:
        """Give the ARN of an event source mapping."""
        return self._arn(f"event-source-mapping:{uuid}")

    def _arn(self, resource: str) -> str:
        return f"arn:{self.partition}:lambda:{self.region}:{self.account_id}:{resource}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A function as a caller names it."""

    name: str
    #: Version, alias or LATEST; None = it does not say.
    qualifier: str | None = None
    #: Was it a whole ARN, from `arn:` on?
    is_arn: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference stands for now."""

    function: Function
    #: Numbers of versions, or LATEST, each with its share of the invocations; the shares make 1.
    versions: Mapping[str, float]
    #: As it was invoked: with the qualifier where there was one.
    arn: str

    def version(self, draw: float) -> str:
        """Choose a version by a number from 0 to 1, without 1."""
        for number, share in self.versions.items():
            if draw < share:
                return number
            draw -= share
        return next(iter(self.versions))


@lru_cache(maxsize=1024)  # what is no name is not kept, so each is short
def parse(
    text: str, here: Here, qualifier: str | None = None, *, is_read: bool = False, is_new: bool = False
) -> Reference:
    """Read a FunctionName, and the Qualifier that came beside it.

    Args:
        text: in whatever form.
        here: what an ARN must be of.
        qualifier: None = none came.
        is_read: does the operation only read or invoke? Its constraint reads differently.
        is_new: is it the name of a function to be created?

    Raises:
        ApiError: it is no such name, of another account or region, or the two contradict each other.
    """
    found = _FORMS.fullmatch(text)
    broken = _broken(text, found, is_read=is_read, is_new=is_new)
    if qualifier is not None:
        broken += [broke(qualifier, "qualifier", each) for each in QUALIFIER.broken(qualifier)]
    if broken or found is None:
        # Recorded: a plain name that is no good for a new function is refused with another code.
        raise (invalid if is_new and ":" not in text else violated)(detected(broken))
    _refuse_elsewhere(found, here)
    within = found["qualifier"]
    if qualifier and within and qualifier != within:
        raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
    return Reference(found["name"], qualifier or within, found["arn"] is not None)


def _broken(text: str, found: re.Match[str] | None, *, is_read: bool, is_new: bool) -> list[str]:
    constraints = []
    if found is None:
        pattern = _READING if is_read else _CHANGING
        constraints.append(f"Member must satisfy regular expression pattern: {pattern}")
    is_plain = ":" not in text
    most = (_NAME_LENGTH if is_plain else _CREATE_LENGTH) if is_new else _LENGTH
    constraints += Text(low=1, high=most).broken(text)
    if is_new and not constraints and found and len(found["name"]) > _NAME_LENGTH:
        constraints += Text(high=_NAME_LENGTH).broken(found["name"])
    return [broke(text, "functionName", each) for each in constraints]


def _refuse_elsewhere(found: re.Match[str], here: Here) -> None:
    account = found["arn_account"] or found["account"]
    region = found["arn_region"] or found["region"]
    if account and account != here.account_id:
        raise denied(f"The account {account} is not served here, but {here.account_id}.")
    if region and region != here.region:
        raise not_found(f"Functions from '{region}' are not reachable in this region ('{here.region}')")


def resolve(catalogue: Catalogue, reference: Reference, here: Here) -> Resolved:
    """Say what a reference stands for now.

    Raises:
        ApiError: 404, there is no such function, version or alias.
    """
    function = catalogue.function(reference.name)
    arn = here.function(reference.name, reference.qualifier)
    if function is None:
        raise missing(arn)
    return Resolved(function, _versions(function, reference.qualifier or LATEST, arn), arn)


def _versions(function: Function, qualifier: str, arn: str) -> Mapping[str, float]:
    if function.version(qualifier):
        return {qualifier: 1.0}
    alias = function.aliases.get(qualifier)
    if alias is None or function.version(alias.version) is None:
        raise missing(arn)
    return {alias.version: 1.0 - sum(alias.weights.values()), **alias.weights}


def missing(arn: str) -> ApiError:
    """Say that there is no such function, version or alias."""
    return not_found(f"Function not found: {arn}")


def is_version(qualifier: str) -> bool:
    """Can it be the number of a version? Then it is no alias."""
    return qualifier.isascii() and qualifier.isdigit()


def revised(api: str) -> ApiError:
    """Refuse a change on the condition of a RevisionId that has passed; `api` gives the latest."""
    return ApiError("PreconditionFailedException", REVISION.format(api), 412)
