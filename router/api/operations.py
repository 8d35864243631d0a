"""Which operations of the Lambda API there are here, by method and path.

Paths: AWS Lambda API reference. The server takes a trailing slash too, and gives each operation to the one of its name
in what was put together (`Carry`). What is not in this table is answered as an unknown operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: Largest body where nothing else is said, bytes: settings, policies, tags.
BODY_BYTES: Final = 1024 * 1024
#: Largest body that brings code: 50 MB of .zip in base64 (AWS Lambda quotas: deployment package, zipped), and the rest;
#: as AWS's own refusal says it.
CODE_BYTES: Final = 70_167_211
#: Largest event: 6 MB (AWS Lambda quotas, synchronous); asynchronous ones are held to theirs by the operation.
EVENT_BYTES: Final = 6 * 1024 * 1024

Method = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as it comes over HTTP."""

    name: str
    method: Method
    #: `{Name}` takes one segment, `{Name+}` all that is left.
    path: str
    body_bytes: int = BODY_BYTES
    #: Is the body a JSON object (`Call.document`), or taken as it is (`Call.body`)?
    reads_document: bool = True
    #: Is it called by whoever has a link that proves itself, without a signature?
    has_own_proof: bool = False


_MAPPINGS: Final = "/2015-03-31/event-source-mappings"
_FUNCTIONS: Final = "/2015-03-31/functions"
_FUNCTION: Final = f"{_FUNCTIONS}/{{FunctionName}}"
_INVOKE_CONFIG: Final = "/2019-09-25/functions/{FunctionName}/event-invoke-config"
_TAGS: Final = "/2017-03-31/tags/{Resource+}"
#: Ours: where links lead that GetFunction gives.
CODE_PATH: Final = "/2015-03-31/code/{Token}"

OPERATIONS: Final = (
    Operation("CreateEventSourceMapping", "POST", _MAPPINGS),
    Operation("ListEventSourceMappings", "GET", _MAPPINGS),
    Operation("GetEventSourceMapping", "GET", f"{_MAPPINGS}/{{UUID}}"),
    Operation("UpdateEventSourceMapping", "PUT", f"{_MAPPINGS}/{{UUID}}"),
    Operation("DeleteEventSourceMapping", "DELETE", f"{_MAPPINGS}/{{UUID}}"),
    Operation("TagResource", "POST", _TAGS),
    Operation("UntagResource", "DELETE", _TAGS),
    Operation("ListTags", "GET", _TAGS),
    Operation("CreateFunction", "POST", _FUNCTIONS, CODE_BYTES),
    Operation("ListFunctions", "GET", _FUNCTIONS),
    Operation("GetFunction", "GET", _FUNCTION),
    Operation("GetCode", "GET", CODE_PATH, has_own_proof=True),
    Operation("DeleteFunction", "DELETE", _FUNCTION),
    Operation("GetFunctionConfiguration", "GET", f"{_FUNCTION}/configuration"),
    Operation("UpdateFunctionConfiguration", "PUT", f"{_FUNCTION}/configuration"),
    Operation("UpdateFunctionCode", "PUT", f"{_FUNCTION}/code", CODE_BYTES),
    Operation("PublishVersion", "POST", f"{_FUNCTION}/versions"),
    Operation("ListVersionsByFunction", "GET", f"{_FUNCTION}/versions"),
    Operation("CreateAlias", "POST", f"{_FUNCTION}/aliases"),
    Operation("ListAliases", "GET", f"{_FUNCTION}/aliases"),
    Operation("GetAlias", "GET", f"{_FUNCTION}/aliases/{{Name}}"),
    Operation("UpdateAlias", "PUT", f"{_FUNCTION}/aliases/{{Name}}"),
    Operation("DeleteAlias", "DELETE", f"{_FUNCTION}/aliases/{{Name}}"),
    Operation("PutFunctionConcurrency", "PUT", "/2017-10-31/functions/{FunctionName}/concurrency"),
    Operation("GetFunctionConcurrency", "GET", "/2019-09-30/functions/{FunctionName}/concurrency"),
    Operation("DeleteFunctionConcurrency", "DELETE", "/2017-10-31/functions/{FunctionName}/concurrency"),
    Operation("PutFunctionEventInvokeConfig", "PUT", _INVOKE_CONFIG),
    Operation("UpdateFunctionEventInvokeConfig", "POST", _INVOKE_CONFIG),
    Operation("GetFunctionEventInvokeConfig", "GET", _INVOKE_CONFIG),
    Operation("DeleteFunctionEventInvokeConfig", "DELETE", _INVOKE_CONFIG),
    Operation("ListFunctionEventInvokeConfigs", "GET", f"{_INVOKE_CONFIG}/list"),
    Operation("AddPermission", "POST", f"{_FUNCTION}/policy"),
    Operation("GetPolicy", "GET", f"{_FUNCTION}/policy"),
    Operation("RemovePermission", "DELETE", f"{_FUNCTION}/policy/{{StatementId}}"),
    Operation("GetFunctionCodeSigningConfig", "GET", "/2020-06-30/functions/{FunctionName}/code-signing-config"),
    Operation("GetAccountSettings", "GET", "/2016-08-19/account-settings"),
    Operation("Invoke", "POST", f"{_FUNCTION}/invocations", EVENT_BYTES, reads_document=False),
    Operation(
        "InvokeAsync", "POST", "/2014-11-13/functions/{FunctionName}/invoke-async", EVENT_BYTES, reads_document=False
    ),
)
