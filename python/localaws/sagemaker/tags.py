"""Tags of the kinds of resource for which moto has none."""

from __future__ import annotations

from typing import Any

from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

from localaws.patching import Original, wrap
from localaws.sagemaker.shelf import shelved


@wrap(SageMakerModelBackend, "_get_resource_from_arn")
def find_more_kinds(original: Original, self: SageMakerModelBackend, arn: str) -> Any:
    """moto finds no lifecycle configurations and feature groups by ARN: ListTags fails, and so does every plan."""
    kind, _, name = arn.split(":")[-1].partition("/")
    moto_has: dict[str, dict[str, Any]] = {
        "notebook-instance-lifecycle-config": self.notebook_instance_lifecycle_configurations,
        "feature-group": {group.feature_group_name.lower(): group for group in self.feature_groups.values()},
    }
    resource = shelved(self, arn) or (moto_has[kind].get(name) if kind in moto_has else original(self, arn))
    if resource is None:
        raise ValidationError(message=f"Could not find {kind} with name {name}")
    if getattr(resource, "tags", None) is None:
        resource.tags = []
    return resource


@wrap(SageMakerModelBackend, "add_tags")
def replace_tags(original: Original, self: SageMakerModelBackend, arn: str, tags: list[dict[str, str]]) -> Any:
    """moto adds a second tag with the same key: a changed tag is planned for ever."""
    self.delete_tags(arn, [tag["Key"] for tag in tags])
    return original(self, arn, tags)


@wrap(SageMakerResponse, "create_notebook_instance_lifecycle_config")
def tag_lifecycle_configs(original: Original, self: SageMakerResponse) -> Any:
    """moto forgets the tags of a lifecycle configuration: they are added on every plan."""
    answer = original(self)
    name = self._get_param("NotebookInstanceLifecycleConfigName")
    config = self.sagemaker_backend.notebook_instance_lifecycle_configurations[name]
    config.tags = self._get_param("Tags") or []  # type: ignore[attr-defined]
    return answer
