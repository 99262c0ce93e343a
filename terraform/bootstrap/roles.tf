# GitHub vouches for the workflow, AWS hands out credentials for an hour: there are no long-lived keys to steal.

locals {
  github       = "token.actions.githubusercontent.com"
  provider_arn = coalesce(var.github_oidc_provider_arn, one(aws_iam_openid_connect_provider.github[*].arn))

  # The exact subjects, no wildcard: a pull request (never one from a fork, GitHub gives those no token) may plan; only a
  # job that GitHub let into a protected environment may apply.
  subjects = {
    plan  = ["repo:${var.github_repository}:pull_request"]
    apply = [for name in sort(var.github_environments) : "repo:${var.github_repository}:environment:${name}"]
  }

  policies = {
    plan  = [aws_iam_policy.this["read"].arn, aws_iam_policy.this["plan-state"].arn]
    apply = [for name, policy in aws_iam_policy.this : policy.arn if name != "plan-state"]
  }
}

# No thumbprints: AWS checks GitHub's certificate against its own list of authorities and ignores them.
resource "aws_iam_openid_connect_provider" "github" {
  count          = var.github_oidc_provider_arn == null ? 1 : 0
  url            = "https://${local.github}"
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "ci" {
  for_each             = local.subjects
  name                 = "${var.project}-${each.key}"
  path                 = local.path
  description          = each.key == "plan" ? "Pull requests of ${var.github_repository}: terraform plan." : "Protected environments of ${var.github_repository}: terraform apply."
  max_session_duration = each.key == "plan" ? 3600 : 7200

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "GitHub"
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = local.provider_arn }
      Condition = { StringEquals = {
        "${local.github}:aud" = "sts.amazonaws.com"
        "${local.github}:sub" = each.value
      } }
    }]
  })
}

resource "aws_iam_policy" "this" {
  for_each    = { read = local.read, write-services = local.write_services, write-hosts = local.write_hosts, write-keys = local.write_keys, write-roles = local.write_roles, plan-state = local.plan_state, apply-state = local.apply_state }
  name        = "${var.project}-${each.key}"
  path        = local.path
  description = "For CI of ${var.project}: ${replace(each.key, "-", " ")}."

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in each.value : merge({ Effect = "Allow" }, statement)]
  })
}

# All policies of a role at once: whatever else gets attached by hand is detached by the next apply.
resource "aws_iam_role_policy_attachments_exclusive" "ci" {
  for_each    = aws_iam_role.ci
  role_name   = each.value.name
  policy_arns = local.policies[each.key]
}

locals {
  read_state = [
    { Sid = "ListStates", Action = ["s3:GetBucketLocation", "s3:ListBucket"], Resource = local.state_arn },
    { Sid = "ReadStates", Action = "s3:GetObject", Resource = "${local.state_arn}/*" },
    { Sid = "Lock", Action = ["s3:DeleteObject", "s3:PutObject"], Resource = "${local.state_arn}/*.tflock" },
    {
      Sid       = "UseStateKey"
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = aws_kms_key.state.arn
      Condition = { StringEquals = { "kms:ViaService" = local.via["s3"] } }
    },
  ]
  plan_state  = local.read_state
  apply_state = concat(local.read_state, [{ Sid = "WriteStates", Action = "s3:PutObject", Resource = "${local.state_arn}/*.tfstate" }])
}
