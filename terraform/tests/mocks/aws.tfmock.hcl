mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}
mock_data "aws_partition" {
  defaults = { partition = "aws" }
}
mock_data "aws_region" {
  defaults = { name = "us-east-1" }
}
mock_data "aws_availability_zones" {
  defaults = { names = ["us-east-1a", "us-east-1b", "us-east-1c"] }
}
mock_data "aws_vpc_endpoint_service" {
  defaults = { availability_zones = ["us-east-1a", "us-east-1b", "us-east-1c"], service_name = "com.amazonaws.us-east-1.s3" }
}
mock_data "aws_sagemaker_prebuilt_ecr_image" {
  defaults = { registry_path = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2", registry_id = "763104351884" }
}
mock_data "aws_s3_objects" {
  defaults = { keys = ["models/a/model.tar.gz"] }
}
mock_data "aws_vpcs" {
  defaults = { ids = ["vpc-0123456789abcdef0"] }
}
mock_data "aws_ssm_parameter" {
  defaults = { value = "ami-0123456789abcdef0", insecure_value = "ami-0123456789abcdef0" }
}
