"""Application Auto Scaling."""

from __future__ import annotations

import json

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse as Response

from localaws.patching import Original, extend, memory, wrap


def _tags(self: Response, arn: str) -> dict[str, str]:
    tags: dict[str, str] = memory(self.applicationautoscaling_backend, "tags").setdefault(arn, {})
    return tags


@wrap(Response, "register_scalable_target")
def keep_tags(original: Original, self: Response) -> str:
    """moto forgets a scalable target's tags: they are added again on every plan."""
    answer: str = original(self)
    _tags(self, json.loads(answer)["ScalableTargetARN"]).update(self._get_param("Tags") or {})
    return answer


@extend(Response)
def list_tags_for_resource(self: Response) -> str:
    """moto has no ListTagsForResource here: reading an aws_appautoscaling_target hangs."""
    return json.dumps({"Tags": _tags(self, self._get_param("ResourceARN"))})


@extend(Response)
def tag_resource(self: Response) -> str:
    """moto has no TagResource here: a changed tag fails."""
    _tags(self, self._get_param("ResourceARN")).update(self._get_param("Tags"))
    return "{}"


@extend(Response)
def untag_resource(self: Response) -> str:
    """moto has no UntagResource here: a removed tag fails."""
    for key in self._get_param("TagKeys"):
        _tags(self, self._get_param("ResourceARN")).pop(key, None)
    return "{}"
