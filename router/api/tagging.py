"""Tags: which there may be (AWS Lambda developer guide, "Using tags on Lambda functions"). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from router.api.errors import invalid

#: Of one resource, at most.
TAGS_COUNT: Final = 50


def refuse_tags(tags: Mapping[str, str]) -> None:
    """Refuse tags that a resource cannot have, all together. Raises ApiError."""
    if len(tags) > TAGS_COUNT:
        raise invalid("Number of tags exceeds resource tag limit.")
