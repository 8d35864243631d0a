"""Mappings that were made through the API, as settings: their members are read as if the file had them.

AWS's names are the file's too (`aws_forms`), so that one reader gives both the same behaviour. What the file has no
word for stands here: what is kept and has no effect, and what of AWS's a mapping of ours is asked for elsewhere. Texts
are taken as they are: `${env:}` means nothing in them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from config import contradictions
from config.assemble import assemble_mapping
from config.aws_forms import NETWORK
from config.blocks import BlockOf
from config.document import Entry, Node, Value
from config.mistakes import InvalidConfiguration, Place, Report
from config.reading import LiteralReader
from config.schema import EventSource
from config.settings import AnyFunction, Configuration, FunctionSettings, MappingSettings
from connectors.settings import AwsSettings, KafkaDestination, KafkaSettings, KeptSecrets, Security
from router.errors import ConfigError

#: Members that are kept and change nothing here: there are no pollers to provide, all metrics are always told, and
#: filters are in the store as they are. `SourceAccessConfigurations` are read apart.
_IDLE: Final = ("ProvisionedPollerConfig", "MetricsConfig", "KMSKeyArn", "SourceAccessConfigurations")
_GROUPS: Final = ("SelfManagedKafkaEventSourceConfig", "AmazonManagedKafkaEventSourceConfig")
#: What an event of a cluster of Amazon's calls its source.
_MSK_SOURCE: Final = "aws:kafka"
#: How clusters are logged in to, by the type of access.
_LOGINS: Final = {
    "BASIC_AUTH": "PLAIN",
    "SASL_SCRAM_256_AUTH": "SCRAM-SHA-256",
    "SASL_SCRAM_512_AUTH": "SCRAM-SHA-512",
}
_CERTIFICATE: Final = "CLIENT_CERTIFICATE_TLS_AUTH"
_AUTHORITY: Final = "SERVER_ROOT_CA_CERTIFICATE"
#: Stands for a function that is not there (any more).
_NO_FUNCTION: Final = FunctionSettings(
    name="",
    handler="",
    code=Path("/"),
    python=None,
    timeout_s=3.0,
    memory_bytes=0,
    reserved_concurrency=None,
    concurrency_per_worker=1,
    snap_start=False,
    environment={},
    logs=True,
)


def made_mapping(
    name: str,
    function: str,
    members: Mapping[str, Any],
    used: AnyFunction | None,
    file: Configuration,
    servers: Sequence[str] = (),
) -> MappingSettings:
    """Make the settings of a mapping.

    Args:
        name: the name under which it runs, its UUID.
        function: the function that it invokes: by name, or `name:version` or `name:alias`.
        members: those of CreateEventSourceMapping as they hold, by AWS's names.
        used: what that function is now, which bounds how long its batches may take to end; None = there is none.
        file: says where AWS is, and who we are among replicas.
        servers: of its cluster, if that is one of Amazon's.

    Raises:
        ConfigError: they cannot be run; the message names the members.
    """
    arn = members.get("EventSourceArn", "")
    if ":kafka:" in arn and not servers:
        raise ConfigError(f"EventSourceArn: `api.msk_clusters` of the file does not name the brokers of {arn}")
    report = Report(f"event source mapping {name}")
    reader = LiteralReader(report, file.path.parent, {}, math.inf)
    try:
        block = reader.read(BlockOf(EventSource), _node(_document(function, members, servers)), Place("", 1))
        contradictions.find_in(block, report)
        report.settle()
    except InvalidConfiguration as invalid:
        raise ConfigError("; ".join(f"{each.path}: {each.message}" for each in invalid.mistakes)) from None
    made = assemble_mapping(name, block, used or _NO_FUNCTION, file.aws, file.fleet)
    if servers and isinstance(made.source, KafkaSettings):
        made = replace(made, source=replace(made.source, event_source_arn=arn))
    security = _security(members.get("SourceAccessConfigurations", ()), file.aws)
    return _secured(made, security) if security else made


def _security(accesses: Sequence[Mapping[str, str]], aws: AwsSettings) -> Security | None:
    """Say how a Kafka cluster is logged in to and trusted by secrets; None = all may read it."""
    secrets = {each["Type"]: each["URI"] for each in accesses if each["Type"] not in NETWORK}
    logins = [kind for kind in secrets if kind in _LOGINS]
    if not secrets:
        return None
    login = secrets[logins[0]] if logins else None
    kept = KeptSecrets(aws.endpoint_url, aws.region, login, secrets.get(_CERTIFICATE), secrets.get(_AUTHORITY))
    if not logins:
        return Security("SSL", kept=kept)
    return Security("SASL_SSL", _LOGINS[logins[0]], kept=kept)


def _secured(made: MappingSettings, security: Security) -> MappingSettings:
    """Put a login into a mapping, and into its destination where that is a topic of the same cluster."""
    assert isinstance(made.source, KafkaSettings), "others have no secrets"
    destination = made.destination
    if isinstance(destination, KafkaDestination):
        destination = replace(destination, security=security)
    return replace(made, source=replace(made.source, security=security), destination=destination)


def _document(function: str, members: Mapping[str, Any], servers: Sequence[str]) -> dict[str, Any]:
    """Give the block that the file might have had."""
    document = {name: value for name, value in members.items() if name not in _IDLE}
    document |= {"function": function, "init_errors_count": True}
    if not members.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"):
        document.pop("DestinationConfig", None)
    if servers:
        del document["EventSourceArn"]
        document["source"] = {"kafka": {"bootstrap_servers": list(servers), "event_source": _MSK_SOURCE}}
    for name in _GROUPS:
        if name in document:
            document[name] = {"ConsumerGroupId": document[name]["ConsumerGroupId"]}
    return document


def _node(value: Any) -> Node:
    """Make a node of JSON."""
    held: Value
    match value:
        case dict():
            held = {name: Entry(1, _node(each)) for name, each in value.items()}
        case list():
            held = tuple(map(_node, value))
        case _:
            held = value
    return Node(1, held, text=str(value))
