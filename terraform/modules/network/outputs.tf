output "network" {
  description = "Where workloads run: the network, its private subnets (one per zone) and the workloads' security group. Handed over once S3 and the AWS services can be reached from it."
  value = {
    vpc_id             = aws_vpc.this.id
    subnet_ids         = aws_subnet.private[*].id
    security_group_ids = [aws_security_group.workload.id]
  }
  depends_on = [
    aws_route_table_association.private,
    aws_vpc_endpoint.interface,
    aws_vpc_endpoint.s3,
    aws_vpc_security_group_egress_rule.workload_to_endpoints,
    aws_vpc_security_group_egress_rule.workload_to_itself,
    aws_vpc_security_group_egress_rule.workload_to_s3,
    aws_vpc_security_group_ingress_rule.endpoints_from_workload,
    aws_vpc_security_group_ingress_rule.workload_from_itself,
  ]
}

output "s3_endpoint_id" {
  description = "The gateway to S3, for a bucket policy elsewhere that admits this network (aws:SourceVpce)."
  value       = aws_vpc_endpoint.s3.id
}
