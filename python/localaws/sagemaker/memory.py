"""Describe answers what Create was told."""

from __future__ import annotations

import json
from typing import Any

from moto.core.utils import get_service_model
from moto.sagemaker.responses import SageMakerResponse

from localaws.patching import Original, memory, wrap
from localaws.sagemaker.shelf import SHELVED

VERBS = ("Create", "Update", "Describe", "Delete")
SENT_AS = {"DeploymentConfig": "LastDeploymentConfig", "SecurityGroupIds": "SecurityGroups"}
"""Members that Describe answers under another name than Create and Update take them."""
PARTS = {"OnlineStoreConfig"}
"""Members of which Update takes a part."""


@wrap(SageMakerResponse, "call_action")
def remember(original: Original, self: SageMakerResponse) -> Any:
    """moto forgets much of what it is told (a notebook's platform, an isolated network): replaced on every plan."""
    answer = original(self)
    status, headers, body = answer
    action = self._get_action()
    verb = next((verb for verb in VERBS if action.startswith(verb)), None)
    kind = action.removeprefix(verb or "")
    if status != 200 or verb is None or kind in SHELVED:
        return answer
    sent: dict[str, Any] = json.loads(self.body or "{}")
    told = memory(self.sagemaker_backend, "told")
    key = kind, _identity(kind, sent)
    if verb == "Create":
        told[key] = sent
    elif verb == "Update":
        known = told.setdefault(key, {})
        known.update({**sent, **{name: {**known.get(name, {}), **sent[name]} for name in PARTS & {*sent}}})
    elif verb == "Delete":
        told.pop(key, None)
    else:
        answered = json.loads(body)
        described = {name: value for name, value in answered.items() if value != {}}  # AWS leaves out what is not set
        members = get_service_model("sagemaker").operation_model(action).output_shape.members
        for name, value in told.get(key, {}).items():
            name = SENT_AS.get(name, name)
            if name in members and not described.get(name):
                described[name] = value
        body = json.dumps(described)
    return status, headers, body


def _identity(kind: str, sent: dict[str, Any]) -> str | None:
    """What names the resource in a request: the member with the name of its kind."""
    if kind == "Domain":  # Create knows its name, the others its id, which moto makes of the name
        return sent.get("DomainId") or f"d-{sent['DomainName']}"
    names = (
        value for name, value in sent.items() if name.endswith("Name") and kind.endswith(name.removesuffix("Name"))
    )
    return next(names, None)
