"""The security scans: ours has no findings, and each kind of fault that is planted is found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dogbreed.aws import scan as module
from dogbreed.aws.repository import Repository
from dogbreed.aws.scan import Report, checkov, judge, mocked_bootstrap, mocked_states, scan
from dogbreed.errors import DogbreedError

ROOT = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("SCAN_TOOLS") or ROOT / ".venv-scan" / "bin")

pytestmark = pytest.mark.slow


def test_there_are_no_findings_in_source_plan_and_policies() -> None:
    report = scan(Repository(ROOT), TOOLS)
    print(report)
    assert report.failed == []
    assert report.passed["checkov, source"] > 200 and report.passed["checkov, plan"] > 100
    assert report.passed["cloudsplaining, IAM policies"] > 8
    assert all(len(line.rpartition(": ")[2]) > 20 for line in report.skipped), "a skip without a reason"


def test_missing_scanners_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DogbreedError, match=r"no scanners in .*Run `make scan`"):
        scan(Repository(ROOT), tmp_path)


BUCKET = 'resource "aws_s3_bucket" "planted" {\n  bucket = "planted"\n%s}\n'


def source_findings(folder: Path, **files: str) -> Report:
    for name, text in files.items():
        (folder / name.replace("_tf", ".tf")).write_text(text)
    report = Report()
    checkov(report, "planted", TOOLS, ["--directory", str(folder)], *module._SOURCE_OPTIONS)
    return report


def test_faults_planted_in_the_source_are_found(tmp_path: Path) -> None:
    report = source_findings(
        tmp_path,
        main_tf=BUCKET % ""
        + 'resource "aws_instance" "planted" {\n  ami = "ami-1"\n  instance_type = "t3.micro"\n}\n'
        + 'resource "aws_security_group_rule" "planted" {\n  type = "ingress"\n  from_port = 22\n  to_port = 22\n'
        '  protocol = "tcp"\n  cidr_blocks = ["0.0.0.0/0"]\n  security_group_id = "sg-1"\n}\n',
        Dockerfile='FROM python:latest\nENV PASSWORD="x"\nADD https://example.org/a /a\n',
        secret_tf='locals {\n  key = "AKIA'
        + "IOSFODNN7ABCDEF2"
        + '"\n  value = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYABCDEFGHIJ"\n}\n',
    )
    found = " ".join(report.failed)
    for check in ("CKV2_AWS_6", "CKV_AWS_79", "CKV_AWS_24", "CKV_DOCKER_7", "CKV_SECRET_"):
        assert check in found, check


def test_a_skip_is_reported_with_its_reason(tmp_path: Path) -> None:
    report = source_findings(
        tmp_path, main_tf=BUCKET % "  #checkov:skip=CKV_AWS_144:One region is enough for pictures\n"
    )
    assert any("CKV_AWS_144" in s and s.endswith("One region is enough for pictures") for s in report.skipped)
    assert not any("CKV_AWS_144" in line for line in report.failed)


def test_what_cannot_be_read_and_nothing_at_all_are_failures(tmp_path: Path) -> None:
    assert any("nothing was checked" in line for line in source_findings(tmp_path).failed)
    report = source_findings(tmp_path, main_tf='resource "aws_s3_bucket" {{{\n', other_tf=BUCKET % "")
    assert any("cannot be read" in line for line in report.failed)


def test_a_fault_planted_in_a_plan_is_found(tmp_path: Path) -> None:
    values = {"bucket": "planted", "force_destroy": None, "tags": None}
    resource = {"address": "aws_s3_bucket.planted", "mode": "managed", "type": "aws_s3_bucket", "name": "planted"}
    change = {"actions": ["create"], "before": None, "after": values, "after_unknown": {}}
    plan = {
        "format_version": "1.2",
        "terraform_version": "1.11.4",
        "planned_values": {"root_module": {"resources": [{**resource, "values": values}]}},
        "resource_changes": [{**resource, "change": change}],
        "configuration": {"root_module": {"resources": [{**resource, "expressions": {}}]}},
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    report = Report()
    checkov(report, "plan", TOOLS, ["--file", str(tmp_path / "plan.json")], "--framework", "terraform_plan")
    assert any("CKV2_AWS_6 aws_s3_bucket.planted" in line for line in report.failed)


# ---------------------------------------------------------------------------------------------- policies


def state(*statements: dict[str, Any], kind: str = "aws_iam_role_policy") -> dict[str, Any]:
    policy = {"Version": "2012-10-17", "Statement": [{"Sid": "Planted", "Effect": "Allow", **s} for s in statements]}
    values = {"policy": json.dumps(policy)}
    inner = {"resources": [{"address": f"module.m.{kind}.planted", "mode": "managed", "type": kind, "values": values}]}
    return {"resources": [], "child_modules": [inner]}


EVERYTHING, ONE = "*", "arn:aws:sagemaker:us-east-1:123456789012:endpoint/x"
FAULTS = [
    (["iam:PassRole", "lambda:CreateFunction", "lambda:InvokeFunction"], EVERYTHING, "privilege escalation"),
    (["iam:PassRole"], EVERYTHING, "resource exposure"),
    (["s3:GetObject"], EVERYTHING, "data exfiltration"),
    (["sagemaker:*"], ONE, "service wildcard"),
    (["*"], EVERYTHING, "privilege escalation"),
    (["sagemaker:DeleteEndpoint"], EVERYTHING, "infrastructure modification"),
]


@pytest.mark.parametrize(("actions", "resource", "finding"), FAULTS, ids=lambda value: str(value))
@pytest.mark.parametrize("kind", ["aws_iam_role_policy", "aws_iam_policy"])
def test_a_policy_that_allows_too_much_is_found(actions: list[str], resource: str, finding: str, kind: str) -> None:
    report = Report()
    harmless = {"Action": "sqs:SendMessage", "Resource": "arn:aws:sqs:us-east-1:1:q"}
    judge(report, [state(harmless, {"Action": actions, "Resource": resource}, kind=kind)], TOOLS)
    assert any(finding in line and f"module.m.{kind}.planted" in line for line in report.failed), report.failed
    assert report.passed["cloudsplaining, IAM policies"] == 0


def test_a_policy_that_allows_all_but_something_is_found() -> None:
    report = Report()
    judge(report, [state({"NotAction": "iam:*", "Resource": "*"})], TOOLS)
    assert any("NotAction" in line for line in report.failed)


def test_a_policy_that_names_what_it_allows_passes() -> None:
    report = Report()
    judge(report, [state({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::pictures/*"})], TOOLS)
    assert report.failed == [] and report.passed["cloudsplaining, IAM policies"] == 1


def test_policies_of_aws_and_none_at_all_are_failures() -> None:
    attached = {
        "address": "aws_iam_role_policy_attachment.planted",
        "mode": "managed",
        "type": "aws_iam_role_policy_attachment",
        "values": {"policy_arn": "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"},
    }
    report = Report()
    judge(report, [{"resources": [attached]}], TOOLS)
    assert any("attaches arn:aws:iam::aws:policy/AmazonSageMakerFullAccess" in line for line in report.failed)
    assert "policies: none was found" in report.failed


def test_a_policy_planted_in_the_root_reaches_the_judge(tmp_path: Path, copy_of_root: Callable[[Path], Path]) -> None:
    root = copy_of_root(tmp_path)
    policy = '{ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = "iam:PassRole", Resource = "*" }] }'
    planted = f'resource "aws_iam_role_policy" "planted" {{\n  role = "r"\n  policy = jsonencode({policy})\n}}\n'
    (root / "planted.tf").write_text(planted)
    report = Report()
    judge(report, mocked_states(Repository(ROOT), root, [module.EVERYTHING]), TOOLS)
    assert "policy aws_iam_role_policy.planted: resource exposure, iam:PassRole" in report.failed


def test_a_policy_planted_in_bootstrap_reaches_the_judge(tmp_path: Path, copy_of_root: Callable[[Path], Path]) -> None:
    root = copy_of_root(tmp_path)
    path = root / "bootstrap" / "write.tf"
    path.write_text(path.read_text().replace('Action   = "sns:Unsubscribe"', 'Action   = "iam:PassRole"'))
    report = Report()
    judge(report, [mocked_bootstrap(Repository(ROOT), root)], TOOLS)
    assert 'policy aws_iam_policy.this["write-hosts"]: resource exposure, iam:PassRole' in report.failed
    assert report.passed["cloudsplaining, IAM policies"] == 8


@pytest.fixture
def copy_of_root() -> Callable[[Path], Path]:
    return lambda folder: module.copy_of(Repository(ROOT), folder)
