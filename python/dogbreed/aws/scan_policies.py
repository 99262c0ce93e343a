"""What IAM policies allow that they should not; run by `scan` in the scanners' own environment, without this package.

Reads {name: policy} as JSON, writes [[name, finding, action], …]. cloudsplaining rather than parliament: parliament
mostly checks that policies are well-formed, cloudsplaining what could be done with them.
"""

import json
import sys
from typing import Any


def findings(policy: dict[str, Any]) -> list[tuple[str, str]]:
    from cloudsplaining.scan.policy_document import PolicyDocument

    document = PolicyDocument(policy)
    escalations = document.allows_privilege_escalation
    return [
        *(("privilege escalation", e["type"]) for e in escalations),
        *(("resource exposure", action) for action in document.permissions_management_without_constraints),
        *(("data exfiltration", action) for action in document.allows_data_exfiltration_actions),
        *(("credentials exposure", action) for action in document.credentials_exposure),
        *(("service wildcard", service) for service in document.service_wildcard),
        *(("infrastructure modification", action) for action in document.infrastructure_modification),
        *(("NotAction", "NotAction") for _ in document.contains_statement_using_not_action),
    ]


if __name__ == "__main__":
    print(json.dumps([[name, *f] for name, policy in json.load(sys.stdin).items() for f in findings(policy)]))
