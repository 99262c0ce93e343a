import io
import zipfile

import pytest
from botocore.exceptions import ClientError

NAME = {"FunctionName": "classify"}
QUEUE = "arn:aws:sqs:us-east-1:123456789012:dead"
KEY = "arn:aws:kms:us-east-1:123456789012:key/k"


def code(text="1"):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("handler.py", text)
    return archive.getvalue()


def make(aws, **parameters):
    aws.lambda_.create_function(
        **NAME,
        Role=aws.role(trusted="lambda.amazonaws.com"),
        Runtime="python3.13",
        Handler="handler.handler",
        Code={"ZipFile": code()},
        Publish=True,
        **parameters,
    )


@pytest.fixture
def alias(aws):
    """A function with a version 1 and the alias "live"; the parameters that name the alias."""
    make(aws)
    aws.lambda_.create_alias(**NAME, Name="live", FunctionVersion="1")
    return {**NAME, "Qualifier": "live"}


def configuration(aws, **parameters):
    return aws.lambda_.get_function_configuration(**NAME, **parameters)


def missing(call, **parameters):
    with pytest.raises(ClientError) as error:
        call(**parameters)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    return error.value.response["Error"]["Code"]


def test_all_of_the_configuration_is_read_back(aws):
    logging = {"LogFormat": "JSON", "ApplicationLogLevel": "INFO", "SystemLogLevel": "WARN", "LogGroup": "/classify"}
    make(aws, DeadLetterConfig={"TargetArn": QUEUE}, LoggingConfig=logging, SnapStart={"ApplyOn": "PublishedVersions"})
    for found in (configuration(aws), configuration(aws, Qualifier="1")):
        assert found["DeadLetterConfig"] == {"TargetArn": QUEUE}
        assert found["LoggingConfig"] == logging
        assert found["SnapStart"]["ApplyOn"] == "PublishedVersions"


def test_all_of_the_configuration_changes_and_a_version_does_not(aws):
    logging = {"LogFormat": "JSON", "LogGroup": "/new"}
    make(aws, DeadLetterConfig={"TargetArn": QUEUE}, TracingConfig={"Mode": "Active"})
    aws.lambda_.update_function_configuration(
        **NAME,
        TracingConfig={"Mode": "PassThrough"},
        KMSKeyArn=KEY,
        EphemeralStorage={"Size": 1024},
        LoggingConfig=logging,
        DeadLetterConfig={"TargetArn": ""},
    )
    found, published = configuration(aws), configuration(aws, Qualifier="1")
    assert found["TracingConfig"] == {"Mode": "PassThrough"}
    assert (found["KMSKeyArn"], found["EphemeralStorage"]) == (KEY, {"Size": 1024})
    assert found["LoggingConfig"] == logging
    assert not found["DeadLetterConfig"].get("TargetArn")
    assert published["TracingConfig"] == {"Mode": "Active"}
    assert published["DeadLetterConfig"] == {"TargetArn": QUEUE}


def test_a_reserved_concurrency_of_nothing_is_read_back(aws):
    make(aws)
    aws.lambda_.put_function_concurrency(**NAME, ReservedConcurrentExecutions=0)
    assert aws.lambda_.get_function(**NAME)["Concurrency"] == {"ReservedConcurrentExecutions": 0}


def test_provisioned_concurrency_is_put_changed_and_deleted(aws, alias):
    functions = aws.lambda_
    code = "ProvisionedConcurrencyConfigNotFoundException"
    assert missing(functions.get_provisioned_concurrency_config, **alias) == code
    for count in (3, 5):
        functions.put_provisioned_concurrency_config(**alias, ProvisionedConcurrentExecutions=count)
        found = functions.get_provisioned_concurrency_config(**alias)
        assert found["Status"] == "READY"
        assert found["RequestedProvisionedConcurrentExecutions"] == count
    (listed,) = functions.list_provisioned_concurrency_configs(**NAME)["ProvisionedConcurrencyConfigs"]
    assert listed["FunctionArn"].endswith(":function:classify:live")
    functions.delete_provisioned_concurrency_config(**alias)
    assert missing(functions.get_provisioned_concurrency_config, **alias) == code


def test_provisioned_concurrency_needs_its_alias(aws, alias):
    wrong = {**alias, "Qualifier": "dead"}
    put = aws.lambda_.put_provisioned_concurrency_config
    assert missing(put, **wrong, ProvisionedConcurrentExecutions=1) == "ResourceNotFoundException"


def test_the_settings_of_asynchronous_calls_belong_to_an_alias_and_change(aws, alias):
    functions = aws.lambda_
    functions.put_function_event_invoke_config(**alias, MaximumRetryAttempts=2, MaximumEventAgeInSeconds=60)
    missing(functions.get_function_event_invoke_config, **NAME)
    functions.put_function_event_invoke_config(**alias, MaximumRetryAttempts=0)
    found = functions.get_function_event_invoke_config(**alias)
    assert found["MaximumRetryAttempts"] == 0
    assert "MaximumEventAgeInSeconds" not in found
    assert found["FunctionArn"].endswith(":function:classify:live")
    functions.update_function_event_invoke_config(**alias, MaximumEventAgeInSeconds=90)
    found = functions.get_function_event_invoke_config(**alias)
    assert (found["MaximumRetryAttempts"], found["MaximumEventAgeInSeconds"]) == (0, 90)
    functions.delete_function_event_invoke_config(**alias)
    missing(functions.get_function_event_invoke_config, **alias)


def test_a_function_made_again_has_none_of_the_old_ones_settings(aws, alias):
    aws.lambda_.put_provisioned_concurrency_config(**alias, ProvisionedConcurrentExecutions=3)
    aws.lambda_.put_function_event_invoke_config(**alias, MaximumRetryAttempts=0)
    aws.lambda_.delete_function(**NAME)
    aws.iam.delete_role(RoleName="role")
    make(aws)
    aws.lambda_.create_alias(**NAME, Name="live", FunctionVersion="1")
    missing(aws.lambda_.get_provisioned_concurrency_config, **alias)
    missing(aws.lambda_.get_function_event_invoke_config, **alias)
