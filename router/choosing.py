"""What an invocation by name goes to: the version that a name, version or alias stands for at that moment.

Of an alias with weights each invocation draws anew (AWS Lambda developer guide, "Create an alias with weighted
routing"). The handler is told of the ARN that was invoked, which is no news where it is that of the version.
"""

from __future__ import annotations

from random import Random

from router.api.errors import ApiError
from router.api.names import Here, Reference, Resolved, resolve
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import LATEST
from router.core.model import FunctionError
from router.functions import NOT_FOUND, Chosen
from router.ports import Told


def choose(catalogue: Catalogue, reference: Reference, here: Here, rng: Random) -> Chosen | FunctionError:
    """Choose what an invocation goes to; an error where the name stands for nothing."""
    try:
        resolved = resolve(catalogue, reference, here)
    except ApiError as error:
        return FunctionError(NOT_FOUND, str(error))
    version = resolved.version(rng.random())
    arn = told_arn(resolved, version, here)
    return Chosen(resolved.function.name, version, Told(arn) if arn else None)


def told_arn(resolved: Resolved, version: str, here: Here) -> str | None:
    """Give the ARN that the handler is to be told; None = it is the one that the workers of the version know."""
    own = here.function(resolved.function.name, None if version == LATEST else version)
    return None if resolved.arn == own else resolved.arn
