from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError


def test_eventbridge_is_still_on_when_read_back(aws):
    aws.s3.create_bucket(Bucket="data")
    aws.s3.put_bucket_notification_configuration(
        Bucket="data", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    assert "EventBridgeConfiguration" in aws.s3.get_bucket_notification_configuration(Bucket="data")


def test_eventbridge_and_a_topic_are_read_back(aws):
    aws.s3.create_bucket(Bucket="data")
    topic = aws.sns.create_topic(Name="t")["TopicArn"]
    configuration = {
        "EventBridgeConfiguration": {},
        "TopicConfigurations": [{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}],
    }
    aws.s3.put_bucket_notification_configuration(Bucket="data", NotificationConfiguration=configuration)
    answer = aws.s3.get_bucket_notification_configuration(Bucket="data")
    assert "EventBridgeConfiguration" in answer
    assert [t["TopicArn"] for t in answer["TopicConfigurations"]] == [topic]


def test_a_lifecycle_keeps_the_number_of_versions(aws):
    aws.s3.create_bucket(Bucket="data")
    expirations = [{"NoncurrentDays": 30}, {"NoncurrentDays": 90, "NewerNoncurrentVersions": 10}]
    rules = [
        {"ID": str(n), "Status": "Enabled", "Filter": {"Prefix": f"{n}/"}, "NoncurrentVersionExpiration": expiration}
        for n, expiration in enumerate(expirations)
    ]
    aws.s3.put_bucket_lifecycle_configuration(Bucket="data", LifecycleConfiguration={"Rules": rules})
    answer = aws.s3.get_bucket_lifecycle_configuration(Bucket="data")["Rules"]
    assert [rule["NoncurrentVersionExpiration"] for rule in answer] == expirations


def test_deleting_a_setting_that_is_not_emulated_leaves_the_bucket_alone(aws):
    aws.s3.create_bucket(Bucket="data")
    with pytest.raises(ClientError, match="NotEmulated"):
        aws.s3.delete_bucket_metrics_configuration(Bucket="data", Id="all")
    aws.s3.head_bucket(Bucket="data")


def test_versions_are_listed_while_objects_are_deleted(aws):
    aws.s3.create_bucket(Bucket="data")
    aws.s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
    versions = {f"{n}": aws.s3.put_object(Bucket="data", Key=f"{n}", Body=b"x")["VersionId"] for n in range(100)}
    with ThreadPoolExecutor(4) as pool:
        listed = []
        for key, version in reversed(versions.items()):  # the last are what a listing comes to last
            pool.submit(aws.s3.delete_object, Bucket="data", Key=key, VersionId=version)
            listed.append(pool.submit(aws.s3.list_object_versions, Bucket="data"))
    assert {answer.exception() for answer in listed} == {None}
    assert "Versions" not in aws.s3.list_object_versions(Bucket="data")
