"""What a function may be, and how it is changed: requests become versions. Pure.

Rules and texts: AWS Lambda API reference and developer guide ("Defined runtime environment variables", "Lambda
quotas"), and as recorded. Requests have passed the constraints of function_requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from router.api.errors import ApiError, invalid
from router.catalogue.records import Code, Version
from router.core.environment import RESERVED_VARIABLES

_ENVIRONMENT: Final = (
    "Lambda was unable to configure your environment variables because the environment variables you have provided "
)
_ENVIRONMENT_BYTES: Final = 4 * 1024
_RUNTIME: Final = re.compile(r"python3\.[0-9]{1,2}")
#: What can be told of events that failed for good: a queue or topic, neither of them ordered.
_DEAD_LETTER: Final = re.compile(r"arn:[^:]+:(sqs|sns):[^:]*:[^:]*:(?!.*\.fifo$)[^:]+")
#: What S3 has encrypted code with.
CODE_KEY: Final = "SourceKMSKeyArn"
#: What variables are encrypted with.
_VARIABLES_KEY: Final = "KMSKeyArn"
#: Members that nothing here acts on.
_KEPT: Final = (
    CODE_KEY,
    "Architectures",
    "EphemeralStorage",
    "FileSystemConfigs",
    _VARIABLES_KEY,
    "Layers",
    "LoggingConfig",
    "SnapStart",
    "TracingConfig",
    "VpcConfig",
)


def refuse_new(document: Mapping[str, Any]) -> None:
    """Refuse a function that cannot be run here. Raises ApiError."""
    if document.get("PackageType") == "Image" or document["Code"].get("ImageUri"):
        raise invalid("PackageType Image is not supported here: functions come as .zip archives (PackageType Zip).")
    if arn := document.get("CodeSigningConfigArn"):
        raise ApiError(
            "CodeSigningConfigNotFoundException",
            "The code signing configuration cannot be found. "
            f"Check that the provided code signing configuration is not deleted: {arn}.",
            404,
        )
    if not document.get("Runtime") or not document.get("Handler"):
        raise invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
    refuse_settings(document)


def refuse_settings(document: Mapping[str, Any]) -> None:
    """Refuse settings that no function can have here. Raises ApiError."""
    runtime = document.get("Runtime")
    if runtime is not None and not _RUNTIME.fullmatch(runtime):
        raise invalid(f"The runtime {runtime} is not supported here: python3.x is, on the interpreter of the workers.")
    if document.get("ImageConfig"):
        raise invalid("Please don't provide ImageConfig when creating or updating a function with packageType Zip.")
    if "\0" in document.get("Handler", ""):
        raise invalid("The handler has a NUL character, which no worker can be told.")
    _refuse_environment((document.get("Environment") or {}).get("Variables") or {})
    target = (document.get("DeadLetterConfig") or {}).get("TargetArn")
    if target and not _DEAD_LETTER.fullmatch(target):
        raise invalid(f"The dead-letter target {target} is neither a standard SQS queue nor a standard SNS topic.")


def _refuse_environment(variables: Mapping[str, str]) -> None:
    if reserved := [name for name in variables if name in RESERVED_VARIABLES]:
        raise invalid(
            f"{_ENVIRONMENT}contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    if unfit := [name for name, value in variables.items() if "\0" in value]:
        raise invalid(f"{_ENVIRONMENT}contains NUL characters in the values of: {', '.join(unfit)}")
    if len(json.dumps(variables, separators=(",", ":"), ensure_ascii=False).encode()) > _ENVIRONMENT_BYTES:
        raise invalid(f"{_ENVIRONMENT}exceeded the 4KB limit.")


def made(document: Mapping[str, Any], code: Code, *, at_s: float, revision: str) -> Version:
    """Make the first version of a function as CreateFunction describes it."""
    return _settled(
        Version(
            runtime=document["Runtime"],
            handler=document["Handler"],
            role=document["Role"],
            code=code,
            modified_s=at_s,
            revision=revision,
        ),
        document,
    )


def changed(version: Version, document: Mapping[str, Any], *, at_s: float, revision: str) -> Version:
    """Change what UpdateFunctionConfiguration names; the rest stays."""
    return _settled(replace(version, modified_s=at_s, revision=revision), document)


def _settled(version: Version, document: Mapping[str, Any]) -> Version:
    given = {name: value for name, value in document.items() if value is not None}
    changes: dict[str, Any] = {
        field: given[name]
        for field, name in (
            ("runtime", "Runtime"),
            ("handler", "Handler"),
            ("role", "Role"),
            ("description", "Description"),
            ("timeout_s", "Timeout"),
            ("memory_mb", "MemorySize"),
        )
        if name in given
    }
    if "DeadLetterConfig" in given:
        changes["dead_letter_arn"] = given["DeadLetterConfig"].get("TargetArn") or None
    if "Environment" in given:
        changes["environment"] = dict(given["Environment"].get("Variables") or {})
    kept = _kept(version.kept, given)
    if not changes.get("environment", version.environment):
        kept.pop(_VARIABLES_KEY, None)  # as on AWS: there is nothing that it would encrypt
    return replace(version, **changes, kept=kept)


def _kept(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    kept = {**before, **{name: given[name] for name in _KEPT if name in given}}
    if "LoggingConfig" in given:
        kept["LoggingConfig"] = {**before.get("LoggingConfig", {}), **given["LoggingConfig"]}
    return {name: value for name, value in kept.items() if not _is_empty(name, value)}


def _is_empty(name: str, value: Any) -> bool:
    """Is it what takes a setting away?"""
    if name == "VpcConfig":
        return not value.get("SubnetIds") and not value.get("SecurityGroupIds")
    return not value
