import pytest

NOTIFICATION = {"NotificationType": "ACTUAL", "ComparisonOperator": "GREATER_THAN", "Threshold": 80.0}
SUBSCRIBERS = [{"SubscriptionType": "EMAIL", "Address": "a@example.com"}]
ARN = "arn:aws:budgets::123456789012:budget/monthly"


@pytest.fixture
def budget(aws):
    """The parameters that name a budget which exists."""
    aws.budgets.create_budget(
        AccountId=aws.account,
        Budget={
            "BudgetName": "monthly",
            "BudgetType": "COST",
            "TimeUnit": "MONTHLY",
            "BudgetLimit": {"Amount": "50", "Unit": "USD"},
        },
        NotificationsWithSubscribers=[{"Notification": NOTIFICATION, "Subscribers": SUBSCRIBERS}],
        ResourceTags=[{"Key": "Project", "Value": "a"}, {"Key": "Env", "Value": "dev"}],
    )
    return {"AccountId": aws.account, "BudgetName": "monthly"}


def tags(aws):
    return {t["Key"]: t["Value"] for t in aws.budgets.list_tags_for_resource(ResourceARN=ARN)["ResourceTags"]}


def test_tags_are_kept_and_change(aws, budget):
    assert tags(aws) == {"Project": "a", "Env": "dev"}
    aws.budgets.tag_resource(ResourceARN=ARN, ResourceTags=[{"Key": "Project", "Value": "b"}])
    aws.budgets.untag_resource(ResourceARN=ARN, ResourceTagKeys=["Env"])
    assert tags(aws) == {"Project": "b"}


def test_the_limit_changes(aws, budget):
    new = {"BudgetName": "monthly", "BudgetType": "COST", "TimeUnit": "MONTHLY"}
    aws.budgets.update_budget(AccountId=aws.account, NewBudget={**new, "BudgetLimit": {"Amount": "60", "Unit": "USD"}})
    assert aws.budgets.describe_budget(**budget)["Budget"]["BudgetLimit"]["Amount"] == "60"


def test_the_subscribers_of_a_notification_are_read_back(aws, budget):
    answer = aws.budgets.describe_subscribers_for_notification(**budget, Notification=NOTIFICATION)
    assert answer["Subscribers"] == SUBSCRIBERS


def test_a_threshold_changes(aws, budget):
    new = {**NOTIFICATION, "Threshold": 90.0}
    aws.budgets.update_notification(**budget, OldNotification=NOTIFICATION, NewNotification=new)
    found = aws.budgets.describe_notifications_for_budget(**budget)["Notifications"]
    assert [n["Threshold"] for n in found] == [90.0]
