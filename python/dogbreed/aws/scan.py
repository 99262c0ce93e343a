"""Security scans: of the source, of the plan that it renders to, and of every IAM policy in it. One finding fails.

checkov reads the source and a plan of `dev` with everything switched on, made against the local AWS. What only an apply
knows (the key's ARN, and with it whether anything is encrypted, and all policies) comes from an apply with a mocked
provider (`terraform test`), which needs no account and takes seconds. cloudsplaining judges the policies.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dogbreed.aws.package import PACKAGES
from dogbreed.aws.provider_mirror import cli_configuration
from dogbreed.aws.repository import Repository
from dogbreed.aws.terraform import local_environ
from dogbreed.errors import DogbreedError

ACCOUNT, REGION = "123456789012", "us-east-1"
SOURCES = ("terraform", "docker", "ec2", "lambda", "python/dogbreed", "python/localaws", ".ci")

_MODEL = {"dev": {"data_url": f"s3://dogbreed-dev-artifacts-{ACCOUNT}-{REGION}/models/1/model.tar.gz"}}
_READERS = {"reader_account_ids": ["210987654321"], "external_bucket_names": ["someone-elses-pictures"]}
_READERS["external_key_arns"] = [f"arn:aws:kms:{REGION}:210987654321:key/11111111-2222-3333-4444-555555555555"]
EVERYTHING: dict[str, Any] = {
    "models": _MODEL,
    "data": _READERS,
    "ec2_trainer": {"running": True, "data_url": f"s3://dogbreed-dev-data-{ACCOUNT}-{REGION}/dogImages/"},
    "endpoint": {"data_capture_percent": 10},
    "classify_function": {"provisioned_concurrency_max": 5, "in_network": True},
    "training": {"online_feature_store": True},
    "alarms": {"notify_emails": ["someone@example.org"]},
}
# What excludes something above is scanned in a second round.
ALTERNATIVES: dict[str, Any] = {
    "models": _MODEL,
    "notebook": {"kind": "studio"},
    "endpoint": {"kind": "async"},
    "classify_function": {"enabled": False},
}

# The actions on resource "*" that AWS does not let one narrow further, or that narrowing would not make safer.
MEANT: dict[tuple[str, str], str] = {
    ("credentials exposure", "ecr:GetAuthorizationToken"): "AWS knows no resource for it; what may be pulled is named",
}


@dataclass
class Report:
    """What was looked at. `failed` and `skipped` are lines for people; a skip carries its reason."""

    passed: dict[str, int] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)  # by check and resource, as the source gives them
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        skipped = [f"  {line}" for line in self.skipped]
        failed = [f"  {line}" for line in self.failed]
        return "\n".join([
            *(f"{what}: {count} passed" for what, count in self.passed.items()),
            *([f"{len(skipped)} skipped, each for a reason:", *skipped] if skipped else []),
            *([f"{len(failed)} failed:", *failed] if failed else ["0 failed"]),
        ])  # fmt: skip


def scan(repository: Repository, tools: Path) -> Report:
    """Scans source, plan and policies with the scanners in the folder `tools`."""
    if not (tools / "checkov").is_file():
        raise DogbreedError(f"There are no scanners in {tools}", "Run `make scan`, which installs them.")
    report = Report()
    folders = [repository.root / name for name in SOURCES if (repository.root / name).is_dir()]
    checkov(report, "source", tools, [o for folder in folders for o in ("--directory", str(folder))], *_SOURCE_OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        root = copy_of(repository, Path(folder))
        states = mocked_states(repository, root, [EVERYTHING, ALTERNATIVES])
        plan = Path(folder) / "plan.json"
        plan.write_text(json.dumps(completed(render_plan(repository, root, EVERYTHING), states[0])), encoding="utf-8")
        checkov(report, "plan", tools, ["--file", str(plan)], "--framework", "terraform_plan")
        states.append(mocked_bootstrap(repository, root))
    judge(report, states, tools)
    return report


# ---------------------------------------------------------------------------------------------- checkov

_SOURCE_OPTIONS = (
    "--framework", "terraform", "dockerfile", "secrets", "--skip-path", r"\.terraform/", "--skip-path", "/tests/",
)  # fmt: skip


def checkov(report: Report, what: str, tools: Path, target: list[str], *options: str) -> None:
    """Adds checkov's results. What it could not read, or finding nothing to check, is a failure too."""
    command = [str((tools / "checkov").absolute()), *target, *options]
    command += ["--output", "json", "--compact", "--skip-download", "--download-external-modules", "false"]
    environ = {**os.environ, "LOG_LEVEL": "ERROR", "BC_SKIP_MAPPING": "TRUE"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    try:
        parts = list(_documents(done.stdout))
    except ValueError:
        raise DogbreedError(f"checkov failed on the {what}", f"It says: {done.stderr.strip()[-300:]}") from None
    results = [part.get("results", {}) for part in parts]
    passed = {_check(c) for r in results for c in r.get("passed_checks", [])}
    failed = {(_key(c), _check(c)) for r in results for c in r.get("failed_checks", [])}
    skipped = {(_key(c), _check(c)) for r in results for c in r.get("skipped_checks", [])}
    report.reasons |= {
        _key(c): c["check_result"]["suppress_comment"] for r in results for c in r.get("skipped_checks", [])
    }
    # A plan has no comments: what the source skips for a reason is skipped there too.
    skipped |= {(key, line) for key, line in failed if key in report.reasons}
    report.failed += sorted(f"{what}: {line}" for key, line in failed if key not in report.reasons)
    report.failed += [f"{what}: cannot be read: {path}" for r in results for path in r.get("parsing_errors", [])]
    report.skipped += sorted(f"{what}: {line}: {report.reasons[key]}" for key, line in skipped)
    report.passed[f"checkov, {what}"] = len(passed)
    if not passed:
        report.failed.append(f"{what}: nothing was checked")


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """The reports in checkov's output: one document per folder, each one report or a list of them."""
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield from document if isinstance(document, list) else [document]
        text = text[end:].strip()


def _key(result: Mapping[str, Any]) -> tuple[str, str]:
    """The check and the resource, without the indices of instances."""
    return result["check_id"], re.sub(r"\[[^]]*\]", "", result["resource"])


def _check(result: Mapping[str, Any]) -> str:
    return f"{' '.join(_key(result))} ({result['check_name']})"


# ---------------------------------------------------------------------------------------------- policies


def resources_of(module: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The resources in a module of a state or plan, and in the modules below it."""
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from resources_of(child)


def policies_of(module: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The identity policies, by address."""
    for resource in resources_of(module):
        if resource["type"] in ("aws_iam_role_policy", "aws_iam_policy") and resource["mode"] == "managed":
            yield resource["address"], json.loads(resource["values"]["policy"])


def aws_managed(module: Mapping[str, Any]) -> Iterator[str]:
    """The policies written by AWS that are attached: they grow without anybody here reviewing them."""
    for resource in resources_of(module):
        arn = str(resource.get("values", {}).get("policy_arn", ""))
        if resource["type"] == "aws_iam_role_policy_attachment" and ":iam::aws:policy/" in arn:
            yield f"{resource['address']} attaches {arn}"


def judge(report: Report, states: Iterable[Mapping[str, Any]], tools: Path) -> None:
    """Adds what cloudsplaining finds in the policies of these states."""
    states = list(states)
    policies = {
        f"{number} {name}": policy for number, state in enumerate(states) for name, policy in policies_of(state)
    }
    script = Path(__file__).with_name("scan_policies.py")
    done = subprocess.run(
        [str((tools / "python").absolute()), str(script)], input=json.dumps(policies), capture_output=True, text=True
    )
    if done.returncode:
        raise DogbreedError("cloudsplaining failed", f"It says: {done.stderr.strip()[-300:]}")
    clean = {key.partition(" ")[2] for key in policies}
    failed, skipped = set(), set()
    for key, finding, action in json.loads(done.stdout.splitlines()[-1]):  # it warns on standard output
        name = key.partition(" ")[2]
        if reason := MEANT.get((finding, action)):
            skipped.add(f"policy {name}: {finding}, {action}: {reason}")
        else:
            clean.discard(name)
            failed.add(f"policy {name}: {finding}, {action}")
    report.failed += sorted(failed)
    report.skipped += sorted(skipped)
    report.failed += sorted({line for state in states for line in aws_managed(state)})
    if not policies:
        report.failed.append("policies: none was found")
    report.passed["cloudsplaining, IAM policies"] = len(clean)


# ---------------------------------------------------------------------------------------------- Terraform


def copy_of(repository: Repository, folder: Path) -> Path:
    """A copy of the Terraform root that keeps its state in a file, beside empty packages; nothing of it is kept."""
    root = folder / "terraform"
    shutil.copytree(repository.terraform, root, ignore=shutil.ignore_patterns(".terraform", "*.tftest.hcl", "*.auto.*"))
    for name in ("ec2", "lambda", "docker"):
        if (repository.root / name).is_dir():
            shutil.copytree(repository.root / name, folder / name)
    (root / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    (folder / "build").mkdir()
    for name in PACKAGES:
        (folder / "build" / name).write_bytes(b"")
    return root


def render_plan(repository: Repository, root: Path, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of `dev` with these variables, against a local AWS that lives as long as this takes."""
    from localaws import server

    (root / "scan.auto.tfvars.json").write_text(json.dumps(variables))
    state = root.parent / "local-aws"
    environ = _environ(repository, root) | server.up(0, state).environment
    try:
        terraform(root, environ, "init", "-input=false")
        terraform(root, environ, "plan", "-input=false", "-out=scan.tfplan", "-var-file=environments/dev.tfvars")
        return dict(json.loads(terraform(root, environ, "show", "-json", "scan.tfplan")))
    finally:
        server.down(state)
        (root / "scan.auto.tfvars.json").unlink()


def completed(plan: dict[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with what is known only after the apply, taken from the state of a mocked one."""
    known = {resource["address"]: resource["values"] for resource in resources_of(state)}
    unknown: dict[str, dict[str, Any]] = {}
    for change in plan["resource_changes"]:
        names = [
            name for name, is_unknown in (change["change"].get("after_unknown") or {}).items() if is_unknown is True
        ]
        values = known.get(change["address"], {})
        unknown[change["address"]] = {name: values[name] for name in names if values.get(name)}
        change["change"]["after"] = {**(change["change"]["after"] or {}), **unknown[change["address"]]}
        change["change"]["after_unknown"] = {}
    for resource in resources_of(plan["planned_values"]["root_module"]):
        resource["values"] = {**resource.get("values", {}), **unknown.get(resource["address"], {})}
    _name_each_value(plan["configuration"]["root_module"])
    return plan


def _name_each_value(module: dict[str, Any]) -> None:
    """Makes `each.value` the reference that it stands for: what `for_each` goes over."""
    for resource in module.get("resources", []):
        over = resource.get("for_each_expression", {}).get("references", [])
        for expression in resource.get("expressions", {}).values():
            if isinstance(expression, dict) and "each.value" in expression.get("references", []):
                expression["references"] = over
    for call in module.get("module_calls", {}).values():
        _name_each_value(call["module"])


def mocked_states(repository: Repository, root: Path, rounds: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The root modules of the states that an apply with a mocked provider gives, one for each set of variables."""
    environ = _environ(repository, root)
    dev = (root / "environments" / "dev.tfvars").read_text(encoding="utf-8")
    types = {
        kind for path in root.rglob("*.tf") for kind in re.findall(r'^resource "(aws_\w+)"', path.read_text(), re.M)
    }
    mocks = "\n".join(
        f'  mock_resource "{kind}" {{\n    defaults = {json.dumps(_mocked(kind))}\n  }}' for kind in sorted(types)
    )
    runs = "\n".join(
        f'run "round_{number}" {{\n  command = apply\n  variables {{\n    {_assignments(dev, variables)}\n  }}\n}}'
        for number, variables in enumerate(rounds)
    )
    (root / "tests").mkdir(exist_ok=True)
    (root / "tests" / "scan.tftest.hcl").write_text(f'mock_provider "aws" {{\n{mocks}\n{_MOCKED_DATA}}}\n{runs}\n')
    terraform(root, environ, "init", "-input=false", "-backend=false")
    lines = terraform(root, environ, "test", "-verbose", "-json", "-filter=tests/scan.tftest.hcl").splitlines()
    return [dict(found["test_state"]["root_module"]) for line in lines if "test_state" in (found := json.loads(line))]


def mocked_bootstrap(repository: Repository, root: Path) -> dict[str, Any]:
    """The same for bootstrap/ in this copy of the root: the roles of CI, and the boundary of all others."""
    bootstrap = root / "bootstrap"
    (bootstrap / "environments").mkdir()
    (bootstrap / "environments" / "dev.tfvars").write_text('github_repository = "owner/name"\n')
    for path in bootstrap.glob("*.tf"):  # a test removes what it has made, if only from its own memory
        path.write_text(path.read_text().replace("prevent_destroy = true", "prevent_destroy = false"))
    (state,) = mocked_states(repository, bootstrap, [{"external_bucket_names": _READERS["external_bucket_names"]}])
    return state


# Modules and provider check what they are handed, so what is mocked has its service's shape.
_MOCKED = {
    "aws_s3_bucket": {"arn": "arn:aws:s3:::mocked"},
    "aws_iam_role": {"arn": f"arn:aws:iam::{ACCOUNT}:role/mocked"},
    "aws_iam_policy": {"arn": f"arn:aws:iam::{ACCOUNT}:policy/mocked"},
    "aws_kms_key": {"arn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"},
    "aws_sns_topic": {"arn": f"arn:aws:sns:{REGION}:{ACCOUNT}:mocked"},
    "aws_sqs_queue": {"arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:mocked"},
    "aws_cloudwatch_log_group": {"arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:mocked"},
    "aws_launch_template": {"id": "lt-0123456789abcdef0"},
    "aws_vpc_endpoint": {"prefix_list_id": "pl-12345678"},
}


def _mocked(kind: str) -> dict[str, str]:
    return {"arn": f"arn:aws:{kind.split('_')[1]}:{REGION}:{ACCOUNT}:{kind}/mocked", **_MOCKED.get(kind, {})}


_MOCKED_DATA = f"""
  mock_data "aws_caller_identity" {{
    defaults = {{ account_id = "{ACCOUNT}" }}
  }}
  mock_data "aws_region" {{
    defaults = {{ name = "{REGION}" }}
  }}
  mock_data "aws_partition" {{
    defaults = {{ partition = "aws", dns_suffix = "amazonaws.com" }}
  }}
  mock_data "aws_availability_zones" {{
    defaults = {{ names = ["{REGION}a", "{REGION}b", "{REGION}c"] }}
  }}
  mock_data "aws_vpc_endpoint_service" {{
    defaults = {{ availability_zones = ["{REGION}a", "{REGION}b", "{REGION}c"] }}
  }}
  mock_data "aws_ec2_instance_type_offerings" {{
    defaults = {{ locations = ["{REGION}a", "{REGION}b", "{REGION}c"] }}
  }}
  mock_data "aws_subnets" {{
    defaults = {{ ids = ["subnet-0123456789abcdef0"] }}
  }}
  mock_data "aws_s3_objects" {{
    defaults = {{ keys = ["models/1/model.tar.gz"] }}
  }}
"""


def _assignments(tfvars: str, variables: Mapping[str, Any]) -> str:
    """The environment's variables, with ours in place of those of the same name."""
    text = re.sub(r"#.*", "", tfvars)
    own = re.findall(r"^(\w+)\s*=\s*(.+?)(?=^\w+\s*=|\Z)", text, re.M | re.S)
    return "\n    ".join(f"{k} = {v}" for k, v in ({k: v.strip() for k, v in own} | _json(variables)).items())


def _json(variables: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in variables.items()}


def _environ(repository: Repository, root: Path) -> dict[str, str]:
    own = {
        "TF_CLI_CONFIG_FILE": str(cli_configuration(repository)),
        "TF_DATA_DIR": str(root.parent / "terraform-data"),
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
        "AWS_ACCESS_KEY_ID": "mocked",
        "AWS_SECRET_ACCESS_KEY": "mocked",
        "AWS_REGION": REGION,
    }
    return local_environ(dict(os.environ)) | own


def terraform(root: Path, environ: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(["terraform", *arguments], cwd=root, env=dict(environ), capture_output=True, text=True)
    if done.returncode:
        lines = done.stdout.splitlines()
        errors = [line for line in lines if '"diagnostic"' in line] or [*lines, *done.stderr.splitlines()]
        print(*errors[-30:], sep="\n", file=sys.stderr)
        raise DogbreedError(f"`terraform {arguments[0]}` failed on a copy of the root", "Its message is above.")
    return done.stdout
