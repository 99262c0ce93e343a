"""Launch templates."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.launch_templates import LaunchTemplate, LaunchTemplateVersion
from moto.ec2.responses.launch_templates import LaunchTemplates

from localaws.patching import Original, wrap


@wrap(LaunchTemplateVersion, "__init__")
def keep_its_own_tags_out(
    original: Original, self: Any, template: LaunchTemplate, number: int, data: dict[str, Any], description: str
) -> None:
    """moto puts the template's own tags among those of its instances: Terraform removes them on every plan."""
    specifications = [s for s in data.get("TagSpecifications", []) if s["ResourceType"] != "launch-template"]
    data = {key: value for key, value in data.items() if key != "TagSpecifications"}
    if specifications:
        data["TagSpecifications"] = specifications
    original(self, template, number, data, description)


@wrap(LaunchTemplates, "describe_launch_templates")
def answer_the_tags_of_now(original: Original, self: LaunchTemplates) -> Any:
    """moto answers the tags that a template was made with: a changed tag is planned for ever."""
    for template in self.ec2_backend.launch_templates.values():
        template.tags = template.get_tags()
    return original(self)
