"""Who may invoke a function beside the owner: its policy, and what it lets callers do.

Statements are shown as recorded; conditions fit as IAM's StringEquals and ArnLike do (IAM user guide, "Condition
operators"). A policy has a revision of its own; until there is one, that of the version or alias stands for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from router.api.call import Answer, Call, Caller, Carry
from router.api.constraints import Structure, Text, check
from router.api.errors import ApiError, conflict, invalid, not_found
from router.api.finding import find_ours, named, refuse_changed, refuse_of_file
from router.api.function_requests import ADD_PERMISSION
from router.api.names import Here, Reference, missing
from router.api.parts import Parts
from router.catalogue.records import LATEST, Function, Statement

#: Members of a statement that nothing here acts on -> the key of their condition.
_CONDITIONS: Final = {
    "FunctionUrlAuthType": "lambda:FunctionUrlAuthType",
    "PrincipalOrgID": "aws:PrincipalOrgID",
    "EventSourceToken": "lambda:EventSourceToken",
}
#: The same, of one that is true or false.
_VIA_URL: Final = "InvokedViaFunctionUrl"
_VIA_URL_CONDITION: Final = "lambda:InvokedViaFunctionUrl"
_ACCOUNT: Final = re.compile(r"\d{12}")
_IDENTITY: Final = re.compile(r"arn:[^:]*:(iam|sts)::.*")
_SERVICE: Final = re.compile(r"[a-z0-9.-]+\.amazon(aws)?\.com(\.cn)?")
_ID: Final = Structure({"StatementId": Text(1, 100, "([a-zA-Z0-9-_.]+)")})
#: AWS Lambda quotas, "Function resource-based policy".
_POLICY_BYTES: Final = 20 * 1024


class Policies:
    """AddPermission, GetPolicy, RemovePermission."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.operations: Mapping[str, Carry] = {
            "AddPermission": self._add,
            "GetPolicy": self._get,
            "RemovePermission": self._remove,
        }

    async def _add(self, call: Call) -> Answer:
        parts, document = self._parts, call.document
        check(ADD_PERMISSION, document)
        reference = named(parts, call)
        if reference.qualifier == LATEST:
            raise invalid("We currently do not support adding policies for $LATEST.")
        statement = _statement(document)
        async with parts.catalogue.changing(reference.name):
            function = find_ours(parts, reference.name)
            revision = self._revision(function, reference)
            refuse_changed(document.get("RevisionId"), revision, "GetPolicy")
            statements = [*function.policies.get(reference.qualifier or "", []), statement]
            self._refuse_double(statements)
            shown = _policy(statements, function, reference.qualifier, parts.here)
            _refuse_large(shown)
            await self._put(function, reference, statements)
        return Answer(201, {"Statement": _json(shown["Statement"][-1])})

    def _revision(self, function: Function, reference: Reference) -> str:
        """Give the revision that a policy has, or would have. Raises ApiError: no such version or alias."""
        qualifier = reference.qualifier or LATEST
        version, alias = function.version(qualifier), function.aliases.get(qualifier)
        if own := alias or version:
            return function.policy_revisions.get(reference.qualifier or "", own.revision)
        arn = self._parts.here.function(function.name, qualifier)
        can_be_alias = re.fullmatch(r"(?![0-9]+$)[a-zA-Z0-9-_]+", qualifier)
        raise not_found(f"Cannot find alias arn: {arn}") if can_be_alias else missing(arn)

    def _refuse_double(self, statements: Sequence[Statement]) -> None:
        sid = statements[-1].sid
        if any(each.sid == sid for each in statements[:-1]):
            raise conflict(
                f"The statement id ({sid}) provided already exists. "
                "Please provide a new statement id, or remove the existing statement."
            )

    async def _put(self, function: Function, reference: Reference, statements: list[Statement]) -> None:
        qualifier = reference.qualifier or ""
        policies = {**function.policies, qualifier: statements}
        revisions = {**function.policy_revisions, qualifier: self._parts.new_id()}
        if not statements:
            del policies[qualifier], revisions[qualifier]
        await self._parts.catalogue.put_function(replace(function, policies=policies, policy_revisions=revisions))

    async def _get(self, call: Call) -> Answer:
        parts = self._parts
        reference = named(parts, call)
        function = parts.catalogue.function(reference.name)
        qualifier = reference.qualifier or ""
        if function is None or not function.policies.get(qualifier):
            raise not_found("The resource you requested does not exist.")
        policy = _policy(function.policies[qualifier], function, reference.qualifier, parts.here)
        revision = function.policy_revisions.get(qualifier, "")
        return Answer(200, {"Policy": _json(policy), "RevisionId": revision})

    async def _remove(self, call: Call) -> Answer:
        parts, sid = self._parts, call.path["StatementId"]
        check(_ID, {"StatementId": sid})
        reference = named(parts, call)
        async with parts.catalogue.changing(reference.name):
            function = parts.catalogue.function(reference.name)
            if function is None:
                raise not_found(f"No policy found for: {parts.here.function(reference.name, reference.qualifier)}")
            refuse_of_file(parts, function)
            statements = function.policies.get(reference.qualifier or "")
            if not statements:
                raise not_found("No policy is associated with the given resource.")
            left = [each for each in statements if each.sid != sid]
            if len(left) == len(statements):
                raise not_found(f"Statement {sid} is not found in resource policy.")
            refuse_changed(call.one("RevisionId"), self._revision(function, reference), "GetPolicy")
            await self._put(function, reference, left)
        return Answer(204)


def _statement(document: Mapping[str, Any]) -> Statement:
    principal = document["Principal"]
    if not (principal == "*" or any(form.fullmatch(principal) for form in (_ACCOUNT, _IDENTITY, _SERVICE))):
        raise invalid("The provided principal was invalid. Please check the principal and try again.")
    return Statement(
        sid=document["StatementId"],
        action=document["Action"],
        principal=principal,
        source_arn=document.get("SourceArn"),
        source_account=document.get("SourceAccount"),
        kept={
            **{name: document[name] for name in _CONDITIONS if document.get(name)},
            **({_VIA_URL: "true"} if document.get(_VIA_URL) else {}),
        },
    )


def _policy(statements: Sequence[Statement], function: Function, qualifier: str | None, here: Here) -> dict[str, Any]:
    shown = [_document(each, function, qualifier, here) for each in statements]
    return {"Version": "2012-10-17", "Id": "default", "Statement": shown}


def _refuse_large(policy: Mapping[str, Any]) -> None:
    size = len(_json(policy).encode())
    if size > _POLICY_BYTES:
        text = f"The final policy size ({size}) is bigger than the limit ({_POLICY_BYTES})."
        raise ApiError("PolicyLengthExceededException", text)


def _document(statement: Statement, function: Function, qualifier: str | None, here: Here) -> dict[str, Any]:
    equals = {_CONDITIONS[name]: value for name, value in statement.kept.items() if name in _CONDITIONS}
    if statement.source_account:
        equals["AWS:SourceAccount"] = statement.source_account
    condition = {
        **({"StringEquals": equals} if equals else {}),
        **({"Bool": {_VIA_URL_CONDITION: statement.kept[_VIA_URL]}} if _VIA_URL in statement.kept else {}),
        **({"ArnLike": {"AWS:SourceArn": statement.source_arn}} if statement.source_arn else {}),
    }
    return {
        "Sid": statement.sid,
        "Effect": "Allow",
        "Principal": _principal(statement.principal, here),
        "Action": statement.action,
        "Resource": here.function(function.name, qualifier),
        **({"Condition": condition} if condition else {}),
    }


def _principal(principal: str, here: Here) -> str | dict[str, str]:
    if principal == "*":
        return principal
    if _ACCOUNT.fullmatch(principal):
        return {"AWS": f"arn:{here.partition}:iam::{principal}:root"}
    return {"AWS" if _IDENTITY.fullmatch(principal) else "Service": principal}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def permits(function: Function, qualifier: str | None, caller: Caller) -> bool:
    """Say whether a policy lets the service that a caller stands for invoke a function in a version or alias."""
    statements = function.policies.get(qualifier or "", [])
    return any(_fits(each, caller) for each in statements)


def _fits(statement: Statement, caller: Caller) -> bool:
    """Statements with a condition that we cannot judge fit nobody."""
    return (
        statement.action in ("*", "lambda:*", "lambda:InvokeFunction")
        and statement.principal in ("*", caller.service)
        and not statement.kept
        and (statement.source_account is None or statement.source_account == caller.source_account)
        and (statement.source_arn is None or is_arn_like(caller.source_arn or "", statement.source_arn))
    )


def is_arn_like(arn: str, pattern: str) -> bool:
    """Compare two ARNs part by part; `*` and `?` of the pattern stand for any text and any character of a part."""
    parts, patterns = arn.split(":", 5), pattern.split(":", 5)
    return len(parts) == len(patterns) and all(
        re.fullmatch(_like(wanted), part, re.DOTALL) for part, wanted in zip(parts, patterns, strict=True)
    )


def _like(wanted: str) -> str:
    """Give the expression for a part. Each `*` stays with the first place that fits: to try all would take for ever."""
    first, *others = (re.escape(text).replace(r"\?", ".") for text in wanted.split("*"))
    between = "".join(f"(?>.*?{text})" for text in others[:-1])
    return f"{first}{between}.*{others[-1]}" if others else first
