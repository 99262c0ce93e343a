"""Builds a container image without a Docker of one's own: in the CodeBuild project that Terraform owns.

An image's tag is the hash of its sources (build/<name>-image.zip), which Terraform works out in the same way. So an
image that is in its repository needs no build, and a plan can tell whether the one it wants is there.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from dogbreed.aws.repository import Repository
from dogbreed.errors import DogbreedError
from dogbreed.files import sha256_file

IMAGES = ("serving", "training")
LOG_LINES = 40  # of a failed build: enough for Docker's last step


def image_uri(repository: Repository, made: Mapping[str, Any], name: str) -> str:
    """The image of the present sources, as packed in build/; made: Terraform's output `image_build` or `deployment`."""
    tag = sha256_file(repository.build / f"{name}-image.zip")[:16]
    return f"{made['images'][name].rpartition(':')[0]}:{tag}"


def build_image(repository: Repository, made: Mapping[str, Any] | None, name: str, *, poll_s: float = 5.0) -> str:
    """The URI of the image `name` of the packed sources, which is built unless it is there.

    Progress goes to standard error, and of a failed build the end of its log.

    Args:
        made: Terraform's output `image_build`.

    Raises:
        DogbreedError: nothing has been applied, AWS refuses, or the build fails.
    """
    import boto3

    if name not in IMAGES:
        raise DogbreedError(f"There is no image {name!r}", f"Choose one of: {', '.join(IMAGES)}.")
    if not made or name not in made.get("images", {}):
        raise DogbreedError(
            "There is nothing yet that builds this image", "Run `make apply` for the environment first."
        )
    uri = image_uri(repository, made, name)
    session = boto3.Session(region_name=made["region"])
    with _told():
        if _exists(session, uri):
            _say(f"{uri} is there already.")
            return uri
        build = _start(session, repository, made, name, uri)
        _say(f"Building {uri}")
        build = _follow(session.client("codebuild"), build, poll_s)
        if build["buildStatus"] != "SUCCEEDED":
            _say(*_log(session, build))
            raise DogbreedError(
                f"The build {build['id']} ended as {build['buildStatus']}{_reason(build)}",
                "Mend what the end of its log says, above, and run this again.",
            )
        if not _exists(session, uri):
            raise DogbreedError(
                f"The build {build['id']} succeeded, but {uri} is not there",
                "Run this again; if that does not help, compare the project's buildspec with the one in terraform/.",
            )
    return uri


def _exists(session: Any, uri: str) -> bool:
    name, _, tag = uri.partition("/")[2].rpartition(":")
    ecr = session.client("ecr")
    try:
        ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])
    except ecr.exceptions.ImageNotFoundException:
        return False
    except ecr.exceptions.RepositoryNotFoundException:
        raise DogbreedError(f"There is no repository {name}", "Run `make apply` for the environment first.") from None
    return True


def _start(session: Any, repository: Repository, made: Mapping[str, Any], name: str, uri: str) -> dict[str, Any]:
    """Hands over the sources and starts a build of just this version of them."""
    bucket, key = made["artifacts_bucket"], f"image/{name}.zip"
    with (repository.build / f"{name}-image.zip").open("rb") as source:
        stored = session.client("s3").put_object(
            Bucket=bucket, Key=key, Body=source, ContentType="application/zip",
            ServerSideEncryption="aws:kms", SSEKMSKeyId=made["kms_key_arn"],
        )  # fmt: skip
    started = session.client("codebuild").start_build(
        projectName=made["project"],
        sourceTypeOverride="S3",
        sourceLocationOverride=f"{bucket}/{key}",
        sourceVersion=stored["VersionId"],
        environmentVariablesOverride=[{"name": "IMAGE_URI", "value": uri, "type": "PLAINTEXT"}],
    )
    return dict(started["build"])


def _follow(codebuild: Any, build: dict[str, Any], poll_s: float) -> dict[str, Any]:
    """Tells of each phase that has ended, until the build has; one line each, also where nobody watches."""
    told: set[str] = set()
    while True:
        (build,) = codebuild.batch_get_builds(ids=[build["id"]])["builds"]
        for phase in build.get("phases", []):
            if phase.get("phaseStatus") and phase["phaseType"] not in told:
                told.add(phase["phaseType"])
                _say(f"{phase['phaseType']}: {phase['phaseStatus']}, {phase.get('durationInSeconds', 0)} s")
        if build["buildStatus"] != "IN_PROGRESS":
            return dict(build)
        time.sleep(poll_s)


def _reason(build: Mapping[str, Any]) -> str:
    """What CodeBuild says of the phase that failed, in one line."""
    for phase in build.get("phases", []):
        if phase.get("phaseStatus", "SUCCEEDED") != "SUCCEEDED":
            said = " ".join(" ".join(c["message"].split()) for c in phase.get("contexts", []) if c.get("message"))
            return f" in {phase['phaseType']}" + (f" ({said.rstrip('.')})" if said else "")
    return ""


def _log(session: Any, build: Mapping[str, Any]) -> list[str]:
    """The end of the build's log; empty where it never began to write one."""
    where = build.get("logs", {})
    if not where.get("groupName") or not where.get("streamName"):
        return []
    logs = session.client("logs")
    with contextlib.suppress(logs.exceptions.ResourceNotFoundException):
        events = logs.get_log_events(
            logGroupName=where["groupName"], logStreamName=where["streamName"], limit=LOG_LINES, startFromHead=False
        )["events"]
        return [event["message"].rstrip("\n") for event in events]
    return []


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Makes one line of what AWS refuses."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        reason = " ".join(error.response["Error"].get("Message", "").split()).rstrip(".")
        raise DogbreedError(
            f"AWS refuses {error.operation_name} ({error.response['Error']['Code']}: {reason})",
            "Use credentials with bootstrap's policy `<project>-build-images`, or with the same rights.",
        ) from None
    except BotoCoreError as error:
        raise DogbreedError(f"AWS cannot be asked ({str(error).rstrip('.')})", "Check network and sign-in.") from None


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)
