import pytest
from botocore.exceptions import ClientError


@pytest.mark.parametrize(
    ("service", "action", "parameters"),
    [
        ("sagemaker", "create_hub", {"HubName": "a", "HubDescription": "b"}),  # JSON
        ("lambda", "list_code_signing_configs", {}),  # REST with JSON, no route
        ("ec2", "describe_fast_snapshot_restores", {}),  # query
        ("cloudwatch", "list_metric_streams", {}),
        ("route53", "list_traffic_policies", {}),  # REST with XML
    ],
)
def test_what_is_not_emulated_is_refused_at_once_by_name(aws, service, action, parameters):
    with pytest.raises(ClientError) as refused:
        getattr(getattr(aws, service), action)(**parameters)
    answer = refused.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert answer["Error"]["Code"] == "NotEmulated"
    operation = refused.value.operation_name
    assert operation in answer["Error"]["Message"]
    assert service in answer["Error"]["Message"]
