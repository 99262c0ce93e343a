import pytest

TARGETS = [
    ("sagemaker", "endpoint/e/variant/main", "sagemaker:variant:DesiredInstanceCount"),
    ("lambda", "function:f:live", "lambda:function:ProvisionedConcurrency"),
]


@pytest.mark.parametrize(("service", "resource", "dimension"), TARGETS)
def test_a_targets_tags_are_kept_and_change(aws, service, resource, dimension):
    scaling = aws.application_autoscaling
    target = {"ServiceNamespace": service, "ResourceId": resource, "ScalableDimension": dimension}
    tags = {"Project": "a", "Env": "dev"}
    arn = scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3, Tags=tags)["ScalableTargetARN"]
    assert scaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == tags
    scaling.tag_resource(ResourceARN=arn, Tags={"Project": "b"})
    scaling.untag_resource(ResourceARN=arn, TagKeys=["Env"])
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=4)
    assert scaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"Project": "b"}
