mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" { defaults = { account_id = "123456789012" } }
  mock_data "aws_partition" { defaults = { dns_suffix = "amazonaws.com", partition = "aws" } }
  mock_resource "aws_kms_key" { defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555" } }
  mock_resource "aws_iam_openid_connect_provider" { defaults = { arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com" } }
}

variables {
  github_repository = "acme/dogbreed"
}

run "state_is_encrypted_versioned_and_private" {
  command = plan

  assert {
    condition     = aws_s3_bucket.state.bucket == "terraform-state-dogbreed-123456789012-us-east-1"
    error_message = "The name must not match <project>-*, which CI may change."
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.state.rule).apply_server_side_encryption_by_default[0].kms_master_key_id == aws_kms_key.state.arn && aws_kms_key.state.enable_key_rotation
    error_message = "The state has a rotating key of its own."
  }
  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled"
    error_message = "A damaged state must be recoverable."
  }
  assert {
    condition     = alltrue([for name in ["block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"] : aws_s3_bucket_public_access_block.state[name]])
    error_message = "The state may never become public."
  }
  assert {
    condition     = toset(jsondecode(aws_s3_bucket_policy.state.policy).Statement[*].Sid) == toset(["DenyPlainHttp", "DenyOtherAlgorithm", "DenyOtherKey"])
    error_message = "The bucket refuses plain HTTP and every other encryption than its own."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_s3_bucket_policy.state.policy).Statement : keys(statement.Condition.Null) == keys(statement.Condition.StringNotEquals) if can(statement.Condition.StringNotEquals)])
    error_message = "The backend's uploads name no encryption: StringNotEquals needs Null beside it to let them pass."
  }
  assert {
    condition     = one(aws_s3_bucket_lifecycle_configuration.state.rule).noncurrent_version_expiration[0].newer_noncurrent_versions == 20
    error_message = "However old, the last versions of the state stay."
  }
}

run "only_named_workflows_get_a_role" {
  command = plan

  assert {
    condition = {
      for name, role in aws_iam_role.ci : name => one(jsondecode(role.assume_role_policy).Statement).Condition
      } == {
      for name, subjects in {
        plan  = ["repo:acme/dogbreed:pull_request"]
        apply = ["repo:acme/dogbreed:environment:dev", "repo:acme/dogbreed:environment:prod"]
        } : name => { StringEquals = {
          "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:sub" = subjects
      } }
    }
    error_message = "Pull requests plan; protected environments apply; nothing else, and no wildcard, gets in."
  }
  assert {
    condition     = alltrue([for role in aws_iam_role.ci : one(jsondecode(role.assume_role_policy).Statement).Principal.Federated == "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"])
    error_message = "GitHub's identity provider is the only one trusted."
  }
  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 1 && one(aws_iam_openid_connect_provider.github).client_id_list == toset(["sts.amazonaws.com"])
    error_message = "The provider is made where the account has none, for AWS's own audience."
  }
}

run "an_existing_identity_provider_is_used" {
  command = plan

  variables {
    github_oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
  }

  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0
    error_message = "An account can have only one provider for GitHub."
  }
}

run "policies_name_actions_and_resources" {
  command = plan

  # The longest names, because a managed policy has a limit.
  variables {
    project               = "sixteen-letters1"
    region                = "ap-southeast-1"
    external_bucket_names = ["someone-elses-pictures"]
  }

  assert {
    condition = toset(flatten([for policy in concat(values(aws_iam_policy.this), [aws_iam_policy.boundary, aws_iam_policy.build_images]) : [
      for statement in jsondecode(policy.policy).Statement : statement.Sid if contains(flatten([statement.Resource]), "*")
    ]])) == toset(["NoResources", "MakeKeys", "Unsubscribe"])
    error_message = "Resource * is for the actions that AWS gives no resource-level permission, in a statement that says so."
  }
  assert {
    condition = !anytrue(flatten([for policy in concat(values(aws_iam_policy.this), [aws_iam_policy.boundary, aws_iam_policy.build_images]) : [
      for statement in jsondecode(policy.policy).Statement : [for action in flatten([statement.Action]) : action == "*" || endswith(action, ":*")] if statement.Effect == "Allow"
    ]]))
    error_message = "No policy allows a whole service."
  }
  assert {
    condition     = alltrue([for policy in concat(values(aws_iam_policy.this), [aws_iam_policy.boundary, aws_iam_policy.build_images]) : length(policy.policy) <= 6144])
    error_message = "IAM takes 6,144 characters of a managed policy."
  }
  assert {
    condition = alltrue([for policy in concat(values(aws_iam_policy.this), [aws_iam_policy.boundary, aws_iam_policy.build_images]) :
      length(jsondecode(policy.policy).Statement[*].Sid) == length(distinct(jsondecode(policy.policy).Statement[*].Sid))
    ])
    error_message = "Every statement has a Sid of its own."
  }
}

run "plan_changes_nothing_but_the_lock" {
  command = plan

  assert {
    condition     = [for action in flatten(jsondecode(aws_iam_policy.this["read"].policy).Statement[*].Action) : action if !can(regex("^[a-z0-9-]+:(BatchGet|Describe|Get|List|View)", action))] == ["kms:Decrypt"]
    error_message = "The plan role reads; it decrypts what it reads."
  }
  assert {
    condition = [for statement in jsondecode(aws_iam_policy.this["plan-state"].policy).Statement : statement.Resource if length(setintersection(flatten([statement.Action]), ["s3:DeleteObject", "s3:PutObject"])) > 0] == [
      "arn:aws:s3:::terraform-state-dogbreed-123456789012-us-east-1/*.tflock"
    ]
    error_message = "The plan role takes and releases the lock; it cannot write a state."
  }
  assert {
    condition     = !anytrue([for action in flatten(jsondecode(aws_iam_policy.this["read"].policy).Statement[*].Action) : contains(["logs:GetLogEvents", "sqs:ReceiveMessage", "secretsmanager:GetSecretValue"], action)])
    error_message = "Settings are for the plan, what passes through the system is not."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_policy.this["read"].policy).Statement : statement.Resource if contains(flatten([statement.Action]), "s3:GetObject")]) == "arn:aws:s3:::dogbreed-*-123456789012-us-east-1/code/*"
    error_message = "Of the objects the plan reads only those that Terraform uploads: no pictures, no models."
  }
}

run "images_are_built_by_others_than_ci" {
  command = plan

  assert {
    condition = { for statement in jsondecode(aws_iam_policy.build_images.policy).Statement : statement.Sid => jsonencode([statement.Action, statement.Resource]) } == {
      for sid, allowed in {
        UploadSources  = ["s3:PutObject", "arn:aws:s3:::dogbreed-*-123456789012-us-east-1/image/*"]
        EncryptSources = ["kms:GenerateDataKey", "arn:aws:kms:us-east-1:123456789012:key/*"]
        Build          = [["codebuild:BatchGetBuilds", "codebuild:StartBuild"], "arn:aws:codebuild:us-east-1:123456789012:project/dogbreed-*-image"]
        ReadLog        = ["logs:GetLogEvents", "arn:aws:logs:us-east-1:123456789012:log-group:/aws/codebuild/dogbreed-*-image:log-stream:*"]
        FindImages = ["ecr:DescribeImages", [
          "arn:aws:ecr:us-east-1:123456789012:repository/dogbreed-*-serving", "arn:aws:ecr:us-east-1:123456789012:repository/dogbreed-*-training",
        ]]
        ListStates    = ["s3:ListBucket", "arn:aws:s3:::terraform-state-dogbreed-123456789012-us-east-1"]
        ReadStates    = ["s3:GetObject", "arn:aws:s3:::terraform-state-dogbreed-123456789012-us-east-1/*.tfstate"]
        DecryptStates = ["kms:Decrypt", aws_kms_key.state.arn]
      } : sid => jsonencode(allowed)
    }
    error_message = "Whoever builds images can do other things than that, or not that."
  }
  assert {
    condition = { for statement in jsondecode(aws_iam_policy.build_images.policy).Statement : statement.Sid => jsonencode(statement.Condition) if can(statement.Condition) } == {
      EncryptSources = jsonencode({ StringEquals = { "aws:ResourceTag/Project" = "dogbreed", "kms:ViaService" = "s3.us-east-1.amazonaws.com" } })
      DecryptStates  = jsonencode({ StringEquals = { "kms:ViaService" = "s3.us-east-1.amazonaws.com" } })
    }
    error_message = "Keys serve objects in S3, and of all keys the project's and the state's."
  }
  assert {
    condition     = !contains(keys(aws_iam_policy.this), "build-images") && aws_iam_policy.build_images.path == "/bootstrap/"
    error_message = "CI starts no builds, and cannot change who may."
  }
  assert {
    condition     = !anytrue([for policy in aws_iam_policy.this : strcontains(policy.policy, "/image/")])
    error_message = "Terraform uploads no sources of images."
  }
}

run "apply_cannot_escalate" {
  command = plan

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_policy.this["write-roles"].policy).Statement :
      statement.Condition == { StringEquals = { "iam:PermissionsBoundary" = "arn:aws:iam::123456789012:policy/bootstrap/dogbreed-boundary" } }
      if length(setintersection(flatten([statement.Action]), ["iam:AttachRolePolicy", "iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"])) > 0
    ])
    error_message = "No role without the boundary, no rights to a role without it."
  }
  assert {
    condition     = length(setsubtract(["iam:AttachRolePolicy", "iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"], flatten(jsondecode(aws_iam_policy.this["write-roles"].policy).Statement[*].Action))) == 0
    error_message = "The roles of the modules are made by the apply role."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_policy.this["write-roles"].policy).Statement :
      alltrue([for resource in flatten([statement.Resource]) : startswith(trimprefix(resource, "arn:aws:iam::123456789012:"), "role/dogbreed-") || can(regex("^(policy|instance-profile)/dogbreed-|^role/aws-service-role/", trimprefix(resource, "arn:aws:iam::123456789012:")))])
      if statement.Effect == "Allow"
    ])
    error_message = "What apply may change in IAM is named after the project; its own roles and the boundary lie under bootstrap/."
  }
  assert {
    condition     = alltrue([for name, role in aws_iam_role.ci : role.path == "/bootstrap/"]) && aws_iam_policy.boundary.path == "/bootstrap/" && alltrue([for policy in aws_iam_policy.this : policy.path == "/bootstrap/"])
    error_message = "Roles, policies and boundary must be out of reach of role/<project>-* and policy/<project>-*."
  }
  assert {
    condition = contains([for statement in jsondecode(aws_iam_policy.this["write-roles"].policy).Statement : [statement.Action, statement.Resource] if statement.Effect == "Deny"],
    ["iam:*", ["arn:aws:iam::123456789012:policy/bootstrap/*", "arn:aws:iam::123456789012:role/bootstrap/*", "arn:aws:iam::123456789012:oidc-provider/*"]])
    error_message = "The denial outlives whatever is attached later."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_policy.this["write-roles"].policy).Statement : can(statement.Condition.StringEquals["iam:PassedToService"]) if contains(flatten([statement.Action]), "iam:PassRole")])
    error_message = "Roles are passed to the services that this project uses."
  }
  assert {
    condition     = !anytrue([for action in flatten([for policy in aws_iam_policy.this : jsondecode(policy.policy).Statement[*].Action]) : contains(["codebuild:StartBuild", "ssm:StartSession", "ssm:SendCommand", "lambda:InvokeFunction", "iam:CreateAccessKey", "iam:CreateUser", "sts:AssumeRole"], action)])
    error_message = "Apply changes resources; it does not run commands in them, nor become somebody else."
  }
}

run "apply_can_do_what_the_modules_need" {
  command = plan

  assert {
    condition = alltrue([for policy, sids in {
      read           = { LogGroups = "logs:DescribeMetricFilters", NoResources = "ec2:DescribeInternetGateways" }
      write-services = { Logs = "logs:PutMetricFilter" }
      write-hosts    = { ScalingAlarms = "cloudwatch:PutMetricAlarm", NotebookInterfaces = "ec2:CreateNetworkInterface", NotebookHosts = "ec2:AttachNetworkInterface", ChangeNetwork = "ec2:CreateNetworkInterface" }
      } : alltrue([for sid, action in sids :
        anytrue([for statement in jsondecode(aws_iam_policy.this[policy].policy).Statement : contains(flatten([statement.Action]), action) if statement.Sid == sid])
    ])])
    error_message = "A metric filter, a scaling policy or a notebook instance in the network could not be made."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_policy.this["write-hosts"].policy).Statement : statement.Resource if statement.Sid == "ScalingAlarms"]) == "arn:aws:cloudwatch:us-east-1:123456789012:alarm:TargetTracking-*"
    error_message = "Of alarms outside the project, only those of scaling policies may be changed."
  }
  assert {
    condition     = !anytrue([for action in flatten([for policy in aws_iam_policy.this : jsondecode(policy.policy).Statement[*].Action]) : startswith(action, "cloudformation:")])
    error_message = "Cloud Control is what makes the function's URL public: that takes an administrator."
  }
}

run "apply_cannot_take_over_what_is_not_tagged" {
  command = plan

  assert {
    condition = one([for statement in jsondecode(aws_iam_policy.this["write-keys"].policy).Statement : statement.Condition if statement.Sid == "TagNewKeys"]) == {
      StringEquals = { "aws:RequestTag/Project" = "dogbreed" }
      Null         = { "aws:ResourceTag/Project" = "true", "kms:ResourceAliases" = "true" }
    }
    error_message = "Only a key without tag and alias, as it is in the making, may become the project's."
  }
  assert {
    condition = alltrue([
      for statement in concat(jsondecode(aws_iam_policy.this["write-hosts"].policy).Statement, jsondecode(aws_iam_policy.this["write-keys"].policy).Statement) :
      contains(["TagNewKeys", "TagWhatIsMade", "MarkDefaultSecurityGroup"], statement.Sid) || try(statement.Condition.StringEquals["aws:ResourceTag/Project"] == "dogbreed", false)
      if statement.Effect == "Allow" && length(setintersection(flatten([statement.Action]), ["ec2:CreateTags", "kms:TagResource"])) > 0
    ])
    error_message = "What already exists is tagged only if it is the project's, but for a network's default group."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_policy.this["write-hosts"].policy).Statement : statement.Condition.StringLike if statement.Sid == "MarkDefaultSecurityGroup"]) == { "aws:RequestTag/Name" = "dogbreed-*-default-closed" }
    error_message = "A group without tags can be marked as a closed one, and as nothing else."
  }
  assert {
    condition = {
      for statement in jsondecode(aws_iam_policy.this["write-hosts"].policy).Statement : statement.Sid => [statement.Action, statement.Condition] if statement.Effect == "Deny"
      } == {
      ClosedStaysClosed = [
        ["ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress", "ec2:DeleteSecurityGroup", "ec2:ModifyNetworkInterfaceAttribute", "ec2:ModifySecurityGroupRules"],
        { StringLike = { "aws:ResourceTag/Name" = "*-default-closed" } },
      ]
      MarkStays = [
        ["ec2:CreateTags", "ec2:DeleteTags"],
        { StringLike = { "aws:ResourceTag/Name" = "*-default-closed" }, "ForAnyValue:StringEquals" = { "aws:TagKeys" = ["Name"] } },
      ]
    }
    error_message = "A group once marked as closed is not opened, nor is the mark taken off."
  }
}

run "boundary_allows_work_and_no_administration" {
  command = plan

  assert {
    condition     = [for action in flatten(jsondecode(aws_iam_policy.boundary.policy).Statement[*].Action) : action if startswith(action, "iam:") || startswith(action, "sts:")] == ["iam:PassRole"]
    error_message = "No role of the project manages identities or becomes another."
  }
  assert {
    condition     = !anytrue([for action in flatten(jsondecode(aws_iam_policy.boundary.policy).Statement[*].Action) : can(regex("Policy$|:(Update|Delete|Create)(Endpoint|Model$|Bucket|Function|Key$)", action))])
    error_message = "No role of the project changes policies, endpoints, buckets or functions: Terraform does."
  }
  assert {
    condition     = !strcontains(aws_iam_policy.boundary.policy, "External")
    error_message = "Without named buckets, nothing outside the project can be read."
  }
}

run "boundary_admits_named_buckets_of_others_to_be_read" {
  command = plan

  variables {
    external_bucket_names = ["someone-elses-pictures"]
  }

  assert {
    condition = contains([for statement in jsondecode(aws_iam_policy.boundary.policy).Statement : [statement.Action, statement.Resource]], [
      ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
      ["arn:aws:s3:::someone-elses-pictures", "arn:aws:s3:::someone-elses-pictures/*"],
    ])
    error_message = "Pictures in a named bucket of another account can be read, and not written."
  }
}

run "project_whose_pattern_covers_the_state" {
  command = plan

  variables {
    project = "terraform-state"
  }

  expect_failures = [var.project]
}

run "inputs_are_checked" {
  command = plan

  variables {
    project                  = "dog--breed"
    region                   = "Frankfurt"
    account_id               = "123"
    tags                     = { Project = "dogbreed" }
    github_repository        = "dogbreed"
    github_environments      = ["*"]
    github_oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/gitlab.com"
    external_bucket_names    = ["*"]
  }

  expect_failures = [
    var.project,
    var.region,
    var.account_id,
    var.tags,
    var.github_repository,
    var.github_environments,
    var.github_oidc_provider_arn,
    var.external_bucket_names,
  ]
}
