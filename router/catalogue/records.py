"""Functions and mappings as they are kept and as the API shows them. Values; stored as JSON.

What nothing here acts on is kept as it came (`kept`), under its name in the API, and given back.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

#: The version that changes.
LATEST: Final = "$LATEST"
#: Under these names, which no mapping of a file can have, the store keeps the texts: one for each function or mapping.
FUNCTIONS: Final = "$functions"
MAPPINGS: Final = "$mappings"
#: The same, and the key, of a number that is another one with every mapping that replicas have written which was not to
#: be the same as others. The colon: it is nothing that anybody would have to decide about if it were lost.
MAKINGS: Final = "$mappings:made"


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """Where the code of a version is."""

    #: Of the archive, in hexadecimal; empty where it is a folder.
    sha256: str = ""
    size_bytes: int = 0
    #: A folder of this machine, absolute; None = an archive, which is kept by its hash.
    folder: str | None = None
    #: Of a folder, another one each time it was given: what is in it is loaded anew then. Empty for archives.
    given: str = ""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a function in one version."""

    number: str = LATEST
    runtime: str
    handler: str
    role: str
    code: Code
    description: str = ""
    timeout_s: int = 3
    memory_mb: int = 128
    environment: dict[str, str] = {}
    #: Where events that failed for good go: ARN of a queue or topic; None = nowhere.
    dead_letter_arn: str | None = None
    #: Wall time, seconds.
    modified_s: float = 0.0
    revision: str = ""
    #: Other members, as they came: VpcConfig, Layers, TracingConfig, Architectures, ...
    kept: dict[str, Any] = {}


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A name for a version, or for two by weight."""

    name: str
    version: str
    description: str = ""
    #: Share of invocations that go to another version, by its number.
    weights: dict[str, float] = {}
    revision: str = ""


class InvokeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How events are treated that are invoked asynchronously; None = it was not said, and AWS's default holds."""

    maximum_retry_attempts: int | None = None
    maximum_event_age_s: int | None = None
    #: ARNs; None = nowhere.
    on_success: str | None = None
    on_failure: str | None = None
    modified_s: float = 0.0


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A permission of a policy."""

    sid: str
    #: "lambda:InvokeFunction"
    action: str
    #: A service ("s3.amazonaws.com"), an account or ARN, or `*`.
    principal: str
    source_arn: str | None = None
    source_account: str | None = None
    #: Other members, as they came.
    kept: dict[str, str] = {}


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function with everything that belongs to it."""

    name: str
    latest: Version
    #: Published versions by number.
    versions: dict[str, Version] = {}
    aliases: dict[str, Alias] = {}
    next_version: int = 1
    #: Sums up what was published last; empty = nothing yet.
    published_digest: str = ""
    #: None = not reserved.
    reserved_concurrency: int | None = None
    #: By qualifier: LATEST where there is none.
    invoke_configs: dict[str, InvokeConfig] = {}
    #: Statements by qualifier (empty where there is none), in the order in which they were added.
    policies: dict[str, list[Statement]] = {}
    #: Revision of each policy, by qualifier.
    policy_revisions: dict[str, str] = {}
    tags: dict[str, str] = {}
    created_s: float = 0.0
    #: Is it of the file? Then the API shows it and does not change it. Never stored.
    is_of_file: bool = False

    def version(self, number: str) -> Version | None:
        """Give one version; None = there is no such."""
        return self.latest if number == LATEST else self.versions.get(number)


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """An event source mapping."""

    uuid: str
    #: The function as it was named: unqualified name, and version, alias or LATEST; None = unqualified.
    function: str
    qualifier: str | None = None
    #: Members of CreateEventSourceMapping as they hold now, defaults in them, but for FunctionName, Enabled and Tags.
    properties: dict[str, Any]
    enabled: bool = True
    tags: dict[str, str] = {}
    created_s: float = 0.0
    modified_s: float = 0.0
    #: Is it being deleted? Then it goes once nothing of it runs.
    is_leaving: bool = False
    #: The name under which it runs: the UUID, or that of the file.
    name: str
    is_of_file: bool = False
