"""Notebook instances, their lifecycle configurations and code repositories."""

from __future__ import annotations

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.responses import SageMakerResponse

from localaws.patching import extend
from localaws.sagemaker.shelf import shelve

shelve("CodeRepository", "code-repository", ("CodeRepositoryName",))

UPDATABLE = {
    "InstanceType": "instance_type",
    "RoleArn": "role_arn",
    "LifecycleConfigName": "lifecycle_config_name",
    "VolumeSizeInGB": "volume_size_in_gb",
    "DefaultCodeRepository": "default_code_repository",
    "AdditionalCodeRepositories": "additional_code_repositories",
    "RootAccess": "root_access",
}


@extend(SageMakerResponse)
def update_notebook_instance(self: SageMakerResponse) -> ActionResult:
    """moto has no UpdateNotebookInstance: another instance type or a larger volume fails."""
    notebook = self.sagemaker_backend.get_notebook_instance(self._get_param("NotebookInstanceName"))
    if notebook.status != "Stopped":
        raise ValidationError(
            message=f"Status ({notebook.status}) not in ([Stopped, Failed]). "
            f"Unable to update Notebook Instance ({notebook.arn})"
        )
    for member, attribute in UPDATABLE.items():
        if self._get_param(member) is not None:
            setattr(notebook, attribute, self._get_param(member))
    if self._get_param("DisassociateLifecycleConfig"):
        notebook.lifecycle_config_name = None
    notebook.last_modified_time = utcnow()
    return EmptyResult()


@extend(SageMakerResponse)
def update_notebook_instance_lifecycle_config(self: SageMakerResponse) -> ActionResult:
    """moto has no UpdateNotebookInstanceLifecycleConfig: a changed script fails."""
    name = self._get_param("NotebookInstanceLifecycleConfigName")
    self.sagemaker_backend.describe_notebook_instance_lifecycle_config(name)  # raises when there is none
    config = self.sagemaker_backend.notebook_instance_lifecycle_configurations[name]
    config.on_create = self._get_param("OnCreate", config.on_create)
    config.on_start = self._get_param("OnStart", config.on_start)
    config.last_modified_time = utcnow()
    return EmptyResult()
