"""Network interfaces and security groups."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.security_groups import SecurityGroupBackend, SecurityGroupRule

from localaws.patching import Original, wrap


@wrap(NetworkInterface, "association")
def no_association_without_an_address(association: Any, self: NetworkInterface) -> Any:
    """moto answers an empty association for an interface with no public address: Terraform sees one and replaces."""
    return association or None


@wrap(SecurityGroupRule, "__init__")
def keep_the_prefix_list(original: Original, self: Any, *args: Any, **kwargs: Any) -> None:
    """See `describe_rules_of_all_kinds`."""
    original(self, *args, **kwargs)
    lists = [value for value in args if isinstance(value, dict) and "PrefixListId" in value]
    self.prefix_list = kwargs.get("prefix_list_id") or next(iter(lists), {})


@wrap(SecurityGroupRule, "description")
def describe_rules_of_all_kinds(description: str | None, self: Any) -> str | None:
    """moto forgets the description of a rule that names a prefix list or a group: it is changed on every plan."""
    sources = (self.ip_range, self.source_group, self.prefix_list)
    return next((source["Description"] for source in sources if source.get("Description")), None)


@wrap(SecurityGroupBackend, "modify_security_group_rules")
def need_no_ports_for_all_protocols(original: Original, self: Any, group_id: str, rules: dict[str, Any]) -> Any:
    """moto wants ports for every protocol: a rule for all of them can't be changed."""
    for rule in rules.values():
        if rule.get("IpProtocol") == "-1":
            rule |= {"FromPort": -1, "ToPort": -1}
    return original(self, group_id, rules)
