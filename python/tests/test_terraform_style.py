"""The Terraform code's hygiene: described, used, pinned, formatted, named alike."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest

TERRAFORM = Path(__file__).parents[2] / "terraform"
FOLDERS = [TERRAFORM, TERRAFORM / "bootstrap", *sorted(path.parent for path in TERRAFORM.glob("modules/*/main.tf"))]
MODULES = [folder for folder in FOLDERS if folder.parent.name == "modules"]

folders = pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
modules = pytest.mark.parametrize("module", MODULES, ids=lambda f: f.name)

# The interface that all modules spell alike, where it applies to them.
COMMON = {
    "prefix": "string",
    "tags": "map(string)",
    "kms_key_arn": "string",
    "permissions_boundary_arn": "string",
}


@cache
def parsed(folder: Path) -> dict[str, list[Any]]:
    blocks: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("*.tf")):
        for kind, found in hcl2.loads(path.read_text(encoding="utf-8")).items():
            if isinstance(found, list):
                blocks.setdefault(kind, []).extend(found)
    return blocks


def named(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """The blocks with one label, by it."""
    return {
        _plain(name): body for block in parsed(folder).get(kind, []) for name, body in block.items() if _is_name(name)
    }


def typed(folder: Path, kind: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The blocks with two labels, by both."""
    return {
        (_plain(type_), _plain(name)): body
        for block in parsed(folder).get(kind, [])
        for type_, inner in block.items()
        if _is_name(type_)
        for name, body in inner.items()
        if _is_name(name)
    }


def _is_name(key: str) -> bool:
    return not key.startswith("__")


def _plain(text: Any) -> str:
    return str(text).strip('"')


@cache
def code(folder: Path) -> str:
    """All that a folder's files say outside comments."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.tf")))
    text += "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.tftpl")))
    return re.sub(r"(?m)(^|\s)(#|//).*$", "", text)


def test_the_parser_finds_what_is_there() -> None:
    assert len(MODULES) >= 8
    for folder in FOLDERS:
        text = code(folder)
        assert len(named(folder, "variable")) == len(re.findall(r'(?m)^variable "', text)) > 0
        assert len(named(folder, "output")) == len(re.findall(r'(?m)^output "', text)) > 0
        assert len(typed(folder, "resource")) == len(re.findall(r'(?m)^resource "', text))


@folders
def test_every_variable_has_a_type_and_a_description(folder: Path) -> None:
    for name, variable in named(folder, "variable").items():
        assert "type" in variable, name
        assert len(_plain(variable.get("description", ""))) > 10, name


@folders
def test_every_validation_says_the_fix_in_a_sentence(folder: Path) -> None:
    for name, variable in named(folder, "variable").items():
        for validation in variable.get("validation", []):
            message = _plain(validation["error_message"])
            assert len(message) > 15 and message.rstrip().endswith((".", "…", "}", ")")), f"{name}: {message}"


@modules
def test_a_default_cannot_be_undone_by_null(module: Path) -> None:
    for name, variable in named(module, "variable").items():
        if variable.get("default", "null") not in ("null", "${null}", None):
            assert variable.get("nullable") in (False, "false"), (
                f"{name}: the root passes null for the module's default"
            )


@modules
def test_the_common_interface_is_spelled_alike(module: Path) -> None:
    variables = named(module, "variable")
    for name, kind in COMMON.items():
        if name in variables:
            assert re.sub(r"[${}]", "", _plain(variables[name]["type"])) == kind, name
    assert "prefix" in variables and "tags" in variables


@folders
def test_every_output_has_a_description(folder: Path) -> None:
    for name, output in named(folder, "output").items():
        assert len(_plain(output.get("description", ""))) > 10, name


@folders
def test_nothing_is_declared_that_nothing_uses(folder: Path) -> None:
    text = code(folder)
    unused = [f"var.{name}" for name in named(folder, "variable") if not re.search(rf"\bvar\.{name}\b", text)]
    local = [name for block in parsed(folder).get("locals", []) for name in block if _is_name(name)]
    unused += [f"local.{name}" for name in local if not re.search(rf"\blocal\.{name}\b", text)]
    for type_, name in typed(folder, "data"):
        unused += [f"data.{type_}.{name}"] * (not re.search(rf"\bdata\.{type_}\.{name}\b", text))
    assert unused == []


@folders
def test_versions_are_required(folder: Path) -> None:
    text = (folder / "versions.tf").read_text(encoding="utf-8")
    assert re.search(r'required_version\s*=\s*">= 1\.11"', text)
    assert re.search(r'source\s*=\s*"hashicorp/aws"\s+version\s*=\s*">= 5\.100, < 6\.0"', text)


@modules
def test_a_module_configures_no_provider_and_no_backend(module: Path) -> None:
    assert not re.search(r'(?m)^provider "|^\s*backend "', code(module))


@folders
def test_names_are_nouns_in_snake_case_that_do_not_repeat_the_type(folder: Path) -> None:
    for type_, name in {**typed(folder, "resource"), **typed(folder, "data")}:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name
        words = type_.removeprefix("aws_")
        assert name != words and not name.endswith(f"_{words}"), f"{type_}.{name}"
    for name in [*named(folder, "variable"), *named(folder, "output")]:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name


@folders
def test_a_policy_is_written_out_with_a_name_for_each_statement(folder: Path) -> None:
    assert "aws_iam_policy_document" not in code(folder), "tests with a mocked provider cannot read those"
    assert not re.search(r'Action"?\s*[=:]\s*\[?\s*"\*"', code(folder))
    effects = re.findall(r'\bEffect\s*=\s*"Allow"\s*$|\bEffect\s*=\s*"Deny"\s*$', code(folder), re.M)
    assert len(re.findall(r"\bSid\s*=", code(folder))) >= len(effects)


@modules
def test_every_taggable_kind_that_we_use_is_tagged(module: Path) -> None:
    for (type_, name), body in typed(module, "resource").items():
        if type_ in TAGGABLE:
            assert "tags" in body, f"{type_}.{name}"


TAGGABLE = {
    "aws_s3_bucket", "aws_kms_key", "aws_iam_role", "aws_iam_policy", "aws_vpc", "aws_subnet", "aws_security_group",
    "aws_vpc_endpoint", "aws_lambda_function", "aws_sns_topic", "aws_sqs_queue", "aws_cloudwatch_log_group",
    "aws_cloudwatch_metric_alarm", "aws_sagemaker_model", "aws_sagemaker_endpoint", "aws_sagemaker_domain",
    "aws_sagemaker_endpoint_configuration", "aws_sagemaker_notebook_instance", "aws_ecr_repository",
    "aws_codebuild_project", "aws_cloudwatch_event_rule", "aws_launch_template", "aws_instance",
}  # fmt: skip


@folders
def test_a_scan_is_skipped_only_inside_a_resource_with_a_reason(folder: Path) -> None:
    for path in sorted(folder.glob("*.tf")):
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"checkov:skip=(\S*)(.*)", text):
            assert re.fullmatch(r"CKV2?_[A-Z]+_\d+:.*", found[1] + found[2]), f"{path.name}: {found[0]}"
            assert len((found[1] + found[2]).partition(":")[2].strip()) > 20, f"{path.name}: no reason: {found[0]}"
            before = text[: found.start()]
            assert before.count("{") > before.count("}"), f"{path.name}: outside a resource: {found[0]}"
    assert not list(TERRAFORM.glob("**/.checkov.y*ml")), "a list apart from the resources hides the next mistake"


def test_everything_is_formatted() -> None:
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-recursive", "-diff"], cwd=TERRAFORM, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_environment_sets_only_variables_that_exist() -> None:
    declared = set(named(TERRAFORM, "variable"))
    files = sorted((TERRAFORM / "environments").glob("*.tfvars"))
    assert {path.stem for path in files} >= {"local", "dev", "prod"}
    for path in files:
        given = {name for name in hcl2.loads(path.read_text(encoding="utf-8")) if _is_name(name)}
        assert given <= declared and re.search(rf'(?m)^environment\s*=\s*"{path.stem}"', path.read_text())
