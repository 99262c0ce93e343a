"""Instances."""

from __future__ import annotations

import copy
from contextvars import ContextVar
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.spot_requests import SpotInstanceRequest
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.monitoring import Monitoring
from moto.ec2.utils import random_spot_request_id

from localaws.patching import Original, wrap

MARKET_OPTIONS: ContextVar[dict[str, Any] | None] = ContextVar("MARKET_OPTIONS", default=None)
"""Of the request that is being answered."""


class SpotRequest(SpotInstanceRequest):
    """The request that AWS makes for an instance which was launched as a spot instance."""

    def __init__(self, backend: Any, instance: Instance, options: dict[str, Any]) -> None:
        self._launched = instance
        super().__init__(
            backend,
            random_spot_request_id(),
            price=options.get("MaxPrice", ""),
            image_id=instance.image_id,
            spot_instance_type=options.get("SpotInstanceType", "one-time"),
            valid_from=None,
            valid_until=options.get("ValidUntil"),
            launch_group=None,
            availability_zone_group=None,
            key_name=instance.key_name or "",
            security_groups=[group.id for group in instance.security_groups],
            user_data=None,
            instance_type=instance.instance_type,
            placement=instance.placement.zone,
            kernel_id=None,
            ramdisk_id=None,
            monitoring_enabled=False,
            subnet_id=instance.subnet_id or "",
            tags={},
            spot_fleet_id=None,
            instance_interruption_behaviour=options.get("InstanceInterruptionBehavior"),
        )

    def launch_instance(self) -> Instance:
        return self._launched


@wrap(InstanceResponse, "run_instances")
def keep_the_market_options(original: Original, self: InstanceResponse) -> ActionResult:
    """See `launch_as_told`."""
    MARKET_OPTIONS.set(self._get_param("InstanceMarketOptions"))
    answer: ActionResult = original(self)
    return answer


@wrap(InstanceBackend, "run_instances")
def launch_as_told(
    original: Original, self: Any, image_id: str, count: int, user_data: str, security_group_names: list[str], **kw: Any
) -> Any:
    """moto ignores most of a template (volumes, profile, …) and all spot options: replaced on every plan."""
    template: dict[str, Any] = {}
    if kw.get("launch_template"):
        template = self._get_template_from_args(kw["launch_template"]).data
        _take_from_template(kw, template)
    market = MARKET_OPTIONS.get() or template.get("InstanceMarketOptions", {})
    reservation = original(self, image_id, count, user_data, security_group_names, **kw)
    for instance in reservation.instances:
        if not instance.security_groups:  # they were given through the network interface
            instance.security_groups = list(instance.nics[0].group_set)
        if not (kw.get("iam_instance_profile_name") or kw.get("iam_instance_profile_arn")):
            _associate_profile(self, instance, template.get("IamInstanceProfile"))
        if market.get("MarketType") == "spot":
            request = SpotRequest(self, instance, market.get("SpotOptions", {}))
            self.spot_instance_requests[request.id] = request
            instance.lifecycle = instance.instance_lifecycle = "spot"
            instance.spot_instance_request_id = request.id
    return reservation


def _take_from_template(kw: dict[str, Any], template: dict[str, Any]) -> None:
    """Fills in what the request leaves to its template."""
    kw["metadata_options"] = kw.get("metadata_options") or template.get("MetadataOptions", {})
    kw["ebs_optimized"] = kw.get("ebs_optimized") or bool(template.get("EbsOptimized"))
    kw["instance_initiated_shutdown_behavior"] = kw.get("instance_initiated_shutdown_behavior") or template.get(
        "InstanceInitiatedShutdownBehavior"
    )
    if template.get("Monitoring", {}).get("Enabled"):
        kw["monitoring_state"] = "enabled"
    if template.get("NetworkInterfaces") and not (kw.get("nics") or kw.get("subnet_id")):
        kw["nics"] = copy.deepcopy(template["NetworkInterfaces"])
    if not (kw.get("nics") or kw.get("security_group_ids")):
        kw["security_group_ids"] = list(template.get("SecurityGroupIds", []))
    if template.get("BlockDeviceMappings") and "block_device_mappings" not in kw:
        kw["block_device_mappings"] = copy.deepcopy(template["BlockDeviceMappings"])


def _associate_profile(backend: Any, instance: Instance, profile: dict[str, str] | None) -> None:
    if profile:
        backend.associate_iam_instance_profile(
            instance_id=instance.id,
            iam_instance_profile_name=profile.get("Name"),
            iam_instance_profile_arn=profile.get("Arn"),
        )


@wrap(InstanceResponse, "_dot_value_instance_attribute_handler")
def change_the_shutdown_behaviour(original: Original, self: InstanceResponse) -> Any:
    """moto takes a change of what a shutdown does for one of the security groups, and removes them all."""
    behaviour = self._get_param("InstanceInitiatedShutdownBehavior.Value")
    if behaviour is None:
        return original(self)
    instance = self._get_param("InstanceId")
    self.ec2_backend.modify_instance_attribute(instance, "instance_initiated_shutdown_behavior", behaviour)
    return True


@wrap(InstanceBackend, "modify_instance_security_groups")
def change_the_groups_of_the_interface(original: Original, self: Any, instance_id: str, groups: list[str]) -> Any:
    """moto leaves an instance's old groups on its network interface: they can't be deleted."""
    instance = original(self, instance_id, groups)
    instance.nics[0]._group_set = list(instance.security_groups)
    return instance


@wrap(Monitoring, "monitor_instances")
def monitor_instances(original: Original, self: Monitoring) -> ActionResult:
    """moto has no MonitorInstances: `monitoring = true` can't be switched on later."""
    return _monitor(self, "enabled")


@wrap(Monitoring, "unmonitor_instances")
def unmonitor_instances(original: Original, self: Monitoring) -> ActionResult:
    """moto has no UnmonitorInstances."""
    return _monitor(self, "disabled")


def _monitor(self: Monitoring, state: str) -> ActionResult:
    answers = []
    for instance in self.ec2_backend.get_multi_instances_by_id(self._get_param("InstanceIds", [])):
        instance.monitoring_state = state
        answers.append({"InstanceId": instance.id, "Monitoring": {"State": state}})
    return ActionResult({"InstanceMonitorings": answers})
