"""The whole of terraform/ made, changed and removed for real: Terraform, its AWS provider, and a local AWS."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from test_images import push

from dogbreed.aws.images import image_uri
from dogbreed.aws.repository import Repository
from dogbreed.aws.terraform import Terraform, local_state, local_up
from dogbreed.errors import DogbreedError
from localaws import server

ROOT = Path(__file__).parents[2]
PREFIX = "dogbreed-local"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """A copy of the repository with a local AWS of its own."""
    ignored = shutil.ignore_patterns(".terraform", "*.tfvars.json", "tests", "__pycache__", "*_cache")
    for name in ("terraform", "lambda", "docker", "ec2", "python"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored, symlinks=True)
    (ROOT / "build" / "wheels").mkdir(parents=True, exist_ok=True)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "wheels").symlink_to(ROOT / "build" / "wheels")  # downloaded once
    repository = Repository(tmp_path)
    running = local_up(repository, port=0)
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    yield repository
    server.down(local_state(repository))


def settings(repository: Repository, **more: str) -> None:
    """The variables of the environment: everything that can be switched on is."""
    values = {
        "environment": '"local"',
        "network": "{ enabled = true }",
        "ec2_trainer": "{ running = true }",
        "classify_function": "{ provisioned_concurrency_max = 6 }",
        **more,
    }
    path = repository.terraform / "environments" / "local.tfvars"
    path.write_text("".join(f"{name} = {value}\n" for name, value in values.items()))


def promote(repository: Repository, bucket: str, name: str) -> str:
    """Puts an archive into the bucket and makes it the live model's."""
    url = f"s3://{bucket}/models/{name}/model.tar.gz"
    boto3.client("s3").put_object(Bucket=bucket, Key=f"models/{name}/model.tar.gz", Body=name.encode())
    choose(repository, url)
    return url


def choose(repository: Repository, url: str) -> None:
    (repository.terraform / "model.auto.tfvars.json").write_text(json.dumps({"models": {"local": {"data_url": url}}}))


def apply(terraform: Terraform) -> None:
    assert terraform.plan()
    terraform.apply()


def served() -> dict[str, Any]:
    """What the live endpoint serves: its configuration, the model's archive and the instance type."""
    sagemaker = boto3.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=PREFIX)
    configuration = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    variant = configuration["ProductionVariants"][0]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    return {
        "status": endpoint["EndpointStatus"],
        "created": endpoint["CreationTime"],
        "configuration": configuration["EndpointConfigName"],
        "instance_type": variant["InstanceType"],
        "archive": model["PrimaryContainer"]["ModelDataUrl"],
        "image": model["PrimaryContainer"]["Image"],
    }


def scaled() -> list[tuple[int, int]]:
    """Fewest and most instances of each endpoint that is scaled."""
    scaling = boto3.client("application-autoscaling")
    targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    return [(target["MinCapacity"], target["MaxCapacity"]) for target in targets]


def ring(state: str) -> None:
    """Sets the alarms that take a roll-out back."""
    cloudwatch = boto3.client("cloudwatch")
    endpoint = boto3.client("sagemaker").describe_endpoint(EndpointName=PREFIX)
    alarms = endpoint["LastDeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    assert alarms
    for alarm in alarms:
        cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue=state, StateReason="a test")


def test_the_life_of_an_environment(repository: Repository, capfd: pytest.CaptureFixture[str]) -> None:
    settings(repository)
    terraform = Terraform("local", repository)

    # Without a model all but the endpoint is made, and nothing is left to do.
    apply(terraform)
    deployment = terraform.output()["deployment"]
    assert deployment["endpoint"]["configuration"] is None
    assert boto3.client("sagemaker").list_endpoints()["Endpoints"] == []
    parameter = boto3.client("ssm").get_parameter(Name=f"/{PREFIX}/deployment", WithDecryption=True)
    assert json.loads(parameter["Parameter"]["Value"]) == deployment
    capfd.readouterr()
    assert not terraform.plan()
    assert "No changes." in capfd.readouterr().out
    concurrency = boto3.client("lambda").get_provisioned_concurrency_config(
        FunctionName=f"{PREFIX}-classify", Qualifier="live"
    )
    assert concurrency["AllocatedProvisionedConcurrentExecutions"] == 3

    # A model that is not in the bucket is refused before anything is changed.
    bucket = deployment["artifacts_bucket"]
    choose(repository, f"s3://{bucket}/models/gone/model.tar.gz")
    with pytest.raises(DogbreedError):
        terraform.plan()
    assert "models/gone/model.tar.gz" in capfd.readouterr().err

    # So is one whose image has not been built, with what to do about it.
    first = promote(repository, bucket, "first")
    with pytest.raises(DogbreedError):
        terraform.plan()
    assert "make image ENV=" in capfd.readouterr().err
    image = image_uri(repository, deployment, "serving")
    assert image == deployment["images"]["serving"], "Python and Terraform make different tags of the same sources"
    push(image)

    # The first model brings the endpoint, scaled between 1 and 3 instances.
    apply(terraform)
    before = served()
    assert (before["status"], before["archive"], before["image"]) == ("InService", first, image)
    assert scaled() == [(1, 3)]
    assert not terraform.plan()

    # An update that SageMaker takes back makes `apply` fail; what was live stays live.
    second = promote(repository, bucket, "second")
    ring("ALARM")
    with pytest.raises(DogbreedError):
        apply(terraform)
    assert "Resource postcondition failed" in capfd.readouterr().err
    assert served() == before

    # With the alarms quiet the same update succeeds, in place, and with another size of instance under auto-scaling.
    ring("OK")
    settings(repository, endpoint='{ instance_type = "ml.m5.xlarge" }')
    apply(terraform)
    after = served()
    assert (after["archive"], after["instance_type"], after["created"]) == (second, "ml.m5.xlarge", before["created"])
    assert boto3.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")[
        "ScalableTargets"
    ]
    assert not terraform.plan()

    # `destroy` leaves the data, readable as before, and nothing else.
    s3 = boto3.client("s3")
    data = deployment["data_bucket"]
    s3.put_object(Bucket=data, Key="dogImages/a.jpg", Body=b"a picture")
    terraform.plan_destroy()
    terraform.apply()
    assert s3.get_object(Bucket=data, Key="dogImages/a.jpg")["Body"].read() == b"a picture"
    assert s3.get_bucket_versioning(Bucket=data)["Status"] == "Enabled"
    assert all(s3.get_public_access_block(Bucket=data)["PublicAccessBlockConfiguration"].values())
    key = boto3.client("kms").describe_key(KeyId=deployment["kms_key_arn"])["KeyMetadata"]
    assert key["KeyState"] == "Enabled"
    kept = [deployment["artifacts_bucket"], deployment["data_bucket"], f"{PREFIX}-logs"]
    assert remains() == {"buckets": kept}
    assert not terraform.plan_destroy()

    # Told to, it removes the data as well.
    settings(repository, data="{ delete_on_destroy = true }")
    terraform = Terraform("local", repository)
    assert terraform.plan_destroy()
    terraform.apply()
    assert remains() == {}
    key = boto3.client("kms").describe_key(KeyId=deployment["kms_key_arn"])["KeyMetadata"]
    assert key["KeyState"] == "PendingDeletion"


def remains() -> dict[str, list[str]]:
    """What there is in the account, by kind; the bucket of Terraform's own state and the default VPC aside."""

    def names(service: str, operation: str, members: str, name: str | None) -> list[str]:
        answer = getattr(boto3.client(service), operation)()
        return sorted(item[name] if name else item for item in answer[members])

    instances = [i for r in boto3.client("ec2").describe_instances()["Reservations"] for i in r["Instances"]]
    buckets = [b for b in names("s3", "list_buckets", "Buckets", "Name") if not b.endswith("-tfstate")]
    vpc_endpoints = boto3.client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
    found = {
        "buckets": [f"{PREFIX}-logs" if "-logs-" in b else b for b in buckets],
        "instances": [i["InstanceId"] for i in instances if i["State"]["Name"] != "terminated"],
        "volumes": names("ec2", "describe_volumes", "Volumes", "VolumeId"),
        "vpcs": [v["VpcId"] for v in boto3.client("ec2").describe_vpcs()["Vpcs"] if not v["IsDefault"]],
        "vpc endpoints": [e["VpcEndpointId"] for e in vpc_endpoints if e["State"] != "deleted"],
        "endpoints": names("sagemaker", "list_endpoints", "Endpoints", "EndpointName"),
        "notebooks": names("sagemaker", "list_notebook_instances", "NotebookInstances", "NotebookInstanceName"),
        "functions": names("lambda", "list_functions", "Functions", "FunctionName"),
        "repositories": names("ecr", "describe_repositories", "repositories", "repositoryName"),
        "queues": boto3.client("sqs").list_queues().get("QueueUrls", []),
        "topics": names("sns", "list_topics", "Topics", "TopicArn"),
        "log groups": names("logs", "describe_log_groups", "logGroups", "logGroupName"),
        "alarms": names("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
        "roles": [r for r in names("iam", "list_roles", "Roles", "RoleName") if r.startswith(PREFIX)],
    }
    return {kind: list_ for kind, list_ in found.items() if list_}


ROOT_MISTAKES = (
    {
        "environment": '"staging"',
        "network": "{ enabled = false }",
        "notebook": '{ kind = "studio" }',
        "endpoint": '{ kind = "async" }',
    },
    ["choose local, dev or prod", "set network.enabled = true", "set classify_function.enabled = false"],
)
MODULE_MISTAKES = (
    {
        "ec2_trainer": '{ running = true, ami_id = "ami-00000000000000000" }',
        "endpoint": '{ roll_out = { strategy = "canary" } }',
        "classify_function": "{ provisioned_concurrency = 30 }",
    },
    [
        "Set min_instances or roll_out.instances to at least 2, or roll_out.strategy to all_at_once",
        "Set reserved_concurrency to at least provisioned_concurrency",
        "ami-00000000000000000",
    ],
)


@pytest.mark.parametrize(("change", "fixes"), [ROOT_MISTAKES, MODULE_MISTAKES], ids=["root", "modules"])
def test_mistakes_are_named_before_anything_is_made(
    repository: Repository, capfd: pytest.CaptureFixture[str], change: dict[str, str], fixes: list[str]
) -> None:
    settings(repository, **change)
    with pytest.raises(DogbreedError):
        Terraform("local", repository).plan()
    said = " ".join(capfd.readouterr().err.replace("│", " ").split())
    for fix in fixes:
        assert fix in said
    assert [b for b in boto3.client("s3").list_buckets()["Buckets"] if not b["Name"].endswith("-tfstate")] == []
