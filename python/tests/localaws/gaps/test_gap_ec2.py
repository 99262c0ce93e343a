import pytest

AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"


@pytest.fixture
def network(aws):
    """A subnet and two security groups in a VPC: their ids."""
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = aws.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    groups = [aws.ec2.create_security_group(VpcId=vpc, GroupName=n, Description=n)["GroupId"] for n in "ab"]
    return subnet, *groups


def launch(aws, network, **parameters):
    """Launches an instance and returns its id."""
    subnet, group, _ = network
    ami = aws.ssm.get_parameter(Name=AMI)["Parameter"]["Value"]
    nic = {"DeviceIndex": 0, "SubnetId": subnet, "Groups": [group], "AssociatePublicIpAddress": False}
    answer = aws.ec2.run_instances(
        **{"ImageId": ami, "InstanceType": "m5.large", "NetworkInterfaces": [nic], **parameters}, MinCount=1, MaxCount=1
    )
    return answer["Instances"][0]["InstanceId"]


def described(aws, instance):
    return aws.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def test_an_instance_without_a_public_address_has_no_association(aws, network):
    instance = described(aws, launch(aws, network))
    assert "Association" not in instance["NetworkInterfaces"][0]
    assert [g["GroupId"] for g in instance["SecurityGroups"]] == [network[1]]


def test_detailed_monitoring_is_switched(aws, network):
    instance = launch(aws, network)
    aws.ec2.monitor_instances(InstanceIds=[instance])
    assert described(aws, instance)["Monitoring"]["State"] == "enabled"
    aws.ec2.unmonitor_instances(InstanceIds=[instance])
    assert described(aws, instance)["Monitoring"]["State"] == "disabled"


def test_an_instance_takes_what_its_template_says(aws, network):
    aws.iam.create_instance_profile(InstanceProfileName="host")
    aws.ec2.create_launch_template(
        LaunchTemplateName="t",
        LaunchTemplateData={
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 2},
            "Monitoring": {"Enabled": True},
            "EbsOptimized": True,
            "IamInstanceProfile": {"Name": "host"},
            "InstanceInitiatedShutdownBehavior": "terminate",
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 60, "VolumeType": "gp3"}}],
        },
    )
    instance = launch(aws, network, LaunchTemplate={"LaunchTemplateName": "t"})
    found = described(aws, instance)
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert found["Monitoring"]["State"] == "enabled"
    assert found["EbsOptimized"] is True
    assert found["IamInstanceProfile"]["Arn"].endswith("instance-profile/host")
    behaviour = aws.ec2.describe_instance_attribute(InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")
    assert behaviour["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    (volume,) = aws.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])["Volumes"]
    assert (volume["Size"], volume["VolumeType"]) == (60, "gp3")


def test_an_instance_takes_its_network_from_its_template(aws, network):
    subnet, group, _ = network
    ami = aws.ssm.get_parameter(Name=AMI)["Parameter"]["Value"]
    nic = {"DeviceIndex": 0, "SubnetId": subnet, "Groups": [group]}
    aws.ec2.create_launch_template(
        LaunchTemplateName="t",
        LaunchTemplateData={"ImageId": ami, "InstanceType": "c5.large", "NetworkInterfaces": [nic]},
    )
    answer = aws.ec2.run_instances(LaunchTemplate={"LaunchTemplateName": "t"}, MinCount=1, MaxCount=1)
    found = described(aws, answer["Instances"][0]["InstanceId"])
    assert (found["ImageId"], found["InstanceType"], found["SubnetId"]) == (ami, "c5.large", subnet)
    assert [g["GroupId"] for g in found["SecurityGroups"]] == [group]


def test_what_a_shutdown_does_changes_alone(aws, network):
    instance = launch(aws, network)
    aws.ec2.modify_instance_attribute(InstanceId=instance, InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    behaviour = aws.ec2.describe_instance_attribute(InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")
    assert behaviour["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    assert [g["GroupId"] for g in described(aws, instance)["SecurityGroups"]] == [network[1]]


def test_an_instances_interface_has_its_new_groups_only(aws, network):
    instance, other = launch(aws, network), network[2]
    aws.ec2.modify_instance_attribute(InstanceId=instance, Groups=[other])
    assert [g["GroupId"] for g in described(aws, instance)["NetworkInterfaces"][0]["Groups"]] == [other]


SPOT = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "stop"}}


@pytest.mark.parametrize("templated", [False, True])
def test_a_spot_instance_has_its_request(aws, network, templated):
    if templated:
        aws.ec2.create_launch_template(LaunchTemplateName="t", LaunchTemplateData={"InstanceMarketOptions": SPOT})
        instance = launch(aws, network, LaunchTemplate={"LaunchTemplateName": "t"})
    else:
        instance = launch(aws, network, InstanceMarketOptions=SPOT)
    found = described(aws, instance)
    assert found["InstanceLifecycle"] == "spot"
    (request,) = aws.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[found["SpotInstanceRequestId"]])[
        "SpotInstanceRequests"
    ]
    assert (request["InstanceId"], request["State"], request["Type"]) == (instance, "active", "one-time")
    assert request["InstanceInterruptionBehavior"] == "stop"
    assert "InstanceLifecycle" not in described(aws, launch(aws, network))


def test_a_templates_tags_are_its_own_and_change(aws):
    own = {"ResourceType": "launch-template", "Tags": [{"Key": "Project", "Value": "a"}]}
    hosts = {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "host"}]}
    template = aws.ec2.create_launch_template(
        LaunchTemplateName="t", LaunchTemplateData={"TagSpecifications": [hosts]}, TagSpecifications=[own]
    )["LaunchTemplate"]["LaunchTemplateId"]
    (version,) = aws.ec2.describe_launch_template_versions(LaunchTemplateId=template)["LaunchTemplateVersions"]
    assert version["LaunchTemplateData"]["TagSpecifications"] == [hosts]
    aws.ec2.create_tags(Resources=[template], Tags=[{"Key": "Project", "Value": "b"}])
    (found,) = aws.ec2.describe_launch_templates(LaunchTemplateIds=[template])["LaunchTemplates"]
    assert found["Tags"] == [{"Key": "Project", "Value": "b"}]


def rule(aws, group):
    found = aws.ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])
    return next(r for r in found["SecurityGroupRules"] if not r["IsEgress"])


@pytest.mark.parametrize("kind", ["group", "prefix list"])
def test_a_rule_keeps_its_description(aws, network, kind):
    _, group, other = network
    sources = {
        "group": {"UserIdGroupPairs": [{"GroupId": other, "Description": "d"}]},
        "prefix list": {"PrefixListIds": [{"PrefixListId": "pl-1", "Description": "d"}]},
    }
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, **sources[kind]}
    aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    assert rule(aws, group)["Description"] == "d"


def test_a_rule_for_all_protocols_changes(aws, network):
    _, group, other = network
    permission = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": other, "Description": "old"}]}
    aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    change = {"IpProtocol": "-1", "ReferencedGroupId": other, "Description": "new"}
    rule_id = rule(aws, group)["SecurityGroupRuleId"]
    aws.ec2.modify_security_group_rules(
        GroupId=group, SecurityGroupRules=[{"SecurityGroupRuleId": rule_id, "SecurityGroupRule": change}]
    )
    assert rule(aws, group)["Description"] == "new"
    assert rule(aws, group)["ReferencedGroupInfo"]["GroupId"] == other
