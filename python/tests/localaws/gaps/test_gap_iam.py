import json


def test_a_role_is_asked_what_it_may_do(aws):
    arn = aws.role()
    statements = [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"},
    ]
    document = {"Version": "2012-10-17", "Statement": statements}
    aws.iam.put_role_policy(RoleName="role", PolicyName="p", PolicyDocument=json.dumps(document))
    answer = aws.iam.simulate_principal_policy(
        PolicySourceArn=arn, ActionNames=["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    )
    decisions = {r["EvalActionName"]: r["EvalDecision"] for r in answer["EvaluationResults"]}
    assert decisions == {"s3:GetObject": "allowed", "s3:PutObject": "implicitDeny", "s3:DeleteObject": "explicitDeny"}
