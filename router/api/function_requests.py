"""What requests about functions may hold: shapes of the service's model (AWS Lambda API reference).

Only what a request says is here; what it means together is in function_rules.
"""

from __future__ import annotations

from typing import Any, Final

from router.api.constraints import Flag, Listed, Map, Number, Structure, Text

_ARN: Final = r"(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()"
_DESCRIPTION: Final = Text(0, 256)
_ARCHITECTURES: Final = Listed(Text(words=("x86_64", "arm64")), 1, 1)
TAGS: Final = Map(Text(1, 128, r"[\w\s\d_.:/=+\-@]*"), Text(0, 256, r"[\w\s\d_.:/=+\-@]*"))
MAX_ITEMS: Final = Number(1, 10_000)
VERSION: Final = Text(1, 1024, r"(\$LATEST(\.PUBLISHED)?|[0-9]+)")

_CODE: Final[dict[str, Any]] = {
    "ZipFile": Text(),
    "S3Bucket": Text(3, 63, r"[0-9A-Za-z\.\-_]*(?<!\.)"),
    "S3Key": Text(1, 1024),
    "S3ObjectVersion": Text(1, 1024),
    "ImageUri": Text(),
    "SourceKMSKeyArn": Text(pattern=_ARN),
}

_SETTINGS: Final[dict[str, Any]] = {
    "Runtime": Text(),
    "Role": Text(pattern=r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"),
    "Handler": Text(0, 128, r"[^\s]+"),
    "Description": _DESCRIPTION,
    "Timeout": Number(1, 900),
    "MemorySize": Number(128, 10_240),
    "VpcConfig": Structure(
        {
            "SubnetIds": Listed(Text(0, 1024, r"subnet-[0-9a-z]*"), 0, 16),
            "SecurityGroupIds": Listed(Text(0, 1024, r"sg-[0-9a-zA-Z]*"), 0, 5),
            "Ipv6AllowedForDualStack": Flag(),
        }
    ),
    "DeadLetterConfig": Structure({"TargetArn": Text(pattern=_ARN)}),
    "Environment": Structure(
        {"Variables": Map(Text(pattern=r"[a-zA-Z]([a-zA-Z0-9_])+"), Text(), is_secret=True)},
    ),
    "KMSKeyArn": Text(pattern=_ARN),
    "TracingConfig": Structure({"Mode": Text(words=("Active", "PassThrough"))}),
    "Layers": Listed(Text(1, 140)),
    "FileSystemConfigs": Listed(
        Structure(
            {"Arn": Text(0, 200), "LocalMountPath": Text(0, 160, r"/mnt/[a-zA-Z0-9-_.]+")},
            required=("Arn", "LocalMountPath"),
        ),
        0,
        1,
    ),
    "ImageConfig": Structure(),
    "EphemeralStorage": Structure({"Size": Number(512, 10_240)}, required=("Size",)),
    "SnapStart": Structure({"ApplyOn": Text(words=("PublishedVersions", "None"))}),
    "LoggingConfig": Structure(
        {
            "LogFormat": Text(words=("JSON", "Text")),
            "ApplicationLogLevel": Text(words=("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")),
            "SystemLogLevel": Text(words=("DEBUG", "INFO", "WARN")),
            "LogGroup": Text(1, 512, r"[\.\-_/#A-Za-z0-9]+"),
        }
    ),
}

CREATE: Final = Structure(
    {
        "FunctionName": Text(),
        **_SETTINGS,
        "Code": Structure(_CODE),
        "Publish": Flag(),
        "PackageType": Text(words=("Zip", "Image")),
        "Tags": TAGS,
        "CodeSigningConfigArn": Text(0, 200),
        "Architectures": _ARCHITECTURES,
    },
    required=("FunctionName", "Role", "Code"),
)
UPDATE_CONFIGURATION: Final = Structure({**_SETTINGS, "RevisionId": Text()})
UPDATE_CODE: Final = Structure(
    {**_CODE, "Publish": Flag(), "DryRun": Flag(), "RevisionId": Text(), "Architectures": _ARCHITECTURES}
)
PUBLISH: Final = Structure({"CodeSha256": Text(), "Description": _DESCRIPTION, "RevisionId": Text()})

_ALIAS: Final[dict[str, Any]] = {
    "FunctionVersion": VERSION,
    "Description": _DESCRIPTION,
    "RoutingConfig": Structure(
        {"AdditionalVersionWeights": Map(Text(1, 1024, "[0-9]+"), Number(0.0, 1.0, is_float=True))}
    ),
}
_ALIAS_NAME: Final = Text(1, 128, r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)")
CREATE_ALIAS: Final = Structure({"Name": _ALIAS_NAME, **_ALIAS}, required=("Name", "FunctionVersion"))
UPDATE_ALIAS: Final = Structure({"Name": _ALIAS_NAME, **_ALIAS, "RevisionId": Text()}, required=("Name",))
LIST_ALIASES: Final = Structure({"FunctionVersion": VERSION, "MaxItems": MAX_ITEMS})

CONCURRENCY: Final = Structure({"ReservedConcurrentExecutions": Number(0)}, required=("ReservedConcurrentExecutions",))

ADD_PERMISSION: Final = Structure(
    {
        "StatementId": Text(1, 100, "([a-zA-Z0-9-_]+)"),
        "Action": Text(pattern=r"(lambda:[*]|lambda:[a-zA-Z]+|[*])"),
        "Principal": Text(pattern=r"[^\s]+"),
        "SourceArn": Text(pattern=r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z0-9-]*):(\d{12})?:(.*)"),
        "SourceAccount": Text(0, 12, r"\d{12}"),
        "EventSourceToken": Text(0, 256, r"[a-zA-Z0-9._\-]+"),
        "PrincipalOrgID": Text(12, 34, r"o-[a-z0-9]{10,32}"),
        "FunctionUrlAuthType": Text(words=("NONE", "AWS_IAM")),
        "InvokedViaFunctionUrl": Flag(),
        "RevisionId": Text(),
    },
    required=("StatementId", "Action", "Principal"),
)
