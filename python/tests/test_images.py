"""Building an image: the real S3, ECR and log calls against a local AWS, with builds that end as each test says."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from runs import dogbreed, one_line

from dogbreed.aws.images import IMAGES, build_image
from dogbreed.aws.repository import Repository
from dogbreed.errors import DogbreedError
from localaws import server

REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
PROJECT, GROUP = "dogs-image", "/aws/codebuild/dogs-image"


class CodeBuild:
    """Starts builds for real (so the request is checked and taken), and then answers with what the test has written.

    answers: what `batch_get_builds` says, call by call; works: does the work, given the image's URI.
    """

    def __init__(self, real: Any) -> None:
        self.real = real
        self.started: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = [{"buildStatus": "SUCCEEDED", "phases": []}]
        self.works: Callable[[str], object] = push

    def start_build(self, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.real.start_build(**request)
        self.started.append(request)
        self.works(request["environmentVariablesOverride"][0]["value"])
        return answer

    def batch_get_builds(self, ids: list[str]) -> dict[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return {"builds": [{"id": ids[0], **answer}]}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    state = tmp_path_factory.mktemp("local-aws")
    yield server.up(0, state)
    server.down(state)


@pytest.fixture
def made(running: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Terraform would have made, and its output `image_build`, with tags of older sources."""
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{running.url}/moto-api/reset", method="POST"), timeout=30).close()
    session = boto3.Session(region_name="us-east-1")
    session.client("s3").create_bucket(Bucket="artifacts")
    session.client("s3").put_bucket_versioning(Bucket="artifacts", VersioningConfiguration={"Status": "Enabled"})
    key = session.client("kms").create_key()["KeyMetadata"]["Arn"]
    for name in IMAGES:
        session.client("ecr").create_repository(repositoryName=f"dogs-{name}", imageTagMutability="IMMUTABLE")
    session.client("logs").create_log_group(logGroupName=GROUP)
    session.client("codebuild").create_project(
        name=PROJECT,
        source={"type": "S3", "location": "artifacts/image/serving.zip", "buildspec": "version: 0.2"},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={"type": "LINUX_CONTAINER", "image": "x", "computeType": "BUILD_GENERAL1_MEDIUM"},
        serviceRole="arn:aws:iam::123456789012:role/image",
    )
    return {
        "region": "us-east-1",
        "kms_key_arn": key,
        "artifacts_bucket": "artifacts",
        "images": {name: f"{REGISTRY}/dogs-{name}:0123456789abcdef" for name in IMAGES},
        "project": PROJECT,
    }


@pytest.fixture
def codebuild(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> CodeBuild:
    double = CodeBuild(boto3.client("codebuild", region_name="us-east-1"))
    client = boto3.Session.client
    monkeypatch.setattr(
        boto3.Session,
        "client",
        lambda self, name, **more: double if name == "codebuild" else client(self, name, **more),
    )
    return double


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "build").mkdir()
    for name in IMAGES:
        with zipfile.ZipFile(tmp_path / "build" / f"{name}-image.zip", "w") as archive:
            archive.writestr("Dockerfile", f"FROM {name}\n")
    return Repository(tmp_path)


def push(uri: str) -> None:
    """An image in its repository, as a build leaves it."""
    name, _, tag = uri.partition("/")[2].rpartition(":")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    boto3.client("ecr", region_name="us-east-1").put_image(
        repositoryName=name, imageManifest=json.dumps({**manifest, "config": {"digest": uri}}), imageTag=tag
    )


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_built_once_from_the_sources_that_its_tag_names(
    name: str,
    repository: Repository,
    made: dict[str, Any],
    codebuild: CodeBuild,
    capsys: pytest.CaptureFixture[str],
) -> None:
    packed = (repository.build / f"{name}-image.zip").read_bytes()
    phases = [{"phaseType": "BUILD", "phaseStatus": "SUCCEEDED", "durationInSeconds": 61}]
    codebuild.answers = [
        {"buildStatus": "IN_PROGRESS", "phases": [{"phaseType": "BUILD"}]},
        {"buildStatus": "IN_PROGRESS", "phases": phases},
        {"buildStatus": "SUCCEEDED", "phases": phases},
    ]

    uri = build_image(repository, made, name, poll_s=0)

    assert uri == f"{REGISTRY}/dogs-{name}:{hashlib.sha256(packed).hexdigest()[:16]}"
    (request,) = codebuild.started
    bucket, key = request["sourceLocationOverride"].split("/", 1)
    stored = boto3.client("s3").get_object(Bucket=bucket, Key=key, VersionId=request["sourceVersion"])
    assert stored["Body"].read() == packed and stored["SSEKMSKeyId"] == made["kms_key_arn"]
    said = capsys.readouterr().err.splitlines()
    assert said == [f"Building {uri}", "BUILD: SUCCEEDED, 61 s"]

    assert build_image(repository, made, name, poll_s=0) == uri
    assert len(codebuild.started) == 1 and "is there already" in capsys.readouterr().err


def test_changed_sources_are_another_image(repository: Repository, made: dict[str, Any], codebuild: CodeBuild) -> None:
    first = build_image(repository, made, "serving", poll_s=0)
    with zipfile.ZipFile(repository.build / "serving-image.zip", "a") as archive:
        archive.writestr("more", "")

    assert build_image(repository, made, "serving", poll_s=0) != first
    versions = [request["sourceVersion"] for request in codebuild.started]
    assert len(set(versions)) == 2, "the second build would be given the first one's sources"


def test_a_failed_build_shows_the_end_of_its_log_and_why(
    repository: Repository, made: dict[str, Any], codebuild: CodeBuild, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = boto3.client("logs", region_name="us-east-1")
    logs.create_log_stream(logGroupName=GROUP, logStreamName="1")
    lines = [f"Step {number}\n" for number in range(100)]
    start = int(time.time() * 1000) - 1000
    events = [{"timestamp": start + number, "message": line} for number, line in enumerate(lines)]
    logs.put_log_events(logGroupName=GROUP, logStreamName="1", logEvents=events)
    contexts = [{"statusCode": "COMMAND_EXECUTION_ERROR", "message": "docker build .\n  Reason: exit status 1."}]
    failed = [{"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": contexts}]
    where = {"groupName": GROUP, "streamName": "1"}
    codebuild.answers = [{"buildStatus": "FAILED", "phases": failed, "logs": where}]
    codebuild.works = lambda uri: None

    with pytest.raises(DogbreedError) as error:
        build_image(repository, made, "serving", poll_s=0)

    assert re.search(r"ended as FAILED in BUILD \(docker build \. Reason: exit status 1\)", str(error.value))
    assert "\n" not in str(error.value)
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "Step 99" and "Step 60" in said and "Step 59" not in said


@pytest.mark.parametrize("logs", [{}, {"groupName": GROUP, "streamName": "never written"}])
def test_a_build_that_wrote_no_log_still_says_how_it_ended(
    logs: dict[str, str], repository: Repository, made: dict[str, Any], codebuild: CodeBuild
) -> None:
    codebuild.answers = [{"buildStatus": "TIMED_OUT", "logs": logs}]
    codebuild.works = lambda uri: None
    with pytest.raises(DogbreedError, match="ended as TIMED_OUT"):
        build_image(repository, made, "serving", poll_s=0)


def test_a_build_without_an_image_is_no_success(
    repository: Repository, made: dict[str, Any], codebuild: CodeBuild
) -> None:
    codebuild.works = lambda uri: None
    with pytest.raises(DogbreedError, match=r"succeeded, but .*dogs-serving:[0-9a-f]{16} is not there"):
        build_image(repository, made, "serving", poll_s=0)


@pytest.mark.parametrize("nothing", [None, {}, {"images": {}}])
def test_without_an_apply_there_is_nothing_to_build_with(repository: Repository, nothing: Any) -> None:
    with pytest.raises(DogbreedError, match="Run `make apply`"):
        build_image(repository, nothing, "serving")


def test_an_unknown_image_is_one_clear_line(repository: Repository) -> None:
    with pytest.raises(DogbreedError, match=r"no image 'server'.*serving, training"):
        build_image(repository, {}, "server")


def test_a_repository_that_is_gone_is_one_clear_line(repository: Repository, made: dict[str, Any]) -> None:
    boto3.client("ecr", region_name="us-east-1").delete_repository(repositoryName="dogs-serving")
    with pytest.raises(DogbreedError, match=r"no repository dogs-serving.*make apply"):
        build_image(repository, made, "serving")


def test_what_aws_refuses_is_one_clear_line(repository: Repository, made: dict[str, Any]) -> None:
    with pytest.raises(DogbreedError, match=r"AWS refuses PutObject \(NoSuchBucket: .*Use credentials") as error:
        build_image(repository, {**made, "artifacts_bucket": "gone"}, "serving")
    assert "\n" not in str(error.value)


def test_the_local_environment_says_that_it_needs_none() -> None:
    done = dogbreed("infra", "image", "--env", "local", cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert "endpoints run as processes" in one_line(done.stderr) and "ENV=dev" in done.stderr


# ------------------------------------------------------------------------------------------------ the build itself

BUILDSPEC = Path(__file__).parents[2] / "terraform" / "modules" / "training" / "buildspec.yml"
URI = f"{REGISTRY}/dogs-serving:0123456789abcdef"
FIND = "aws ecr describe-images --repository-name dogs-serving --image-ids imageTag=0123456789abcdef"
LOG_IN = ["aws ecr get-login-password", f"docker login --username AWS --password-stdin {REGISTRY}"]
BUILD = f"docker buildx build --provenance=false --output type=docker --tag {URI} ."
PUSH = f"docker push {URI}"

# Stands in for `aws` and `docker`: writes down how it was called, and exits with what `exits.json` says of that call,
# each time the next of the list and then the last, else with 0.
COMMAND = """\
#!{python}
import json, sys
from pathlib import Path
here = Path(__file__).parent
call = " ".join([Path(__file__).name, *sys.argv[1:]])
if sys.argv[1] == "login" and sys.stdin.read() != "token\\n":
    sys.exit("no password")
if sys.argv[-1] == "get-login-password":
    print("token")
with (here / "calls").open("a+") as file:  # one write: the two of a pipe run at the same time
    file.seek(0)
    before = file.read().splitlines().count(call)
    file.write(call + "\\n")
exits = json.loads((here / "exits.json").read_text()).get(call, [0])
sys.exit(exits[min(before, len(exits) - 1)])
"""


def build(folder: Path, uri: str, exits: dict[str, list[int]]) -> tuple[int, list[str], str]:
    """Runs buildspec.yml as CodeBuild does, in one shell; its exit status, calls and output.

    After a failed pre_build nothing more runs. After a failed build post_build does, and is told so.
    """
    folder.mkdir()
    for name in ("aws", "docker"):
        (folder / name).write_text(COMMAND.format(python=sys.executable))
        (folder / name).chmod(0o755)
    (folder / "exits.json").write_text(json.dumps(exits))
    phases = yaml.safe_load(BUILDSPEC.read_text())["phases"]
    before, building, after = ("\n".join(phases[p]["commands"]) for p in ("pre_build", "build", "post_build"))
    script = f"""
{before}
set +e
( set -e; {building}
)
export CODEBUILD_BUILD_SUCCEEDING=$((! $?))
set -e
{after}"""
    environ = {"PATH": f"{folder}:/usr/bin:/bin", "IMAGE_URI": uri}
    done = subprocess.run(["bash", "-ec", script], env=environ, cwd=folder, capture_output=True, text=True, timeout=60)
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return done.returncode, calls, done.stdout


@pytest.mark.parametrize(
    ("exits", "status", "calls"),
    [
        ({FIND: [254]}, 0, [FIND, *LOG_IN, BUILD, PUSH]),
        ({}, 0, [FIND, *LOG_IN]),
        ({FIND: [254], LOG_IN[1]: [1]}, 1, [FIND, *LOG_IN]),
        ({FIND: [254], BUILD: [1]}, 1, [FIND, *LOG_IN, BUILD]),
        ({FIND: [254, 0], PUSH: [1]}, 0, [FIND, *LOG_IN, BUILD, PUSH, FIND]),
        ({FIND: [254], PUSH: [1]}, 254, [FIND, *LOG_IN, BUILD, PUSH, FIND]),
    ],
    ids=["built", "there already", "no access", "failed build", "another build was faster", "failed push"],
)
def test_the_buildspec_builds_and_pushes_what_is_not_there(
    exits: dict[str, list[int]], status: int, calls: list[str], tmp_path: Path
) -> None:
    ended, called, said = build(tmp_path / "bin", URI, exits)
    assert (ended, called) == (status, calls)
    assert ("already there" in said) == (not exits)


def test_a_build_that_was_started_without_an_image_says_how_to_start_one(tmp_path: Path) -> None:
    status, calls, said = build(tmp_path / "bin", "none", {})
    assert (status, calls) == (1, []) and "make image ENV=" in said
