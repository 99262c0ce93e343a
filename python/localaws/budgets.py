"""Budgets."""

from __future__ import annotations

import json
from typing import Any

from moto.budgets.models import Budget, Notification
from moto.budgets.responses import BudgetsResponse

from localaws.patching import Original, extend, memory, wrap


def _budget(self: BudgetsResponse, name: str) -> Budget:
    account = self._get_param("AccountId")
    self.backend.describe_budget(account, name)  # raises what AWS answers when there is none
    return self.backend.budgets[account][name]


def _notification(self: BudgetsResponse, member: str = "Notification") -> Notification:
    wanted = self._get_param(member)
    keys = ("NotificationType", "ComparisonOperator", "Threshold")
    for notification in _budget(self, self._get_param("BudgetName")).notifications:
        if all(notification.details.get(key) == wanted.get(key) for key in keys):
            return notification
    raise KeyError(wanted)


def _tags(self: BudgetsResponse) -> dict[str, str]:
    tags: dict[str, str] = memory(self.backend, "tags").setdefault(self._get_param("ResourceARN"), {})
    return tags


@wrap(BudgetsResponse, "create_budget")
def keep_tags(original: Original, self: BudgetsResponse) -> str:
    """moto forgets a budget's tags: they are added again on every plan."""
    answer: str = original(self)
    name = self._get_param("Budget")["BudgetName"]
    arn = f"arn:{self.partition}:budgets::{self._get_param('AccountId')}:budget/{name}"
    memory(self.backend, "tags")[arn] = {t["Key"]: t["Value"] for t in self._get_param("ResourceTags") or []}
    return answer


@extend(BudgetsResponse)
def list_tags_for_resource(self: BudgetsResponse) -> str:
    """moto has no ListTagsForResource for budgets: reading an aws_budgets_budget fails."""
    return json.dumps({"ResourceTags": [{"Key": k, "Value": v} for k, v in _tags(self).items()]})


@extend(BudgetsResponse)
def tag_resource(self: BudgetsResponse) -> str:
    """moto has no TagResource for budgets: a changed tag fails."""
    _tags(self).update({t["Key"]: t["Value"] for t in self._get_param("ResourceTags")})
    return "{}"


@extend(BudgetsResponse)
def untag_resource(self: BudgetsResponse) -> str:
    """moto has no UntagResource for budgets: a removed tag fails."""
    for key in self._get_param("ResourceTagKeys"):
        _tags(self).pop(key, None)
    return "{}"


@extend(BudgetsResponse)
def update_budget(self: BudgetsResponse) -> str:
    """moto has no UpdateBudget: a changed limit fails."""
    new: dict[str, Any] = self._get_param("NewBudget")
    _budget(self, new["BudgetName"]).budget.update(new)
    return "{}"


@extend(BudgetsResponse)
def describe_subscribers_for_notification(self: BudgetsResponse) -> str:
    """moto has no DescribeSubscribersForNotification: a budget with a notification can't be read back."""
    return json.dumps({"Subscribers": _notification(self).subscribers})


@extend(BudgetsResponse)
def update_notification(self: BudgetsResponse) -> str:
    """moto has no UpdateNotification: a changed threshold fails."""
    _notification(self, "OldNotification").details = self._get_param("NewNotification")
    return "{}"
