"""IAM."""

from __future__ import annotations

from moto.core.responses import ActionResult
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.iam.responses import IamResponse

from localaws.patching import extend


@extend(IamResponse)
def simulate_principal_policy(self: IamResponse) -> ActionResult:
    """moto has no SimulatePrincipalPolicy: the SageMaker SDK calls it for a job's role before it starts the job."""
    role = self.backend.get_role_by_arn(self._get_param("PolicySourceArn"))
    documents = [self.backend.get_role_policy(role.name, n)[1] for n in self.backend.list_role_policies(role.name)]
    policies = [IAMPolicy(document) for document in [*documents, *role.managed_policies.values()]]
    results = []
    for resource in self._get_param("ResourceArns") or ["*"]:
        for action in self._get_param("ActionNames"):
            found = {policy.is_action_permitted(action, resource) for policy in policies}
            decision = next((text for result, text in DECISIONS.items() if result in found), "implicitDeny")
            results.append({"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision})
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


DECISIONS = {PermissionResult.DENIED: "explicitDeny", PermissionResult.PERMITTED: "allowed"}
