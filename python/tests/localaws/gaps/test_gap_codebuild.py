import pytest

PROJECT = {
    "source": {"type": "S3", "location": "bucket/image.zip"},
    "artifacts": {"type": "NO_ARTIFACTS"},
    "environment": {
        "type": "LINUX_CONTAINER",
        "image": "aws/codebuild/amazonlinux2-x86_64-standard:5.0",
        "computeType": "BUILD_GENERAL1_SMALL",
    },
    "serviceRole": "arn:aws:iam::123456789012:role/build",
}


def described(aws):
    return aws.codebuild.batch_get_projects(names=["image"])["projects"][0]


def test_all_of_a_project_is_read_back(aws):
    key = "arn:aws:kms:us-east-1:123456789012:key/k"
    aws.codebuild.create_project(name="image", **PROJECT, encryptionKey=key, concurrentBuildLimit=1)
    assert described(aws)["encryptionKey"] == key
    assert described(aws)["concurrentBuildLimit"] == 1


def test_a_project_changes(aws):
    aws.codebuild.create_project(name="image", **PROJECT, timeoutInMinutes=30)
    aws.codebuild.update_project(name="image", timeoutInMinutes=60)
    assert described(aws)["timeoutInMinutes"] == 60
    assert described(aws)["source"] == PROJECT["source"]


def test_a_change_of_no_project_is_refused(aws):
    with pytest.raises(aws.codebuild.exceptions.ResourceNotFoundException):
        aws.codebuild.update_project(name="image", timeoutInMinutes=60)


def test_a_project_may_have_no_source(aws):
    source = {"type": "NO_SOURCE", "buildspec": "version: 0.2"}
    aws.codebuild.create_project(name="image", **{**PROJECT, "source": source})
    assert described(aws)["source"] == source
