"""Model package groups."""

from __future__ import annotations

from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.responses import SageMakerResponse

from localaws.patching import extend, memory


@extend(SageMakerResponse)
def delete_model_package_group(self: SageMakerResponse) -> ActionResult:
    """moto has no DeleteModelPackageGroup: the group is never destroyed."""
    name = self._get_param("ModelPackageGroupName").rsplit("/")[-1]
    group = self.sagemaker_backend.describe_model_package_group(name)
    packages = self.sagemaker_backend.model_packages.values()
    if any(package.model_package_group_name == name for package in packages):
        raise ValidationError(message=f"Model Package Group {group.arn} still contains Model Packages.")
    del self.sagemaker_backend.model_package_groups[name]
    memory(self.sagemaker_backend, "model_package_group_policies").pop(name, None)
    return EmptyResult()


@extend(SageMakerResponse)
def put_model_package_group_policy(self: SageMakerResponse) -> ActionResult:
    """moto has no policies of model package groups: aws_sagemaker_model_package_group_policy fails."""
    name = self._get_param("ModelPackageGroupName")
    group = self.sagemaker_backend.describe_model_package_group(name)
    memory(self.sagemaker_backend, "model_package_group_policies")[name] = self._get_param("ResourcePolicy")
    return ActionResult({"ModelPackageGroupArn": group.arn})


@extend(SageMakerResponse)
def get_model_package_group_policy(self: SageMakerResponse) -> ActionResult:
    """moto has no policies of model package groups."""
    name = self._get_param("ModelPackageGroupName")
    policy = memory(self.sagemaker_backend, "model_package_group_policies").get(name)
    if policy is None:
        raise ValidationError(message=f"Cannot find Model Package Group Policy for {name}.")
    return ActionResult({"ResourcePolicy": policy})


@extend(SageMakerResponse)
def delete_model_package_group_policy(self: SageMakerResponse) -> ActionResult:
    """moto has no policies of model package groups."""
    memory(self.sagemaker_backend, "model_package_group_policies").pop(self._get_param("ModelPackageGroupName"), None)
    return EmptyResult()
