"""Functions as the API answers them: FunctionConfiguration, members and defaults as recorded. Pure."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from typing import Any, Final

from router.api.names import Here
from router.catalogue.records import Code, Function, Version

#: What stands for the value of a variable of the file, which may be a secret.
MASK: Final = "****"

#: What is said of a function's state: as it is made, while it is changed, and otherwise.
PENDING: Final = {"State": "Pending", "StateReason": "The function is being created.", "StateReasonCode": "Creating"}
UPDATING: Final = {
    "State": "Active",
    "LastUpdateStatus": "InProgress",
    "LastUpdateStatusReason": "The function is being created.",
    "LastUpdateStatusReasonCode": "Creating",
}
ACTIVE: Final = {"State": "Active", "LastUpdateStatus": "Successful"}


def configuration(
    function: Function, version: Version, here: Here, qualifier: str | None = None, state: Mapping[str, str] = ACTIVE
) -> dict[str, Any]:
    """Give what is known of a version.

    Args:
        function: whose it is.
        version: the one.
        here: for ARNs.
        qualifier: what its ARN ends with; None = nothing.
        state: one of those above.
    """
    return {
        **listed(function, version, here, qualifier),
        **state,
        "RuntimeVersionConfig": {"RuntimeVersionArn": _runtime_arn(version.runtime, here)},
    }


def listed(function: Function, version: Version, here: Here, qualifier: str | None = None) -> dict[str, Any]:
    """Give what lists say of a version: all but its state."""
    return {
        "FunctionName": function.name,
        "FunctionArn": here.function(function.name, qualifier),
        "Runtime": version.runtime,
        "Role": version.role,
        "Handler": version.handler,
        "CodeSize": version.code.size_bytes,
        **_code_hash(version.code),
        "Description": version.description,
        "Timeout": version.timeout_s,
        "MemorySize": version.memory_mb,
        "LastModified": stamp(version.modified_s),
        "Version": version.number,
        "RevisionId": version.revision,
        "PackageType": "Zip",
        "Architectures": version.kept.get("Architectures", ["x86_64"]),
        "EphemeralStorage": version.kept.get("EphemeralStorage", {"Size": 512}),
        "TracingConfig": {"Mode": "PassThrough", **version.kept.get("TracingConfig", {})},
        "SnapStart": _snap_start(version),
        "LoggingConfig": _logging(function.name, version.kept.get("LoggingConfig", {})),
        **_optional(function, version),
    }


def _optional(function: Function, version: Version) -> dict[str, Any]:
    """Give the members that are there only where something was said."""
    kept = version.kept
    found: dict[str, Any] = {name: kept[name] for name in ("FileSystemConfigs", "KMSKeyArn") if name in kept}
    if version.environment:
        masked = dict.fromkeys(version.environment, MASK)
        found["Environment"] = {"Variables": masked if function.is_of_file else version.environment}
    if version.dead_letter_arn:
        found["DeadLetterConfig"] = {"TargetArn": version.dead_letter_arn}
    if "VpcConfig" in kept:
        found["VpcConfig"] = {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": "", **kept["VpcConfig"]}
    if "Layers" in kept:
        found["Layers"] = [{"Arn": arn, "CodeSize": 0} for arn in kept["Layers"]]
    return found


def _snap_start(version: Version) -> dict[str, str]:
    apply_on = version.kept.get("SnapStart", {}).get("ApplyOn", "None")
    is_on = apply_on == "PublishedVersions" and version.number.isdigit()
    return {"ApplyOn": apply_on, "OptimizationStatus": "On" if is_on else "Off"}


def _logging(name: str, given: Mapping[str, str]) -> dict[str, str]:
    document = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}", **given}
    if document["LogFormat"] == "JSON":
        return {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO", **document}
    return {key: document[key] for key in ("LogFormat", "LogGroup")}


def _code_hash(code: Code) -> dict[str, str]:
    """Give the hash of an archive; the content of a folder has none, for it changes."""
    return {"CodeSha256": shown_hash(code)} if code.sha256 else {}


def shown_hash(code: Code) -> str:
    """Give a hash in the API's notation."""
    return base64.b64encode(bytes.fromhex(code.sha256)).decode()


def _runtime_arn(runtime: str, here: Here) -> str:
    return f"arn:{here.partition}:lambda:{here.region}::runtime:{hashlib.sha256(runtime.encode()).hexdigest()}"


def stamp(at_s: float) -> str:
    """Write wall time as the API does: `2026-11-30T17:00:00.000+0000`."""
    millis = round(at_s * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(millis // 1000))}.{millis % 1000:03d}+0000"
