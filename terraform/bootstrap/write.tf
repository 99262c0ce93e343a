# What `terraform apply` changes, beside what it reads. In several policies, because one holds 6,144 characters at most.

locals {
  write_services = [
    {
      Sid = "Buckets"
      Action = [
        "s3:CreateBucket",
        "s3:DeleteBucket",
        "s3:DeleteBucketPolicy",
        "s3:ListBucketVersions",
        "s3:PutBucketLogging",
        "s3:PutBucketOwnershipControls",
        "s3:PutBucketPolicy",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketTagging",
        "s3:PutBucketVersioning",
        "s3:PutEncryptionConfiguration",
        "s3:PutLifecycleConfiguration",
      ]
      Resource = local.buckets
    },
    {
      Sid      = "Bundles"
      Action   = ["s3:AbortMultipartUpload", "s3:PutObject", "s3:PutObjectTagging"]
      Resource = "${local.buckets}/code/*"
    },
    {
      # Whatever a bucket holds, when it may be emptied on destroy.
      Sid      = "DeleteObjects"
      Action   = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
      Resource = "${local.buckets}/*"
    },
    {
      Sid = "SageMaker"
      Action = flatten([
        [for kind in ["Endpoint", "EndpointConfig", "FeatureGroup", "Model", "ModelPackageGroup", "NotebookInstance", "NotebookInstanceLifecycleConfig", "StudioLifecycleConfig"] : ["sagemaker:Create${kind}", "sagemaker:Delete${kind}"]],
        [for kind in ["Endpoint", "EndpointWeightsAndCapacities", "FeatureGroup", "NotebookInstance", "NotebookInstanceLifecycleConfig"] : "sagemaker:Update${kind}"],
        ["sagemaker:AddTags", "sagemaker:DeleteTags", "sagemaker:StartNotebookInstance", "sagemaker:StopNotebookInstance"],
      ])
      Resource = local.sagemaker
    },
    {
      # A Studio domain's ARN holds an id that AWS makes up: only the tag says whose it is.
      Sid       = "MakeStudio"
      Action    = ["sagemaker:AddTags", "sagemaker:CreateDomain", "sagemaker:CreateUserProfile"]
      Resource  = local.studio
      Condition = { StringEquals = local.for_project }
    },
    {
      Sid       = "ChangeStudio"
      Action    = ["sagemaker:AddTags", "sagemaker:DeleteDomain", "sagemaker:DeleteTags", "sagemaker:DeleteUserProfile", "sagemaker:UpdateDomain", "sagemaker:UpdateUserProfile"]
      Resource  = local.studio
      Condition = { StringEquals = local.is_project }
    },
    {
      Sid = "Functions"
      Action = [for action in [
        "AddPermission", "CreateAlias", "CreateFunction", "CreateFunctionUrlConfig", "DeleteAlias", "DeleteFunction", "DeleteFunctionConcurrency",
        "DeleteFunctionEventInvokeConfig", "DeleteFunctionUrlConfig", "DeleteProvisionedConcurrencyConfig", "PublishVersion", "PutFunctionConcurrency",
        "PutFunctionEventInvokeConfig", "PutProvisionedConcurrencyConfig", "RemovePermission", "TagResource", "UntagResource", "UpdateAlias",
        "UpdateFunctionCode", "UpdateFunctionConfiguration", "UpdateFunctionEventInvokeConfig", "UpdateFunctionUrlConfig",
      ] : "lambda:${action}"]
      Resource = "${local.arn.lambda}:function:${var.project}-*"
    },
    {
      Sid = "Messages"
      Action = [
        "sns:CreateTopic", "sns:DeleteTopic", "sns:SetTopicAttributes", "sns:Subscribe", "sns:TagResource", "sns:UntagResource",
        "sqs:CreateQueue", "sqs:DeleteQueue", "sqs:SetQueueAttributes", "sqs:TagQueue", "sqs:UntagQueue",
      ]
      Resource = ["${local.arn.sns}:${var.project}-*", "${local.arn.sqs}:${var.project}-*"]
    },
    {
      Sid      = "Events"
      Action   = ["events:DeleteRule", "events:DisableRule", "events:EnableRule", "events:PutRule", "events:PutTargets", "events:RemoveTargets", "events:TagResource", "events:UntagResource"]
      Resource = "${local.arn.events}:rule/${var.project}-*"
    },
    {
      # Not StartBuild: its caller may replace the commands, and so do whatever the build's role may.
      Sid      = "Builds"
      Action   = ["codebuild:CreateProject", "codebuild:DeleteProject", "codebuild:UpdateProject"]
      Resource = "${local.arn.codebuild}:project/${var.project}-*"
    },
    {
      Sid = "Images"
      Action = [
        "ecr:BatchDeleteImage", "ecr:CreateRepository", "ecr:DeleteLifecyclePolicy", "ecr:DeleteRepository", "ecr:PutImageScanningConfiguration",
        "ecr:PutImageTagMutability", "ecr:PutLifecyclePolicy", "ecr:TagResource", "ecr:UntagResource",
      ]
      Resource = "${local.arn.ecr}:repository/${var.project}-*"
    },
    {
      Sid      = "Alarms"
      Action   = ["cloudwatch:DeleteAlarms", "cloudwatch:DeleteDashboards", "cloudwatch:PutCompositeAlarm", "cloudwatch:PutDashboard", "cloudwatch:PutMetricAlarm", "cloudwatch:TagResource", "cloudwatch:UntagResource"]
      Resource = ["${local.cloudwatch_arn}:alarm:${var.project}-*", local.dashboard_arn]
    },
    {
      Sid      = "Budget"
      Action   = ["budgets:ModifyBudget", "budgets:TagResource", "budgets:UntagResource"]
      Resource = local.budget_arn
    },
    {
      Sid      = "Parameters"
      Action   = ["ssm:AddTagsToResource", "ssm:DeleteParameter", "ssm:PutParameter", "ssm:RemoveTagsFromResource"]
      Resource = "${local.arn.ssm}:parameter/${var.project}-*"
    },
    {
      Sid      = "Logs"
      Action   = ["logs:AssociateKmsKey", "logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:DeleteMetricFilter", "logs:DeleteRetentionPolicy", "logs:DisassociateKmsKey", "logs:PutMetricFilter", "logs:PutRetentionPolicy", "logs:TagResource", "logs:UntagResource"]
      Resource = local.log_groups
    },
  ]

  write_hosts = [
    {
      # A subscription's ARN ends in an id, and AWS has no resource-level permission for ending one.
      Sid      = "Unsubscribe"
      Action   = "sns:Unsubscribe"
      Resource = "*"
    },
    {
      # A scaling target has an id of its own making; the namespace is what can be named.
      Sid = "Scaling"
      Action = [for action in [
        "DeleteScalingPolicy", "DeleteScheduledAction", "DeregisterScalableTarget", "PutScalingPolicy", "PutScheduledAction", "RegisterScalableTarget",
      ] : "application-autoscaling:${action}"]
      Resource  = "${local.arn["application-autoscaling"]}:scalable-target/*"
      Condition = { StringEquals = { "application-autoscaling:service-namespace" = ["lambda", "sagemaker"] } }
    },
    {
      Sid      = "TagScaling"
      Action   = ["application-autoscaling:TagResource", "application-autoscaling:UntagResource"]
      Resource = "${local.arn["application-autoscaling"]}:scalable-target/*"
    },
    {
      # Application Auto Scaling makes a target's alarms itself, but asks whether whoever puts the policy might.
      Sid      = "ScalingAlarms"
      Action   = ["cloudwatch:DeleteAlarms", "cloudwatch:DescribeAlarms", "cloudwatch:PutMetricAlarm"]
      Resource = "${local.cloudwatch_arn}:alarm:TargetTracking-*"
    },
    {
      # Ids in the network are made up by EC2, so tags decide: what is made must carry the project's ...
      Sid       = "MakeNetwork"
      Action    = concat(local.ec2_makers, ["ec2:RunInstances"])
      Resource  = "${local.arn.ec2}:*/*"
      Condition = { StringEquals = local.for_project }
    },
    {
      # ... and so must what it is made in, and what is changed.
      Sid = "ChangeNetwork"
      Action = concat(local.ec2_makers, [
        "ec2:AssociateRouteTable", "ec2:CancelSpotInstanceRequests", "ec2:CreateLaunchTemplateVersion", "ec2:CreateNetworkInterface", "ec2:CreateTags", "ec2:DeleteFlowLogs",
        "ec2:DeleteLaunchTemplate", "ec2:DeleteLaunchTemplateVersions", "ec2:DeleteRouteTable", "ec2:DeleteSecurityGroup", "ec2:DeleteSubnet",
        "ec2:DeleteTags", "ec2:DeleteVpc", "ec2:DeleteVpcEndpoints", "ec2:DisassociateRouteTable", "ec2:ModifyInstanceAttribute",
        "ec2:ModifyInstanceMetadataOptions", "ec2:ModifyLaunchTemplate", "ec2:ModifyNetworkInterfaceAttribute", "ec2:ModifySecurityGroupRules", "ec2:ModifySubnetAttribute",
        "ec2:ModifyVpcAttribute", "ec2:ModifyVpcEndpoint", "ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress", "ec2:RunInstances",
        "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances",
      ])
      Resource  = "${local.arn.ec2}:*/*"
      Condition = { StringEquals = local.is_project }
    },
    {
      # A host is made of these too. They come without the project's tag: public images, and parts tagged afterwards.
      Sid    = "RunInstancesFrom"
      Action = "ec2:RunInstances"
      Resource = concat(
        [for kind in ["image", "snapshot"] : "arn:${local.partition}:ec2:${var.region}::${kind}/*"],
        [for kind in ["network-interface", "volume"] : "${local.arn.ec2}:${kind}/*"],
      )
    },
    {
      Sid       = "TagWhatIsMade"
      Action    = "ec2:CreateTags"
      Resource  = "${local.arn.ec2}:*/*"
      Condition = { StringEquals = merge(local.for_project, { "ec2:CreateAction" = [for action in concat(local.ec2_makers, ["ec2:RunInstances"]) : trimprefix(action, "ec2:")] }) }
    },
    {
      # SageMaker makes a notebook instance's interface in the caller's name. It carries no tag; the subnet and the groups
      # it is made with must (above), so an interface elsewhere can be given none of them.
      Sid      = "NotebookInterfaces"
      Action   = ["ec2:AttachNetworkInterface", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:ModifyNetworkInterfaceAttribute"]
      Resource = "${local.arn.ec2}:network-interface/*"
    },
    {
      # The host it is attached to is in an account of AWS's.
      Sid       = "NotebookHosts"
      Action    = "ec2:AttachNetworkInterface"
      Resource  = "arn:${local.partition}:ec2:${var.region}:*:instance/*"
      Condition = { StringNotEquals = { "aws:ResourceAccount" = local.account_id } }
    },
    {
      # EC2 makes a network's default group by itself, without tags: it is emptied, then tagged.
      Sid       = "CloseDefaultSecurityGroup"
      Action    = ["ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress"]
      Resource  = "${local.arn.ec2}:security-group/*"
      Condition = { Null = { "aws:ResourceTag/Project" = "true" } }
    },
    {
      # No condition tells our network's default group from others without tags. So this marks it for good ...
      Sid      = "MarkDefaultSecurityGroup"
      Action   = "ec2:CreateTags"
      Resource = "${local.arn.ec2}:security-group/*"
      Condition = {
        Null         = { "aws:ResourceTag/Project" = "true" }
        StringEquals = local.for_project
        StringLike   = { "aws:RequestTag/Name" = "${var.project}-*${local.closed}" }
      }
    },
    {
      # ... and what is marked is never opened, nor given to anything: whoever tags somebody else's group can at most empty it.
      Sid       = "ClosedStaysClosed"
      Effect    = "Deny"
      Action    = ["ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress", "ec2:DeleteSecurityGroup", "ec2:ModifyNetworkInterfaceAttribute", "ec2:ModifySecurityGroupRules"]
      Resource  = "${local.arn.ec2}:security-group/*"
      Condition = { StringLike = { "aws:ResourceTag/Name" = "*${local.closed}" } }
    },
    {
      Sid      = "MarkStays"
      Effect   = "Deny"
      Action   = ["ec2:CreateTags", "ec2:DeleteTags"]
      Resource = "${local.arn.ec2}:security-group/*"
      Condition = {
        StringLike                 = { "aws:ResourceTag/Name" = "*${local.closed}" }
        "ForAnyValue:StringEquals" = { "aws:TagKeys" = ["Name"] }
      }
    },
  ]

  write_keys = [
    {
      # A key has no name to go by and no ARN before it exists: the tag, which it gets as it is made, says whose it is.
      Sid       = "MakeKeys"
      Action    = "kms:CreateKey"
      Resource  = "*"
      Condition = { StringEquals = local.for_project }
    },
    {
      # A key in the making has neither tag nor alias yet, and nothing else tells it from the keys of others.
      Sid      = "TagNewKeys"
      Action   = "kms:TagResource"
      Resource = local.keys
      Condition = {
        StringEquals = local.for_project
        Null         = { "aws:ResourceTag/Project" = "true", "kms:ResourceAliases" = "true" }
      }
    },
    {
      Sid = "ChangeKeys"
      Action = [
        "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:EnableKeyRotation", "kms:PutKeyPolicy", "kms:RevokeGrant", "kms:ScheduleKeyDeletion",
        "kms:TagResource", "kms:UntagResource", "kms:UpdateAlias", "kms:UpdateKeyDescription",
      ]
      Resource  = local.keys
      Condition = { StringEquals = local.is_project }
    },
    {
      Sid      = "NameKeys"
      Action   = ["kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias"]
      Resource = "${local.arn.kms}:alias/${var.project}-*"
    },
    {
      Sid       = "UseKeys"
      Action    = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:RetireGrant"]
      Resource  = local.keys
      Condition = { StringEquals = merge(local.is_project, { "kms:ViaService" = sort(values(local.via)) }) }
    },
    {
      Sid       = "GrantKeysToServices"
      Action    = "kms:CreateGrant"
      Resource  = local.keys
      Condition = { StringEquals = local.is_project, Bool = { "kms:GrantIsForAWSResource" = "true" } }
    },
    {
      # As the key's policy allows: to AWS's role for spot hosts, which starts them with an encrypted volume.
      Sid       = "GrantKeysToSpotHosts"
      Action    = "kms:CreateGrant"
      Resource  = local.keys
      Condition = { StringEquals = merge(local.is_project, { "kms:GranteePrincipal" = "${local.iam_arn}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot" }) }
    },
  ]

  # How the network module's name for the default group ends.
  closed = "-default-closed"

  ec2_makers = [
    "ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress", "ec2:CreateFlowLogs", "ec2:CreateLaunchTemplate", "ec2:CreateRouteTable",
    "ec2:CreateSecurityGroup", "ec2:CreateSubnet", "ec2:CreateVpc", "ec2:CreateVpcEndpoint",
  ]

  write_roles = [
    {
      # No role without the boundary, and no right for a role that lacks it. What makes this CI harmless: a role it makes
      # can do no more than the boundary, whatever is written into it.
      Sid = "CappedRoles"
      Action = [
        "iam:AttachRolePolicy", "iam:CreateRole", "iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy",
      ]
      Resource  = "${local.iam_arn}:role/${var.project}-*"
      Condition = { StringEquals = { "iam:PermissionsBoundary" = local.boundary_arn } }
    },
    {
      # IAM knows no boundary condition for these. They add no rights to a role.
      Sid      = "Roles"
      Action   = ["iam:DeleteRole", "iam:TagRole", "iam:UntagRole", "iam:UpdateRole", "iam:UpdateRoleDescription"]
      Resource = "${local.iam_arn}:role/${var.project}-*"
    },
    {
      # Who may assume a role: only of those that this project tagged as its own.
      Sid       = "TrustOfRoles"
      Action    = "iam:UpdateAssumeRolePolicy"
      Resource  = "${local.iam_arn}:role/${var.project}-*"
      Condition = { StringEquals = local.is_project }
    },
    {
      Sid      = "PassRoles"
      Action   = "iam:PassRole"
      Resource = "${local.iam_arn}:role/${var.project}-*"
      Condition = { StringEquals = { "iam:PassedToService" = [
        for service in ["codebuild", "ec2", "events", "lambda", "sagemaker", "vpc-flow-logs"] : "${service}.amazonaws.com"
      ] } }
    },
    {
      Sid      = "Policies"
      Action   = ["iam:CreatePolicy", "iam:CreatePolicyVersion", "iam:DeletePolicy", "iam:DeletePolicyVersion", "iam:TagPolicy", "iam:UntagPolicy"]
      Resource = "${local.iam_arn}:policy/${var.project}-*"
    },
    {
      Sid      = "InstanceProfiles"
      Action   = ["iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:DeleteInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile", "iam:UntagInstanceProfile"]
      Resource = "${local.iam_arn}:instance-profile/${var.project}-*"
    },
    {
      # AWS's own roles for scaling, spot hosts and Studio, made once per account on first use; AWS wrote what they may do.
      Sid      = "ServiceLinkedRoles"
      Action   = "iam:CreateServiceLinkedRole"
      Resource = "${local.iam_arn}:role/aws-service-role/*"
      Condition = { StringEquals = { "iam:AWSServiceName" = [
        "lambda.application-autoscaling.amazonaws.com", "sagemaker.amazonaws.com", "sagemaker.application-autoscaling.amazonaws.com", "spot.amazonaws.com",
      ] } }
    },
    {
      # Said twice on purpose: whatever is attached to the role later, these stay out of its reach.
      Sid      = "NeverBootstrap"
      Effect   = "Deny"
      Action   = "iam:*"
      Resource = concat([for kind in ["policy", "role"] : "${local.iam_arn}:${kind}${local.path}*"], ["${local.iam_arn}:oidc-provider/*"])
    },
    {
      Sid      = "NeverWithoutBoundary"
      Effect   = "Deny"
      Action   = "iam:DeleteRolePermissionsBoundary"
      Resource = "${local.iam_arn}:role/*"
    },
  ]
}
