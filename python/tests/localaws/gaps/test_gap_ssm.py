import pytest

PREFIX = "/aws/service/deeplearning/ami"


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("x86_64/oss-nvidia-driver-gpu-pytorch-2.7-amazon-linux-2023", "/dev/xvda"),
        ("x86_64/oss-nvidia-driver-gpu-pytorch-2.7-ubuntu-22.04", "/dev/sda1"),
        ("arm64/base-oss-nvidia-driver-gpu-amazon-linux-2023", "/dev/xvda"),
    ],
)
def test_a_deep_learning_ami_is_found_by_its_parameter(aws, path, device):
    value = aws.ssm.get_parameter(Name=f"{PREFIX}/{path}/latest/ami-id")["Parameter"]["Value"]
    (image,) = aws.ec2.describe_images(ImageIds=[value], Owners=["amazon"])["Images"]
    assert (image["Architecture"], image["RootDeviceName"]) == (path.split("/")[0], device)
    assert aws.ssm.get_parameter(Name=f"{PREFIX}/{path}/latest/ami-id")["Parameter"]["Value"] == value
