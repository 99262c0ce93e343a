"""SageMaker, but for endpoints."""

import pytest
from botocore.exceptions import ClientError

ROLE = "arn:aws:iam::123456789012:role/role"
NETWORK = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
TAGS = [{"Key": "Project", "Value": "a"}, {"Key": "Env", "Value": "dev"}]


def tags(aws, arn):
    return sorted((t["Key"], t["Value"]) for t in aws.sagemaker.list_tags(ResourceArn=arn)["Tags"])


def refused(call, **parameters):
    with pytest.raises(ClientError) as error:
        call(**parameters)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return error.value.response["Error"]


# Models


def test_a_model_keeps_its_isolation(aws):
    aws.model(EnableNetworkIsolation=True, VpcConfig=NETWORK)
    model = aws.sagemaker.describe_model(ModelName="model")
    assert model["EnableNetworkIsolation"] is True
    assert model["VpcConfig"] == NETWORK


def test_what_belonged_to_a_deleted_model_is_not_in_the_next_one(aws):
    aws.model(EnableNetworkIsolation=True)
    aws.sagemaker.delete_model(ModelName="model")
    aws.model(InferenceExecutionConfig={"Mode": "Serial"})
    model = aws.sagemaker.describe_model(ModelName="model")
    assert model["EnableNetworkIsolation"] is False
    assert model["InferenceExecutionConfig"] == {"Mode": "Serial"}


def test_a_model_needs_its_archive(aws):
    def create(name):
        container = {"Image": "i", "ModelDataUrl": "s3://models/a/model.tar.gz"}
        aws.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)

    error = refused(create, name="no-bucket")
    assert error["Code"] == "ValidationException"
    assert "Could not find model data at s3://models/a/model.tar.gz" in error["Message"]
    aws.s3.create_bucket(Bucket="models")
    refused(create, name="no-object")
    aws.s3.put_object(Bucket="models", Key="a/model.tar.gz", Body=b"x")
    create("there")
    aws.s3.delete_object(Bucket="models", Key="a/model.tar.gz")
    refused(create, name="deleted")


# Tags


def test_a_changed_tag_replaces_the_old_one(aws):
    aws.model(Tags=TAGS)
    arn = aws.sagemaker.describe_model(ModelName="model")["ModelArn"]
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "Project", "Value": "b"}])
    assert tags(aws, arn) == [("Env", "dev"), ("Project", "b")]


def test_every_kind_has_tags(aws):
    sagemaker = aws.sagemaker
    scripts = sagemaker.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="start", Tags=TAGS
    )["NotebookInstanceLifecycleConfigArn"]
    features = feature_group(aws, Tags=TAGS)
    code = sagemaker.create_code_repository(
        CodeRepositoryName="code", GitConfig={"RepositoryUrl": "https://example.com/a.git"}, Tags=TAGS
    )["CodeRepositoryArn"]
    studio = sagemaker.create_studio_lifecycle_config(
        StudioLifecycleConfigName="s",
        StudioLifecycleConfigContent="eA==",
        StudioLifecycleConfigAppType="JupyterLab",
        Tags=TAGS,
    )["StudioLifecycleConfigArn"]
    for arn in (scripts, features, code, studio):
        assert tags(aws, arn) == [("Env", "dev"), ("Project", "a")]
        sagemaker.delete_tags(ResourceArn=arn, TagKeys=["Env"])
        assert tags(aws, arn) == [("Project", "a")]


# Notebooks


def notebook(aws, **parameters):
    aws.sagemaker.create_notebook_instance(
        **{"NotebookInstanceName": "n", "InstanceType": "ml.t3.medium", "RoleArn": ROLE, **parameters}
    )


def test_a_notebook_keeps_its_platform_and_metadata_version(aws):
    imds = {"MinimumInstanceMetadataServiceVersion": "2"}
    notebook(aws, PlatformIdentifier="notebook-al2-v3", InstanceMetadataServiceConfiguration=imds)
    described = aws.sagemaker.describe_notebook_instance(NotebookInstanceName="n")
    assert described["PlatformIdentifier"] == "notebook-al2-v3"
    assert described["InstanceMetadataServiceConfiguration"] == imds


def test_a_notebook_may_be_of_a_newer_type(aws):
    notebook(aws, InstanceType="ml.g5.xlarge")
    refused(notebook, aws=aws, NotebookInstanceName="m", InstanceType="ml.no.xlarge")


def test_a_stopped_notebook_changes(aws):
    notebook(aws, LifecycleConfigName="start")
    change = {"NotebookInstanceName": "n", "InstanceType": "ml.t3.large", "VolumeSizeInGB": 40}
    assert "InService" in refused(aws.sagemaker.update_notebook_instance, **change)["Message"]
    aws.sagemaker.stop_notebook_instance(NotebookInstanceName="n")
    aws.sagemaker.update_notebook_instance(**change, DisassociateLifecycleConfig=True)
    described = aws.sagemaker.describe_notebook_instance(NotebookInstanceName="n")
    assert (described["InstanceType"], described["VolumeSizeInGB"]) == ("ml.t3.large", 40)
    assert "NotebookInstanceLifecycleConfigName" not in described


def test_a_lifecycle_script_changes(aws):
    def described():
        return aws.sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName="s")

    aws.sagemaker.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="s", OnCreate=[{"Content": "MQ=="}], OnStart=[{"Content": "MQ=="}]
    )
    aws.sagemaker.update_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="s", OnStart=[{"Content": "Mg=="}]
    )
    assert described()["OnStart"] == [{"Content": "Mg=="}]
    assert described()["OnCreate"] == [{"Content": "MQ=="}]


def test_a_code_repository_lives_and_dies(aws):
    sagemaker, name = aws.sagemaker, {"CodeRepositoryName": "code"}
    git = {"RepositoryUrl": "https://example.com/a.git", "Branch": "main"}
    sagemaker.create_code_repository(**name, GitConfig=git)
    sagemaker.update_code_repository(**name, GitConfig={"SecretArn": "arn:aws:secretsmanager:us-east-1:1:secret:s"})
    assert sagemaker.describe_code_repository(**name)["GitConfig"]["Branch"] == "main"
    assert [c["CodeRepositoryName"] for c in sagemaker.list_code_repositories()["CodeRepositorySummaryList"]] == [
        "code"
    ]
    sagemaker.delete_code_repository(**name)
    refused(sagemaker.describe_code_repository, **name)


# Feature groups


def feature_group(aws, online=True, offline=True, **parameters):
    features = [{"FeatureName": "id", "FeatureType": "String"}, {"FeatureName": "ts", "FeatureType": "Fractional"}]
    if online:
        parameters["OnlineStoreConfig"] = {"EnableOnlineStore": True}
    if offline:
        parameters["OfflineStoreConfig"] = {"S3StorageConfig": {"S3Uri": "s3://data/features"}}
    return aws.sagemaker.create_feature_group(
        FeatureGroupName="Embeddings",
        RecordIdentifierFeatureName="id",
        EventTimeFeatureName="ts",
        FeatureDefinitions=features,
        RoleArn=ROLE,
        **parameters,
    )["FeatureGroupArn"]


def test_a_feature_group_keeps_its_online_store(aws):
    feature_group(aws, Description="d")
    described = aws.sagemaker.describe_feature_group(FeatureGroupName="Embeddings")
    assert described["OnlineStoreConfig"] == {"EnableOnlineStore": True}
    assert described["Description"] == "d"


def test_a_change_of_the_online_store_keeps_the_rest_of_it(aws):
    feature_group(aws)
    ttl = {"TtlDuration": {"Unit": "Days", "Value": 7}}
    aws.sagemaker.update_feature_group(FeatureGroupName="Embeddings", OnlineStoreConfig=ttl)
    described = aws.sagemaker.describe_feature_group(FeatureGroupName="Embeddings")
    assert described["OnlineStoreConfig"] == {"EnableOnlineStore": True, **ttl}


def test_a_feature_group_may_have_an_online_store_only(aws):
    feature_group(aws, offline=False)
    assert "OfflineStoreConfig" not in aws.sagemaker.describe_feature_group(FeatureGroupName="Embeddings")


def test_a_feature_group_grows_and_is_deleted(aws):
    feature_group(aws)
    added = {"FeatureName": "late", "FeatureType": "String"}
    aws.sagemaker.update_feature_group(FeatureGroupName="Embeddings", FeatureAdditions=[added])
    described = aws.sagemaker.describe_feature_group(FeatureGroupName="Embeddings")
    assert [f["FeatureName"] for f in described["FeatureDefinitions"]] == ["id", "ts", "late"]
    aws.sagemaker.delete_feature_group(FeatureGroupName="Embeddings")
    error = refused(aws.sagemaker.describe_feature_group, FeatureGroupName="Embeddings")
    assert error["Code"] == "ResourceNotFound"


# Model package groups


def test_a_model_package_group_is_deleted_once_it_is_empty(aws):
    sagemaker, name = aws.sagemaker, {"ModelPackageGroupName": "models"}
    sagemaker.create_model_package_group(**name)
    sagemaker.create_model_package(**name)
    assert "still contains" in refused(sagemaker.delete_model_package_group, **name)["Message"]
    sagemaker.create_model_package_group(ModelPackageGroupName="empty")
    sagemaker.delete_model_package_group(ModelPackageGroupName="empty")
    refused(sagemaker.describe_model_package_group, ModelPackageGroupName="empty")


def test_a_model_package_group_has_a_policy(aws):
    sagemaker, name = aws.sagemaker, {"ModelPackageGroupName": "models"}
    sagemaker.create_model_package_group(**name)
    sagemaker.put_model_package_group_policy(**name, ResourcePolicy="{}")
    assert sagemaker.get_model_package_group_policy(**name)["ResourcePolicy"] == "{}"
    sagemaker.delete_model_package_group_policy(**name)
    refused(sagemaker.get_model_package_group_policy, **name)


# Studio


@pytest.fixture
def domain(aws):
    """The id of a new domain."""
    answer = aws.sagemaker.create_domain(
        DomainName="studio",
        AuthMode="IAM",
        DefaultUserSettings={"ExecutionRole": ROLE, "SecurityGroups": ["sg-1"]},
        SubnetIds=["subnet-1"],
        VpcId="vpc-1",
        TagPropagation="DISABLED",
    )
    return answer["DomainId"]


def test_a_domain_changes_and_is_deleted(aws, domain):
    sagemaker = aws.sagemaker
    assert sagemaker.describe_domain(DomainId=domain)["TagPropagation"] == "DISABLED"
    landing = {"DefaultLandingUri": "studio::"}
    sagemaker.update_domain(DomainId=domain, DefaultUserSettings=landing)
    described = sagemaker.describe_domain(DomainId=domain)
    assert described["DefaultUserSettings"] == {"ExecutionRole": ROLE, "SecurityGroups": ["sg-1"], **landing}
    sagemaker.delete_domain(DomainId=domain)
    assert refused(sagemaker.describe_domain, DomainId=domain)["Code"] == "ResourceNotFound"


def test_a_user_profile_lives_in_its_domain(aws, domain):
    sagemaker, profile = aws.sagemaker, {"DomainId": domain, "UserProfileName": "trainer"}
    arn = sagemaker.create_user_profile(**profile, UserSettings={"ExecutionRole": ROLE}, Tags=TAGS)["UserProfileArn"]
    assert refused(sagemaker.create_user_profile, **profile)["Code"] == "ResourceInUse"
    sagemaker.update_user_profile(**profile, UserSettings={"SecurityGroups": ["sg-1"]})
    described = sagemaker.describe_user_profile(**profile)
    assert described["UserSettings"] == {"ExecutionRole": ROLE, "SecurityGroups": ["sg-1"]}
    assert described["Status"] == "InService"
    assert tags(aws, arn) == [("Env", "dev"), ("Project", "a")]
    assert "associated" in refused(sagemaker.delete_domain, DomainId=domain)["Message"]
    sagemaker.delete_user_profile(**profile)
    sagemaker.delete_domain(DomainId=domain)
