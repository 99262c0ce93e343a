"""Endpoints and their configurations. Changes take effect at once: there are no instances to wait for."""

from __future__ import annotations

from typing import Any

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.responses import ActionResult
from moto.core.utils import get_service_model, utcnow
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import FakeEndpoint, FakeEndpointConfig, FakeSagemakerNotebookInstance
from moto.sagemaker.responses import SageMakerResponse

from localaws.patching import Original, extend, wrap

DIMENSION = "sagemaker:variant:DesiredInstanceCount"


def _refuse_unknown_type(shape: str, instance_type: str) -> None:
    known = get_service_model("sagemaker").shape_for(shape).enum
    if instance_type not in known:
        raise ValidationError(
            message=f"1 validation error detected: Value '{instance_type}' at 'instanceType' failed to satisfy "
            f"constraint: Member must satisfy enum value set: [{', '.join(known)}]"
        )


@wrap(FakeEndpointConfig, "validate_instance_type")
def know_newer_types(original: Original, self: FakeEndpointConfig, instance_type: str) -> None:
    """moto knows the instance types of years ago: a configuration with ml.g5.xlarge or ml.c6i.large is refused."""
    _refuse_unknown_type("ProductionVariantInstanceType", instance_type)


@wrap(FakeSagemakerNotebookInstance, "validate_instance_type")
def know_newer_notebook_types(original: Original, self: FakeSagemakerNotebookInstance, instance_type: str) -> None:
    """moto knows the instance types of years ago: a notebook with ml.g4dn.xlarge is refused."""
    _refuse_unknown_type("InstanceType", instance_type)


@wrap(SageMakerResponse, "create_endpoint_config")
def refuse_a_second_configuration(original: Original, self: SageMakerResponse) -> Any:
    """moto overwrites a configuration of the same name: a name that isn't unique is found out on AWS."""
    existing = self.sagemaker_backend.endpoint_configs.get(self._get_param("EndpointConfigName"))
    if existing:
        raise ValidationError(
            message=f'Cannot create already existing endpoint configuration "{existing.endpoint_config_arn}".'
        )
    return original(self)


@wrap(SageMakerResponse, "create_endpoint")
def refuse_a_second_endpoint(original: Original, self: SageMakerResponse) -> Any:
    """moto overwrites an endpoint of the same name."""
    existing = self.sagemaker_backend.endpoints.get(self._get_param("EndpointName"))
    if existing:
        raise ValidationError(message=f'Cannot create already existing endpoint "{existing.arn}".')
    return original(self)


@extend(SageMakerResponse)
def update_endpoint(self: SageMakerResponse) -> ActionResult:
    """moto has no UpdateEndpoint: a new model never goes live.

    As on AWS, an update during which one of its alarms goes off is rolled back: the endpoint is in service again with
    its old configuration, and the reason is in FailureReason.
    """
    backend = self.sagemaker_backend
    name = self._get_param("EndpointName")
    backend.describe_endpoint(name)  # raises when there is none
    endpoint = backend.endpoints[name]
    variants = backend.describe_endpoint_config(self._get_param("EndpointConfigName"))["ProductionVariants"]
    old_variants = _configured(self, endpoint)
    _refuse_to_change_scaled_variants(self, endpoint, old_variants, variants)

    endpoint.last_modified_time = utcnow()
    alarm = _ringing_alarm(self)
    if alarm:
        reason = (
            f"One or more alarm(s) went off during the deployment: [{alarm}]. "
            f"The endpoint was rolled back to the configuration {endpoint.endpoint_config_name}."
        )
        endpoint.failure_reason = reason  # type: ignore[assignment]  # moto never sets one
        return ActionResult({"EndpointArn": endpoint.arn})
    running = {variant["VariantName"]: variant for variant in endpoint.production_variants}
    endpoint.production_variants = endpoint._process_production_variants(variants)
    _retain_properties(self, endpoint, running)
    endpoint.endpoint_config_name = self._get_param("EndpointConfigName")
    endpoint.data_capture_config = backend.describe_endpoint_config(endpoint.endpoint_config_name)["DataCaptureConfig"]
    endpoint.failure_reason = None
    return ActionResult({"EndpointArn": endpoint.arn})


def _configured(self: SageMakerResponse, endpoint: FakeEndpoint) -> list[dict[str, Any]]:
    """The variants as configured; AWS remembers them when the configuration is deleted, moto does not."""
    configuration = self.sagemaker_backend.endpoint_configs.get(endpoint.endpoint_config_name)
    return configuration.production_variants if configuration else []


def _refuse_to_change_scaled_variants(
    self: SageMakerResponse, endpoint: FakeEndpoint, old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> None:
    targets = applicationautoscaling_backends[self.current_account][self.region].targets.get(DIMENSION, {})
    types = {variant["VariantName"]: variant.get("InstanceType") for variant in new}
    stuck = [
        variant["VariantName"]
        for variant in old
        if f"endpoint/{endpoint.endpoint_name}/variant/{variant['VariantName']}" in targets
        and types.get(variant["VariantName"]) != variant.get("InstanceType")
    ]
    if stuck:
        raise ValidationError(
            message=f'The variant(s) "{", ".join(stuck)}" must be deregistered as scalable targets with AWS Auto '
            "Scaling before they can be removed or have their instance type updated."
        )


def _ringing_alarm(self: SageMakerResponse) -> str | None:
    config = self._get_param("DeploymentConfig") or {}
    alarms = cloudwatch_backends[self.current_account][self.region].alarms
    names = [alarm["AlarmName"] for alarm in config.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
    return next((name for name in names if name in alarms and alarms[name].state_value == "ALARM"), None)


def _retain_properties(self: SageMakerResponse, endpoint: FakeEndpoint, running: dict[str, dict[str, Any]]) -> None:
    """Keeps the instances and weights that auto-scaling or an operator has set, if the caller wishes it."""
    if not self._get_param("RetainAllVariantProperties"):
        return
    excluded = {p["VariantPropertyType"] for p in self._get_param("ExcludeRetainedVariantProperties") or []}
    for variant in endpoint.production_variants:
        for property_type in {"DesiredInstanceCount", "DesiredWeight"} - excluded:
            for member in (property_type, property_type.replace("Desired", "Current")):
                if member in running.get(variant["VariantName"], {}):
                    variant[member] = running[variant["VariantName"]][member]
