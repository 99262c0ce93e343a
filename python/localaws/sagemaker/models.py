"""Models."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from moto.s3.exceptions import S3ClientError
from moto.s3.models import s3_backends
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.responses import SageMakerResponse

from localaws.patching import Original, wrap


@wrap(SageMakerResponse, "create_model")
def need_the_archive(original: Original, self: SageMakerResponse) -> Any:
    """moto takes any URL: a mistyped model is applied, and found out on AWS."""
    for container in [self._get_param("PrimaryContainer"), *(self._get_param("Containers") or [])]:
        url = (container or {}).get("ModelDataUrl")
        if url and not _exists(self, url):
            raise ValidationError(
                message=f"Could not find model data at {url}. Please ensure that the role "
                f'"{self._get_param("ExecutionRoleArn")}" exists and that its trust relationship policy allows the '
                'action "sts:AssumeRole" for the service principal "sagemaker.amazonaws.com". Also ensure that the '
                'role has "s3:GetObject" permissions and that the object is located in the region.'
            )
    return original(self)


def _exists(self: SageMakerResponse, url: str) -> bool:
    place = urlparse(url)
    try:
        return bool(s3_backends[self.current_account][self.partition].get_object(place.netloc, place.path.lstrip("/")))
    except S3ClientError:
        return False
