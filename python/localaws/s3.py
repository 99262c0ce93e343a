"""S3."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import flask
from moto.s3.models import FakeBucket
from moto.s3.responses import S3Response
from moto.s3.utils import _VersionedKeyStore

from localaws.patching import Original, wrap


@wrap(S3Response, "get_bucket_notification")
def say_that_events_go_to_eventbridge(original: Original, self: S3Response) -> Any:
    """moto forgets EventBridgeConfiguration when it answers: `eventbridge = true` is changed on every plan."""
    status, headers, body = original(self)
    configuration = self.backend.get_bucket_notification_configuration(self.bucket_name)
    if configuration and configuration.event_bridge is not None:
        text = body.decode() if isinstance(body, bytes) else body
        text = re.sub("<(NotificationConfiguration[^>]*)/>", r"<\1></NotificationConfiguration>", text)
        body = text.replace("</Notif", "<EventBridgeConfiguration/></Notif")
    return status, headers, body


NUMBER = "NewerNoncurrentVersions"


@wrap(FakeBucket, "set_lifecycle")
def keep_the_number_of_versions(original: Original, self: FakeBucket, rules: list[dict[str, Any]]) -> None:
    """moto forgets NewerNoncurrentVersions: a lifecycle that has it never becomes what was asked for."""
    original(self, rules)
    for rule, sent in zip(self.rules, rules, strict=True):
        expiration = sent.get("NoncurrentVersionExpiration") or {}
        vars(rule)[NUMBER] = expiration.get(NUMBER)


@wrap(S3Response, "get_bucket_lifecycle")
def tell_the_number_of_versions(original: Original, self: S3Response) -> Any:
    """As above: what was remembered is put into the answer, whose expirations stand in the order of the rules."""
    status, headers, body = original(self)
    text = body.decode() if isinstance(body, bytes) else body
    numbers = iter(
        [vars(rule)[NUMBER] for rule in self.backend.get_bucket(self.bucket_name).rules if rule.nve_noncurrent_days]
    )

    def complete(end: re.Match[str]) -> str:
        number = next(numbers)
        return f"<{NUMBER}>{number}</{NUMBER}>{end[0]}" if number else end[0]

    return status, headers, re.sub("</NoncurrentVersionExpiration>", complete, text)


UNKNOWN_SUBRESOURCES = {"analytics", "intelligent-tiering", "metadataConfiguration", "metadataTable", "metrics"}


@wrap(S3Response, "_bucket_response")
def refuse_unknown_settings(original: Original, self: S3Response, request: Any, full_url: str) -> Any:
    """moto takes a request for a setting that it lacks for one for the bucket: deleting metrics deletes it."""
    unknown = UNKNOWN_SUBRESOURCES & {*self._get_querystring(request, full_url)}
    if unknown:
        raise NotImplementedError(f"the bucket setting {', '.join(unknown)}")
    return original(self, request, full_url)


SUBRESOURCES = {
    "tagging": "Tagging",
    "acl": "Acl",
    "retention": "Retention",
    "legal-hold": "LegalHold",
    "attributes": "Attributes",
}


@wrap(FakeBucket, "get_permission")
def name_the_action_rightly(original: Original, self: FakeBucket, action: str, resource: str) -> Any:
    """moto makes the action of the HTTP method: tagging an object, or reading its head, is taken for writing it."""
    request = flask.request
    if action == f"s3:{request.method.capitalize()}Object":
        action = f"s3:{_object_action(request)}"
    return original(self, action, resource)


def _object_action(request: flask.Request) -> str:
    verb = {"HEAD": "Get", "POST": "Put"}.get(request.method, request.method.capitalize())
    if verb == "Delete" and "uploadId" in request.args:
        return "AbortMultipartUpload"
    version = "Version" if verb != "Put" and "versionId" in request.args else ""
    return f"{verb}Object{version}" + "".join(suffix for name, suffix in SUBRESOURCES.items() if name in request.args)


@wrap(_VersionedKeyStore, "iterlists")
def leave_out_what_is_gone_by_now(original: Original, self: Any) -> Iterator[tuple[str, list[Any]]]:
    """moto stumbles over an object that is deleted while it lists the versions: emptying a bucket in parallel fails."""
    return ((key, versions) for key, versions in original(self) if versions is not None)
