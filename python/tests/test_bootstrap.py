"""terraform/bootstrap made for real, by Terraform and its AWS provider, in a local AWS."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from python_terraform import IsFlagged, Terraform

from dogbreed.aws.provider_mirror import cli_configuration
from dogbreed.aws.repository import Repository
from localaws import server

ROOT = Path(__file__).parents[2]
OPTIONS = {"var": {"github_repository": "owner/name"}, "input": False, "no_color": IsFlagged}

pytestmark = pytest.mark.slow


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terraform]:
    """A copy of the root beside a local AWS."""
    folder = shutil.copytree(
        ROOT / "terraform" / "bootstrap", tmp_path / "bootstrap", ignore=shutil.ignore_patterns(".terraform", "tests")
    )
    environ = server.up(0, tmp_path / "local-aws").environment | {
        "TF_CLI_CONFIG_FILE": str(cli_configuration(Repository(ROOT))),
        "CHECKPOINT_DISABLE": "1",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    yield Terraform(working_dir=str(folder))
    server.down(tmp_path / "local-aws")


def test_it_is_made_once_and_keeps_the_state_of_other_roots_safe(bootstrap: Terraform) -> None:
    status, out, err = bootstrap.init()
    assert status == 0, out + err
    status, out, err = bootstrap.apply(skip_plan=True, **OPTIONS)
    assert status == 0, out + err
    status, out, err = bootstrap.plan(detailed_exitcode=IsFlagged, **OPTIONS)
    assert status == 0, out + err

    bucket = bootstrap.output()["state_bucket"]["value"]
    s3 = boto3.client("s3")
    s3.put_object(Bucket=bucket, Key="dogbreed/dev/terraform.tfstate", Body=b"{}")
    head = s3.head_object(Bucket=bucket, Key="dogbreed/dev/terraform.tfstate")
    assert (head["ServerSideEncryption"], "VersionId" in head) == ("aws:kms", True)
    with pytest.raises(ClientError, match="403"):  # what `encrypt = true` without a key would do
        s3.put_object(Bucket=bucket, Key="dogbreed/dev/terraform.tfstate", Body=b"{}", ServerSideEncryption="AES256")

    status, _, err = bootstrap.destroy(force=None, auto_approve=IsFlagged, **OPTIONS)
    assert status != 0 and "prevent_destroy" in err
    assert s3.get_object(Bucket=bucket, Key="dogbreed/dev/terraform.tfstate")["Body"].read() == b"{}"
