"""Systems Manager's public parameters."""

from __future__ import annotations

import hashlib
import re

from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ssm.models import Parameter, ParameterDict

from localaws.patching import Original, wrap

DEEP_LEARNING = re.compile(
    r"/aws/service/deeplearning/ami/(?P<architecture>x86_64|arm64)/"
    r"(?P<name>(base-|base-with-single-cuda-|multi-framework-)?(oss|proprietary)-nvidia-driver-(gpu-)?"
    r"((pytorch|tensorflow)-\d+\.\d+-)?(amazon-linux-2|amazon-linux-2023|ubuntu-2\d\.04))/latest/ami-id"
)
OWNER = "898082745236"
"""The account in which Amazon publishes its Deep Learning AMIs."""


@wrap(ParameterDict, "_check_loading_status")
def know_deep_learning_amis(original: Original, self: ParameterDict, key: str) -> None:
    """moto has no parameters of Deep Learning AMIs: a host with the newest GPU image can't be planned."""
    original(self, key)
    match = DEEP_LEARNING.fullmatch(str(key))
    if match and not dict.__contains__(self, key):
        ami_id = _make_ami(self.account_id, self.region_name, match["name"], match["architecture"])
        dict.setdefault(self, key, []).append(
            Parameter(  # type: ignore[abstract]  # moto's metaclass takes no notice
                account_id=self.account_id,
                name=key,
                value=ami_id,
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=utcnow(),
                version=1,
                data_type="aws:ec2:image",
            )
        )


def _make_ami(account_id: str, region: str, name: str, architecture: str) -> str:
    backend = ec2_backends[account_id][region]
    ami_id = "ami-" + hashlib.sha256(f"{region} {name} {architecture}".encode()).hexdigest()[:17]
    backend.amis[ami_id] = Ami(
        backend,
        ami_id,
        name=f"Deep Learning AMI {name} {architecture}",
        description="Stands for a Deep Learning AMI",
        owner_id=OWNER,
        owner_alias="amazon",
        public=True,
        virtualization_type="hvm",
        architecture=architecture,
        hypervisor="xen",
        root_device_type="ebs",
        root_device_name="/dev/xvda" if "amazon-linux" in name else "/dev/sda1",
        region_name=f"{region}a",
    )
    return ami_id
