resource "aws_iam_role" "this" {
  name                 = local.name
  description          = "What ${local.name} may do: invoke ${var.endpoint_name}, and report."
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "LambdaOfThisAccount"
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  name = "classify"
  role = aws_iam_role.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "InvokeThisEndpoint"
        Effect   = "Allow"
        Action   = "sagemaker:InvokeEndpoint"
        Resource = var.endpoint_arn
      },
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.this.arn}:log-stream:*"
      },
      {
        Sid      = "SendFailedEvents"
        Effect   = "Allow"
        Action   = "sqs:SendMessage"
        Resource = aws_sqs_queue.failed_events.arn
      },
      {
        # A sender to an encrypted queue needs both: one for a new data key, one for a key that SQS still holds.
        Sid       = "EncryptFailedEvents"
        Effect    = "Allow"
        Action    = ["kms:GenerateDataKey", "kms:Decrypt"]
        Resource  = var.kms_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "sqs.${local.region}.${data.aws_partition.current.dns_suffix}" } }
      },
      {
        # Lambda reads the environment through a grant to this role, which is lost when the role is made anew.
        Sid       = "ReadOwnEnvironment"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = var.kms_key_arn
        Condition = { StringLike = { "kms:EncryptionContext:aws:lambda:FunctionArn" = [local.arn, "${local.arn}:*"] } }
      },
      {
        # "*": X-Ray has no resource-level permission for traces; they belong to the account.
        Sid      = "SendTraces"
        Effect   = "Allow"
        Action   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
        Resource = "*"
      },
    ]
  })
}

# What Lambda does with this role to put the function into the VPC. The function's code has the same role and must not.
resource "aws_iam_role_policy" "network" {
  count = var.network == null ? 0 : 1

  name = "network"
  role = aws_iam_role.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "CreateInterfaces"
        Effect = "Allow"
        Action = "ec2:CreateNetworkInterface"
        Resource = [
          for resource in concat(
            ["network-interface/*"],
            [for id in var.network.subnet_ids : "subnet/${id}"],
            [for id in var.network.security_group_ids : "security-group/${id}"],
          ) : "arn:${local.partition}:ec2:${local.region}:${local.account_id}:${resource}"
        ]
      },
      {
        Sid      = "ManageInterfaces"
        Effect   = "Allow"
        Action   = ["ec2:AssignPrivateIpAddresses", "ec2:DeleteNetworkInterface", "ec2:UnassignPrivateIpAddresses"]
        Resource = "arn:${local.partition}:ec2:${local.region}:${local.account_id}:network-interface/*"
      },
      {
        # "*": EC2's Describe actions have no resource-level permission.
        Sid      = "FindInterfaces"
        Effect   = "Allow"
        Action   = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"]
        Resource = "*"
      },
      {
        # "*": a denial, which is to cover whatever is allowed above.
        Sid    = "NotFromTheCode"
        Effect = "Deny"
        Action = [
          "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
          "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
        ]
        Resource  = "*"
        Condition = { ArnEquals = { "lambda:SourceFunctionArn" = local.arn } }
      },
    ]
  })

  # Destroyed after the function has left the VPC, which takes these rights.
  lifecycle {
    create_before_destroy = true
  }
}
