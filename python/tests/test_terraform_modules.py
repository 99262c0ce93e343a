"""`terraform test` of every module, of the root and of bootstrap: each decision, with the provider mocked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dogbreed.aws.package import PACKAGES
from dogbreed.aws.provider_mirror import cli_configuration
from dogbreed.aws.repository import Repository

ROOT = Path(__file__).parents[2]
TESTED = sorted(path.parent.relative_to(ROOT / "terraform") for path in (ROOT / "terraform").rglob("tests"))
ENVIRONMENTS = sorted(path.stem for path in (ROOT / "terraform" / "environments").glob("*.tfvars"))


def test_every_part_has_tests() -> None:
    parts = [Path(), Path("bootstrap"), *(Path("modules") / m.name for m in (ROOT / "terraform" / "modules").iterdir())]
    assert sorted(parts) == TESTED


class Tree:
    """A copy of the infrastructure with stand-ins for the packages, in which `terraform test` leaves its files."""

    def __init__(self, folder: Path) -> None:
        self.terraform = folder / "terraform"
        shutil.copytree(ROOT / "terraform", self.terraform, ignore=shutil.ignore_patterns(".terraform", "*.auto.*"))
        shutil.copytree(ROOT / "ec2", folder / "ec2")
        (folder / "build").mkdir()
        for package in PACKAGES:  # nothing is uploaded, but they have to be there
            (folder / "build" / package).touch()

    def test(self, part: Path, *options: str) -> str:
        """What `terraform test` says of this part, all of which has to pass."""
        folder = self.terraform / part
        lock = folder / ".terraform.lock.hcl"
        if not lock.exists():
            shutil.copy(self.terraform / ".terraform.lock.hcl", lock)
        said = self._run(folder, ["init", "-backend=false"], ["test", *options])
        assert "Success! " in said and "Success! 0 passed" not in said
        return said

    def needed_by(self, node: str) -> set[str]:
        """All that Terraform has to work out, or make, before this part of the root."""
        local = 'terraform {\n  backend "local" {}\n}\n'  # without a backend there is no graph
        (self.terraform / "local_override.tf").write_text(local)
        graph = self._run(self.terraform, ["init"], ["graph", "-type=plan"])
        edges = re.findall(r'"\[root\] ([^"]+)" -> "\[root\] ([^"]+)"', graph)
        found: set[str] = set()
        todo = {f"{node} (expand)"}
        while todo:
            found |= todo
            todo = {needed for needing, needed in edges if needing in todo} - found
        return found

    def _run(self, folder: Path, *commands: list[str]) -> str:
        """What the last of these commands of Terraform says; all have to succeed."""
        configuration = str(cli_configuration(Repository(ROOT)))
        environ = {**os.environ, "TF_CLI_CONFIG_FILE": configuration, "CHECKPOINT_DISABLE": "1"}
        for command in commands:
            done = subprocess.run(
                ["terraform", *command, "-no-color"],
                cwd=folder,
                env=environ,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def plan(self, file: str, *options: str) -> dict[str, dict[str, Any]]:
        """What the run in terraform/tests/plans/<file> would make, by address."""
        only = ["-test-directory=tests/plans", f"-filter=tests/plans/{file}"]
        said = [json.loads(line) for line in self.test(Path(), *only, *options, "-json", "-verbose").splitlines()]
        (plan,) = (line["test_plan"] for line in said if line["type"] == "test_plan")
        return {r["address"]: r["change"]["after"] for r in plan["resource_changes"]}


@pytest.mark.slow
@pytest.mark.parametrize("part", TESTED, ids=lambda part: part.name or "root")
def test_part(part: Path, tmp_path: Path) -> None:
    Tree(tmp_path).test(part)


@pytest.mark.slow
def test_what_builds_the_images_is_known_before_there_is_an_endpoint(tmp_path: Path) -> None:
    """An apply that stops because the endpoint's image is missing has to leave what `make image` builds it with."""
    tree = Tree(tmp_path)
    needed, served = (
        {match[0] for name in tree.needed_by(f"output.{output}") if (match := re.match(r"module\.\w+", name))}
        for output in ("image_build", "deployment")
    )
    assert needed == {"module.storage", "module.training"}
    assert {"module.endpoint", "module.observability"} <= served


@pytest.mark.slow
def test_each_environment(tmp_path: Path) -> None:
    """The environments' own files, each with a model. `terraform test` takes such files on its command line only."""
    tree = Tree(tmp_path)
    planned = {e: tree.plan("environment.tftest.hcl", f"-var-file=environments/{e}.tfvars") for e in ENVIRONMENTS}

    def variant(environment: str) -> dict[str, Any]:
        configuration = planned[environment]["module.endpoint.aws_sagemaker_endpoint_configuration.this[0]"]
        return dict(configuration["production_variants"][0])

    def strategy(environment: str) -> str:
        (deployment,) = planned[environment]["module.endpoint.aws_sagemaker_endpoint.this[0]"]["deployment_config"]
        (policy,) = deployment["blue_green_update_policy"]
        return str(policy["traffic_routing_configuration"][0]["type"])

    assert {e: variant(e)["initial_instance_count"] for e in planned} == {"dev": 1, "local": 1, "prod": 2}
    assert {e: strategy(e) for e in planned} == {"dev": "ALL_AT_ONCE", "local": "ALL_AT_ONCE", "prod": "CANARY"}
    in_network = {e for e, resources in planned.items() if "module.network[0].aws_vpc.this" in resources}
    assert in_network == {"dev", "prod"}
    # Only the local environment's data may go with it, and everyone's images: they are built from the sources.
    deleting = {
        address for address, after in planned["prod"].items() if after.get("force_destroy") or after.get("force_delete")
    }
    assert deleting == {f'module.training.aws_ecr_repository.image["{name}"]' for name in ("serving", "training")}
    buckets = [after for address, after in planned["local"].items() if "aws_s3_bucket.this[" in address]
    assert buckets and all(bucket["force_destroy"] for bucket in buckets)


@pytest.mark.slow
def test_settings_arrive(tmp_path: Path) -> None:
    planned = Tree(tmp_path).plan("settings.tftest.hcl")
    logs = {a: after["retention_in_days"] for a, after in planned.items() if "aws_cloudwatch_log_group." in a}
    assert len(logs) >= 5 and set(logs.values()) == {90}, logs

    expired = {
        rule["filter"][0]["prefix"]: rule["expiration"][0]["days"]
        for address, after in planned.items()
        if "aws_s3_bucket_lifecycle_configuration." in address
        for rule in after["rule"]
        if any("days" in expiration for expiration in rule["expiration"])
    }
    assert expired["capture/"] == expired["async/"] == 7 and expired[""] == 90, expired

    function = planned["module.classify_function[0].aws_lambda_function.this"]
    variables = function["environment"][0]["variables"]
    assert function["timeout"] == 60
    assert variables["MAX_PICTURE_MIB"] == "3" and variables["FETCH_EXEMPT_HOSTS"] == "127.0.0.1:8000"

    (budget,) = (after for address, after in planned.items() if "aws_budgets_budget." in address)
    assert budget["cost_filter"] == [{"name": "TagKeyValue", "values": ["user:Project$dogbreed"]}]
    assert planned["module.ec2_trainer.aws_launch_template.trainer"]["image_id"] == "ami-0123456789abcdef0"
