"""What the roles may do: what is named, on all resources only for a reason, and nothing beyond the boundary."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from dogbreed.aws.repository import Repository
from dogbreed.aws.scan import ALTERNATIVES, EVERYTHING, copy_of, mocked_bootstrap, mocked_states, policies_of

pytestmark = pytest.mark.slow

REPOSITORY = Repository(Path(__file__).parents[2])

# The only actions that a role may use on every resource. AWS has no resource-level permission for any of them.
ON_EVERYTHING = {
    "cloudwatch:PutMetricData": "metrics have no ARN; the namespace is a condition",
    "ec2:DescribeDhcpOptions": "EC2 describes have no resource-level permission; needed to attach a job to the network",
    "ec2:DescribeNetworkInterfaces": "as above",
    "ec2:DescribeSecurityGroups": "as above",
    "ec2:DescribeSubnets": "as above",
    "ec2:DescribeVpcEndpoints": "as above",
    "ec2:DescribeVpcs": "as above",
    "ecr:GetAuthorizationToken": "the token is for the account's registry; what may be pulled is named",
    "sagemaker:ListHyperParameterTuningJobs": "lists have no resource-level permission",
    "sagemaker:ListProcessingJobs": "as above",
    "sagemaker:ListTrainingJobs": "as above",
    "sagemaker:ListApps": "Studio shows its own lists; as above",
    "sagemaker:ListDomains": "as above",
    "sagemaker:ListSpaces": "as above",
    "sagemaker:ListUserProfiles": "as above",
    "ssmmessages:CreateControlChannel": "sessions have no ARN before they are opened",
    "ssmmessages:CreateDataChannel": "as above",
    "ssmmessages:OpenControlChannel": "as above",
    "ssmmessages:OpenDataChannel": "as above",
    "xray:PutTelemetryRecords": "traces have no ARN",
    "xray:PutTraceSegments": "as above",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(REPOSITORY, tmp_path_factory.mktemp("policies"))


@pytest.fixture(scope="module")
def policies(root: Path) -> dict[str, dict[str, Any]]:
    """The identity policies by address, with everything on and in the alternatives that exclude something of that."""
    states = mocked_states(REPOSITORY, root, [EVERYTHING, ALTERNATIVES])
    found = {f"{number} {name}": policy for number, state in enumerate(states) for name, policy in policies_of(state)}
    assert len(found) > 10
    return found


@pytest.fixture(scope="module")
def boundary(root: Path) -> list[str]:
    """The patterns of the actions that bootstrap's boundary lets a role have."""
    policy = dict(policies_of(mocked_bootstrap(REPOSITORY, root)))["aws_iam_policy.boundary"]
    return [action for statement in allowed(policy) for action in actions(statement)]


def allowed(policy: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (statement for statement in policy["Statement"] if statement["Effect"] == "Allow")


def actions(statement: Mapping[str, Any]) -> list[str]:
    assert "NotAction" not in statement and "NotResource" not in statement
    given = statement["Action"]
    return [given] if isinstance(given, str) else given


def test_every_action_is_named(policies: dict[str, dict[str, Any]]) -> None:
    broad = {(name, a) for name, policy in policies.items() for s in allowed(policy) for a in actions(s) if "*" in a}
    assert broad == set()


def test_only_what_has_no_resource_is_allowed_on_all(policies: dict[str, dict[str, Any]]) -> None:
    used = set()
    for name, policy in policies.items():
        for statement in allowed(policy):
            resources = statement["Resource"]
            if "*" in ([resources] if isinstance(resources, str) else resources):
                assert set(actions(statement)) <= ON_EVERYTHING.keys(), name
                used |= set(actions(statement))
    assert used == ON_EVERYTHING.keys(), "the list names an action that no role has any more"


def test_roles_are_handed_on_only_to_one_service(policies: dict[str, dict[str, Any]]) -> None:
    passing = [s for policy in policies.values() for s in allowed(policy) if "iam:PassRole" in actions(s)]
    assert passing
    for statement in passing:
        assert actions(statement) == ["iam:PassRole"]
        assert "*" not in json.dumps(statement["Resource"])
        assert list(statement["Condition"]["StringEquals"]) == ["iam:PassedToService"]


def test_the_boundary_leaves_every_role_what_it_needs(policies: dict[str, dict[str, Any]], boundary: list[str]) -> None:
    needed = {(name, a) for name, policy in policies.items() for s in allowed(policy) for a in actions(s)}
    missing = {(name, action) for name, action in needed if not any(fnmatchcase(action, p) for p in boundary)}
    assert missing == set()
