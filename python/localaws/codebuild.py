"""CodeBuild."""

from __future__ import annotations

import json
from typing import Any

from moto.codebuild.exceptions import ResourceNotFoundException
from moto.codebuild.responses import CodeBuildResponse
from moto.core.responses import ActionResult
from moto.core.utils import unix_time

from localaws.patching import Original, extend, wrap


@wrap(CodeBuildResponse, "create_project")
def keep_all_of_a_project(original: Original, self: CodeBuildResponse) -> ActionResult:
    """moto forgets the key, the limit of builds and more, and needs a location for a project without a source."""
    sent = _sent(self)
    if sent["source"]["type"] == "NO_SOURCE":
        self.body = json.dumps({**sent, "source": {**sent["source"], "location": "none"}})
    original(self)
    _project(self).update(sent)
    return ActionResult({"project": _project(self)})


@extend(CodeBuildResponse)
def update_project(self: CodeBuildResponse) -> ActionResult:
    """moto has no UpdateProject: any change of a project fails."""
    project = _project(self)
    project.update(_sent(self), lastModifiedDate=unix_time())
    return ActionResult({"project": project})


def _sent(self: CodeBuildResponse) -> dict[str, Any]:
    return {member: value for member, value in json.loads(self.body).items() if value is not None}


def _project(self: CodeBuildResponse) -> dict[str, Any]:
    project = self.codebuild_backend.codebuild_projects.get(self._get_param("name"))
    if project is None:
        raise ResourceNotFoundException(f"Project cannot be found: {self._get_param('name')}")
    return project.project_metadata
