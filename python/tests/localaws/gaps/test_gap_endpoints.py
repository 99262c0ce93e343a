"""Endpoints: what an update does, and what is refused."""

import pytest
from botocore.exceptions import ClientError


def refused(call, **parameters):
    with pytest.raises(ClientError) as error:
        call(**parameters)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    return error.value.response["Error"]["Message"]


@pytest.fixture
def endpoint(aws):
    """An endpoint "e" with the configuration "old"; a configuration "new" is there too."""
    aws.model()
    aws.sagemaker.create_endpoint(EndpointName="e", EndpointConfigName=aws.configuration("old"))
    aws.configuration("new")

    def described():
        return aws.sagemaker.describe_endpoint(EndpointName="e")

    return described


def update(aws, configuration="new", **parameters):
    aws.sagemaker.update_endpoint(EndpointName="e", EndpointConfigName=configuration, **parameters)


def deployment(*alarms):
    return {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}},
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]},
    }


def alarm(aws, name, state):
    aws.cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    aws.cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")


def test_an_update_moves_to_the_new_configuration(aws, endpoint):
    aws.configuration("larger", InitialInstanceCount=2)
    update(aws, "larger")
    assert endpoint()["EndpointConfigName"] == "larger"
    assert endpoint()["EndpointStatus"] == "InService"
    assert endpoint()["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    aws.sagemaker.delete_endpoint(EndpointName="e")
    assert "Could not find" in refused(aws.sagemaker.describe_endpoint, EndpointName="e")


def test_the_deployment_config_is_read_back(aws, endpoint):
    update(aws, DeploymentConfig=deployment("errors"))
    assert endpoint()["LastDeploymentConfig"] == deployment("errors")


def test_an_alarm_rolls_an_update_back(aws, endpoint):
    alarm(aws, "quiet", "OK")
    alarm(aws, "errors", "ALARM")
    update(aws, DeploymentConfig=deployment("quiet", "errors"))
    assert endpoint()["EndpointStatus"] == "InService"
    assert endpoint()["EndpointConfigName"] == "old"
    assert "errors" in endpoint()["FailureReason"]


def test_a_later_update_forgets_why_the_last_one_failed(aws, endpoint):
    alarm(aws, "errors", "ALARM")
    update(aws, DeploymentConfig=deployment("errors"))
    alarm(aws, "errors", "OK")
    update(aws, DeploymentConfig=deployment("errors"))
    assert endpoint()["EndpointConfigName"] == "new"
    assert "FailureReason" not in endpoint()


def test_counts_set_by_scaling_are_kept_if_asked(aws, endpoint):
    aws.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="e",
        DesiredWeightsAndCapacities=[{"VariantName": "main", "DesiredInstanceCount": 3, "DesiredWeight": 1}],
    )
    update(aws, RetainAllVariantProperties=True)
    assert endpoint()["ProductionVariants"][0]["DesiredInstanceCount"] == 3
    update(
        aws,
        "old",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredInstanceCount"}],
    )
    assert endpoint()["ProductionVariants"][0]["DesiredInstanceCount"] == 1


def test_an_update_is_refused_while_a_scaled_variant_changes_its_type_or_goes(aws, endpoint):
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/e/variant/main",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    aws.application_autoscaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3)
    aws.configuration("typed", "ml.m5.xlarge")
    aws.configuration("renamed", VariantName="other")
    for configuration in ("typed", "renamed"):
        assert "must be deregistered" in refused(update, aws=aws, configuration=configuration)
    update(aws, "new")  # of the same type
    aws.application_autoscaling.deregister_scalable_target(**target)
    update(aws, "typed")
    assert endpoint()["EndpointConfigName"] == "typed"


def test_what_is_not_there_is_refused(aws, endpoint):
    assert "Could not find" in refused(update, aws=aws, configuration="missing")
    missing = {"EndpointName": "missing", "EndpointConfigName": "old"}
    assert "Could not find" in refused(aws.sagemaker.update_endpoint, **missing)


def test_names_are_unique(aws, endpoint):
    create = aws.sagemaker.create_endpoint
    assert "already existing" in refused(create, EndpointName="e", EndpointConfigName="new")
    assert "already existing" in refused(aws.configuration, name="new")
    assert endpoint()["EndpointConfigName"] == "old"


def test_newer_instance_types_are_known(aws):
    aws.model()
    aws.configuration("new", "ml.g5.xlarge")
    assert "ml.no.xlarge" in refused(aws.configuration, name="other", instance_type="ml.no.xlarge")


def test_what_was_not_configured_is_not_described(aws):
    aws.model()
    aws.configuration("plain")
    assert "DataCaptureConfig" not in aws.sagemaker.describe_endpoint_config(EndpointConfigName="plain")
