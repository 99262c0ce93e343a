"""Studio: domains, user profiles and their lifecycle configurations."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.sagemaker.exceptions import ResourceInUseException, ResourceNotFound
from moto.sagemaker.models import Domain
from moto.sagemaker.responses import SageMakerResponse

from localaws.patching import Original, extend, memory, wrap
from localaws.sagemaker.shelf import shelve

shelve(
    "UserProfile", "user-profile", ("DomainId", "UserProfileName"), Status="InService", HomeEfsFileSystemUid="200005"
)
shelve("StudioLifecycleConfig", "studio-lifecycle-config", ("StudioLifecycleConfigName",))


def _domain(self: SageMakerResponse) -> Domain:
    domain = self.sagemaker_backend.domains.get(self._get_param("DomainId"))
    if domain is None:
        raise ResourceNotFound(message=f"Domain with DomainId {self._get_param('DomainId')} does not exist.")
    return domain


@wrap(SageMakerResponse, "create_domain")
def answer_its_id(original: Original, self: SageMakerResponse) -> ActionResult:
    """moto answers a new domain without its DomainId: Terraform waits for a domain with no name."""
    answer: dict[str, Any] = original(self).result
    return ActionResult({**answer, "DomainId": answer["DomainArn"].rpartition("/")[2]})


@wrap(SageMakerResponse, "describe_domain")
def say_that_there_is_none(original: Original, self: SageMakerResponse) -> Any:
    """moto answers a missing domain with a ValidationException: to Terraform, destroying one has failed."""
    _domain(self)
    return original(self)


@wrap(SageMakerResponse, "delete_domain")
def refuse_while_it_has_users(original: Original, self: SageMakerResponse) -> Any:
    """moto deletes a domain with user profiles in it: a wrong order is found out on AWS."""
    domain = _domain(self)
    if any(key[:2] == ("UserProfile", domain.id) for key in memory(self.sagemaker_backend, "shelf")):
        raise ResourceInUseException(
            message=f"Unable to delete Domain {domain.id} because UserProfile(s) are associated with it."
        )
    return original(self)


UPDATABLE = {
    "DefaultUserSettings": "default_user_settings",
    "DefaultSpaceSettings": "default_space_settings",
    "DomainSettings": "domain_settings",
    "AppSecurityGroupManagement": "app_security_group_management",
    "AppNetworkAccessType": "app_network_access_type",
    "SubnetIds": "subnet_ids",
}


@extend(SageMakerResponse)
def update_domain(self: SageMakerResponse) -> ActionResult:
    """moto has no UpdateDomain: changed settings fail."""
    domain = _domain(self)
    for member, attribute in UPDATABLE.items():
        value, old = self._get_param(member), getattr(domain, attribute)
        if value is not None:
            merged = isinstance(value, dict) and isinstance(old, dict)
            setattr(domain, attribute, {**old, **value} if merged else value)
    domain.last_modified_time = utcnow()
    return ActionResult({"DomainArn": domain.arn})
