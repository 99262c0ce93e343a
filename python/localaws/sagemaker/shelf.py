"""Kinds of resource that moto lacks and that need no behaviour: created, described, listed, updated and deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import camelcase_to_underscores, get_service_model, utcnow
from moto.sagemaker.exceptions import ResourceInUseException, ResourceNotFound
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

from localaws.patching import memory

SHELVED: set[str] = set()
"""The kinds that are kept here."""


@dataclass
class Shelved:
    """A resource: all that it was told, and its tags."""

    arn: str
    body: dict[str, Any]
    tags: list[dict[str, str]]
    created: datetime = field(default_factory=utcnow)
    modified: datetime = field(default_factory=utcnow)


def shelved(backend: SageMakerModelBackend, arn: str) -> Shelved | None:
    """The resource with this ARN, if a `shelve`d kind has it."""
    return next((resource for resource in memory(backend, "shelf").values() if resource.arn == arn), None)


def shelve(kind: str, arn_kind: str, keys: tuple[str, ...], **fixed: Any) -> None:
    """Gives SageMaker the actions Create, Describe, Update, Delete and List of a kind.

    keys: the members of a request that name the resource. fixed: members that Describe answers besides those given.
    """
    SHELVED.add(kind)
    plural = f"{kind.removesuffix('y')}ies" if kind.endswith("y") else f"{kind}s"

    def key(self: SageMakerResponse) -> tuple[str, ...]:
        return (kind, *(self._get_param(member) for member in keys))

    def shelf(self: SageMakerResponse) -> dict[tuple[str, ...], Shelved]:
        return memory(self.sagemaker_backend, "shelf")

    def find(self: SageMakerResponse) -> Shelved:
        if key(self) not in shelf(self):
            raise ResourceNotFound(message=f"Cannot find {kind}: {'/'.join(key(self)[1:])}")
        return shelf(self)[key(self)]

    def sent(self: SageMakerResponse) -> dict[str, Any]:
        return {member: value for member, value in self._get_params().items() if member != "Tags"}

    def describe_(self: SageMakerResponse, resource: Shelved) -> dict[str, Any]:
        times = {"CreationTime": resource.created, "LastModifiedTime": resource.modified}
        return {f"{kind}Arn": resource.arn, **times, **fixed, **resource.body}

    def create(self: SageMakerResponse) -> ActionResult:
        if key(self) in shelf(self):
            raise ResourceInUseException(message=f"{kind} {'/'.join(key(self)[1:])} already exists")
        name = "/".join(key(self)[1:]).lower() if len(keys) > 1 else key(self)[1]
        arn = f"arn:{self.partition}:sagemaker:{self.region}:{self.current_account}:{arn_kind}/{name}"
        shelf(self)[key(self)] = Shelved(arn, sent(self), self._get_param("Tags") or [])
        return ActionResult({f"{kind}Arn": arn})

    def describe(self: SageMakerResponse) -> ActionResult:
        return ActionResult(describe_(self, find(self)))

    def update(self: SageMakerResponse) -> ActionResult:
        resource = find(self)
        for member, value in sent(self).items():
            merged = isinstance(value, dict) and isinstance(resource.body.get(member), dict)
            resource.body[member] = {**resource.body[member], **value} if merged else value
        resource.modified = utcnow()
        return ActionResult({f"{kind}Arn": resource.arn})

    def delete(self: SageMakerResponse) -> ActionResult:
        find(self)
        del shelf(self)[key(self)]
        return EmptyResult()

    def list_(self: SageMakerResponse) -> ActionResult:
        output = get_service_model("sagemaker").operation_model(f"List{plural}").output_shape
        member = next(name for name in output.members if name != "NextToken")
        found = [describe_(self, resource) for (a_kind, *_), resource in shelf(self).items() if a_kind == kind]
        return ActionResult({member: found})

    methods = {f"Create{kind}": create, f"Describe{kind}": describe, f"Update{kind}": update, f"Delete{kind}": delete}
    actions = {*get_service_model("sagemaker").operation_names}  # some kinds have no Update
    for action, method in {**methods, f"List{plural}": list_}.items():
        if action not in actions:
            continue
        name = camelcase_to_underscores(action)
        if hasattr(SageMakerResponse, name):
            raise TypeError(f"moto now has {action}: look at this kind again")
        setattr(SageMakerResponse, name, method)
