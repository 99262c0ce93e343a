"""Feature groups."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker.exceptions import ResourceNotFound
from moto.sagemaker.models import FeatureGroup
from moto.sagemaker.responses import SageMakerResponse

from localaws.patching import Original, extend, wrap


@wrap(FeatureGroup, "__init__")
def may_have_no_offline_store(original: Original, self: FeatureGroup, **kwargs: Any) -> None:
    """moto needs an offline store and fails without one: a group with an online store only can't be made."""
    online_only = kwargs.get("offline_store_config") is None
    if online_only:
        kwargs["offline_store_config"] = {"S3StorageConfig": {"S3Uri": ""}}
    original(self, **kwargs)
    if online_only:
        self.offline_store_config = None  # type: ignore[assignment]


@wrap(SageMakerResponse, "describe_feature_group")
def say_that_there_is_none(original: Original, self: SageMakerResponse) -> Any:
    """moto answers a missing group with a KeyError, so status 500: Terraform retries for minutes."""
    _find(self)
    return original(self)


@extend(SageMakerResponse)
def update_feature_group(self: SageMakerResponse) -> ActionResult:
    """moto has no UpdateFeatureGroup: another feature fails."""
    group = _find(self)
    group.feature_definitions.extend(self._get_param("FeatureAdditions") or [])
    return ActionResult({"FeatureGroupArn": group.arn})


@extend(SageMakerResponse)
def delete_feature_group(self: SageMakerResponse) -> ActionResult:
    """moto has no DeleteFeatureGroup: the group is never destroyed."""
    del self.sagemaker_backend.feature_groups[_find(self).arn]
    return EmptyResult()


def _find(self: SageMakerResponse) -> FeatureGroup:
    name = self._get_param("FeatureGroupName").rsplit("/")[-1]
    for group in self.sagemaker_backend.feature_groups.values():
        if group.feature_group_name.lower() == name.lower():
            return group
    raise ResourceNotFound(message=f"Resource Not Found: FeatureGroup {name} does not exist.")
