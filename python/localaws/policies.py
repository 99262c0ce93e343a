"""Conditions in policies: moto's own reading of them knows trust policies only."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone
from ipaddress import ip_address, ip_network
from typing import Any

import flask
from moto.iam.access_control import IAMPolicyStatement, PermissionResult
from moto.s3.models import s3_backends

from localaws.patching import Original, wrap

SSE = "x-amz-server-side-encryption"
Context = dict[str, list[str]]
"""What is known of a request: condition key in lower case → values; a key that is absent has no entry."""


@wrap(IAMPolicyStatement, "is_action_permitted")
def evaluate_conditions(
    original: Original,
    self: IAMPolicyStatement,
    action: str,
    resource: str = "*",
    principal: str | None = None,
    incoming_condition_values: dict[str, str] | None = None,
) -> PermissionResult:
    """moto takes an unmet Condition for a denial: a bucket that denies plain HTTP or a wrong key refuses all."""
    statement = self._statement
    if "Condition" not in statement:
        return _permitted(original, self, action, resource, principal)
    given = {key.lower(): [value] for key, value in (incoming_condition_values or {}).items()}
    if not conditions_met(statement["Condition"], request_context() | given):
        return PermissionResult.NEUTRAL
    bare = IAMPolicyStatement({key: value for key, value in statement.items() if key != "Condition"})
    return _permitted(original, bare, action, resource, principal)


def _permitted(
    original: Original, statement: IAMPolicyStatement, action: str, resource: str, principal: str | None
) -> PermissionResult:
    result: PermissionResult = original(statement, action, resource, principal, None)
    return result


def request_context() -> Context:
    """The condition keys of the request that is being answered."""
    context: Context = {
        "aws:securetransport": ["true"],  # loopback stands for a connection that nobody can read
        "aws:currenttime": [datetime.now(timezone.utc).isoformat()],
    }
    if flask.has_request_context():
        request = flask.request
        context["aws:sourceip"] = [request.remote_addr or "127.0.0.1"]
        headers = {name.lower(): value for name, value in request.headers}
        headers |= _encryption_of_the_upload(request)
        context |= {f"s3:{name}": [value] for name, value in headers.items() if name.startswith("x-amz-")}
        context |= {f"s3:{name.lower()}": [value] for name, value in request.args.items()}
    return context


def _encryption_of_the_upload(request: flask.Request) -> dict[str, str]:
    """The parts of an upload carry no encryption headers; S3 judges them by what the upload was begun with."""
    upload_id = request.args.get("uploadId", "")
    for buckets in (partition.buckets for account in s3_backends.values() for partition in account.values()):
        for bucket in buckets.values():
            upload = bucket.multiparts.get(upload_id)
            if upload:
                headers = {SSE: upload.sse_encryption, f"{SSE}-aws-kms-key-id": upload.kms_key_id}
                return {name: value for name, value in headers.items() if value}
    return {}


def conditions_met(conditions: dict[str, dict[str, Any]], context: Context) -> bool:
    """Whether all conditions of a statement hold; each key's values are alternatives, as IAM reads them."""
    return all(
        _met(operator, context.get(key.lower()), _strings(wanted))
        for operator, pairs in conditions.items()
        for key, wanted in pairs.items()
    )


def _met(operator: str, have: list[str] | None, wanted: list[str]) -> bool:
    quantifier, _, name = operator.rpartition(":")
    base = name.removesuffix("IfExists")
    if base == "Null":
        return (have is None) == (wanted[0].lower() == "true")
    negated, compare = OPERATORS.get(base, (False, None))
    if compare is None:
        raise NotImplementedError(f"the condition operator {operator}")
    if have is None:  # a negated operator matches a key that is absent, and so does ForAllValues
        return negated or base != name or quantifier == "ForAllValues"
    hits = [any(compare(value, want) for want in wanted) != negated for value in have]
    return any(hits) if quantifier == "ForAnyValue" else all(hits)


def _strings(values: Any) -> list[str]:
    """IAM takes one value or several, and booleans and numbers with or without quotes."""
    return [
        str(v).lower() if isinstance(v, bool) else str(v) for v in (values if isinstance(values, list) else [values])
    ]


def _number(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    return lambda have, want: compare(float(have), float(want))


def _date(compare: Callable[[datetime, datetime], bool]) -> Callable[[str, str], bool]:
    return lambda have, want: compare(_time(have), _time(want))


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 knows no Z
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _in_network(have: str, want: str) -> bool:
    return ip_address(have) in ip_network(want, strict=False)


def _ignoring_case(have: str, want: str) -> bool:
    return have.lower() == want.lower()


def _like(have: str, want: str) -> bool:
    """Whether a pattern matches in which * stands for any text and ? for one character."""
    pattern = re.escape(want).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, have, re.DOTALL) is not None


OPERATORS: dict[str, tuple[bool, Callable[[str, str], bool]]] = {
    "StringEquals": (False, str.__eq__),
    "StringNotEquals": (True, str.__eq__),
    "StringEqualsIgnoreCase": (False, _ignoring_case),
    "StringNotEqualsIgnoreCase": (True, _ignoring_case),
    "StringLike": (False, _like),
    "StringNotLike": (True, _like),
    "ArnEquals": (False, _like),
    "ArnNotEquals": (True, _like),
    "ArnLike": (False, _like),
    "ArnNotLike": (True, _like),
    "Bool": (False, _ignoring_case),
    "NumericEquals": (False, _number(float.__eq__)),
    "NumericNotEquals": (True, _number(float.__eq__)),
    "NumericLessThan": (False, _number(float.__lt__)),
    "NumericLessThanEquals": (False, _number(float.__le__)),
    "NumericGreaterThan": (False, _number(float.__gt__)),
    "NumericGreaterThanEquals": (False, _number(float.__ge__)),
    "DateLessThan": (False, _date(datetime.__lt__)),
    "DateGreaterThan": (False, _date(datetime.__gt__)),
    "IpAddress": (False, _in_network),
    "NotIpAddress": (True, _in_network),
}
"""Condition operator → whether it is the negated form, and the comparison of a request's value with a policy's."""
