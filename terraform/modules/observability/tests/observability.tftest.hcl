# Who may write to the topic, what rings, what is shown, and what is left out when there is nothing to watch.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-central-1:123456789012:dogs-test-alarms" }
  }
  mock_resource "aws_cloudwatch_metric_alarm" {
    defaults = { arn = "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:some" }
  }
}

variables {
  prefix      = "dogs-test"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
}

run "with_nothing_to_watch_only_topic_budget_and_cost" {
  command = apply

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.endpoint) + length(aws_cloudwatch_metric_alarm.async_failures) + length(aws_cloudwatch_metric_alarm.function) + length(aws_cloudwatch_metric_alarm.function_duration) + length(aws_cloudwatch_metric_alarm.jobs) == 0
    error_message = "An alarm watches what does not exist."
  }
  assert {
    condition     = length(output.rollback_alarm_names) == 0 && output.topic_arn == "arn:aws:sns:eu-central-1:123456789012:dogs-test-alarms" && output.dashboard_name == "dogs-test"
    error_message = "The outputs cannot be used without an endpoint."
  }
  assert {
    condition     = [for w in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : w.properties.region] == ["us-east-1"]
    error_message = "The dashboard shows more than the cost, or looks for it elsewhere than in us-east-1."
  }
  assert {
    condition = (
      aws_budgets_budget.monthly[0].limit_amount == "300" && aws_budgets_budget.monthly[0].time_unit == "MONTHLY"
      && length(aws_budgets_budget.monthly[0].cost_filter) == 0 && aws_budgets_budget.monthly[0].cost_types[0].include_credit == false
      && { for n in aws_budgets_budget.monthly[0].notification : n.notification_type => n.threshold } == { ACTUAL = 80, FORECASTED = 100 }
    )
    error_message = "The budget does not warn at 80 % spent and 100 % forecast of the whole account's cost."
  }
}

run "only_named_services_of_this_account_write_to_the_topic" {
  command = apply

  variables {
    notify_emails = ["team@example.com", "night@example.com"]
  }

  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == var.kms_key_arn && aws_sns_topic.alarms.name == "dogs-test-alarms"
    error_message = "The topic is not encrypted with our key."
  }
  assert {
    condition     = { for s in jsondecode(aws_sns_topic_policy.alarms.policy).Statement : s.Sid => s.Principal.Service if s.Effect == "Allow" } == { Alarms = "cloudwatch.amazonaws.com", Budgets = "budgets.amazonaws.com", FailedJobs = "events.amazonaws.com" }
    error_message = "Somebody else may write to the topic."
  }
  assert {
    condition = { for s in jsondecode(aws_sns_topic_policy.alarms.policy).Statement : s.Sid => s.Condition if contains(["Alarms", "Budgets"], s.Sid) } == {
      Alarms = {
        StringEquals = { "aws:SourceAccount" = "123456789012" }
        ArnLike      = { "aws:SourceArn" = "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:dogs-test-*" }
      }
      Budgets = {
        StringEquals = { "aws:SourceAccount" = "123456789012" }
        ArnLike      = { "aws:SourceArn" = "arn:aws:budgets::123456789012:*" }
      }
    }
    error_message = "A service may write in another account's name."
  }
  assert {
    condition     = [for s in jsondecode(aws_sns_topic_policy.alarms.policy).Statement : s if s.Sid == "FailedJobs" && can(s.Condition)] == []
    error_message = "EventBridge's messages would be dropped: it sends nothing that a condition could be met with."
  }
  assert {
    condition = alltrue([for s in jsondecode(aws_sns_topic_policy.alarms.policy).Statement :
      s.Action == "sns:Publish" && s.Resource == "arn:aws:sns:eu-central-1:123456789012:dogs-test-alarms"
    ])
    error_message = "The policy allows more than writing to this topic."
  }
  assert {
    condition     = [for s in jsondecode(aws_sns_topic_policy.alarms.policy).Statement : s.Condition if s.Effect == "Deny"] == [{ Bool = { "aws:SecureTransport" = "false" } }]
    error_message = "Messages may come unencrypted."
  }
  assert {
    condition     = keys(aws_sns_topic_subscription.emails) == ["night@example.com", "team@example.com"]
    error_message = "An address hears nothing."
  }
}

run "the_endpoints_alarms_roll_back_but_not_for_a_blip" {
  command = apply

  variables {
    endpoint       = { name = "dogs-test" }
    latency_p99_ms = 250
  }

  assert {
    condition     = output.rollback_alarm_names == toset(["dogs-test-endpoint-errors", "dogs-test-endpoint-latency"])
    error_message = "Roll-outs are taken back by something else than the endpoint's alarms."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.endpoint["latency"].threshold == 250000 && aws_cloudwatch_metric_alarm.endpoint["latency"].extended_statistic == "p99" && aws_cloudwatch_metric_alarm.endpoint["latency"].evaluate_low_sample_count_percentiles == "ignore"
    error_message = "ModelLatency is in microseconds, and the limit in milliseconds."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.endpoint["errors"].metric_name == "Invocation5XXErrors" && aws_cloudwatch_metric_alarm.endpoint["errors"].statistic == "Average" && aws_cloudwatch_metric_alarm.endpoint["errors"].threshold == 0.05
    error_message = "The alarm is not on the share of failed requests."
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.endpoint : a.datapoints_to_alarm >= 2 && a.treat_missing_data == "notBreaching" && a.dimensions == tomap({ EndpointName = "dogs-test", VariantName = "AllTraffic" })])
    error_message = "One bad minute, or no traffic, takes a roll-out back."
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.endpoint : one(a.alarm_actions) == aws_sns_topic.alarms.arn && strcontains(a.alarm_description, "First: ")])
    error_message = "Nobody is told, or not what to do first."
  }
  assert {
    condition = [for w in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : w.properties.title] == [
      "Alarms", "Endpoint: requests a minute", "Endpoint: latency (µs)", "Endpoint: errors", "Endpoint: load (100 % is one processor)",
      "Endpoint: instances that answered", "Account: cost of this month so far (USD; shown once billing alerts are on)",
    ]
    error_message = "The dashboard does not show the endpoint."
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) == length(distinct([for w in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : [w.x, w.y]]))
    error_message = "Graphs lie on top of each other."
  }
}

run "the_function_is_watched_by_its_alias" {
  command = apply

  variables {
    classify_function = {
      name                    = "dogs-test-classify"
      alias                   = "live"
      dead_letter_queue_name  = "dogs-test-dead"
      provisioned_concurrency = 3
      timeout_s               = 30
      failures_metric         = { namespace = "dogs-test", name = "Failures" }
    }
  }

  assert {
    condition     = keys(aws_cloudwatch_metric_alarm.function) == ["dead-letters", "errors", "failures", "spillover", "throttles"]
    error_message = "Something of the function is not watched."
  }
  assert {
    condition = alltrue([for key, a in aws_cloudwatch_metric_alarm.function :
      a.namespace == "AWS/Lambda" && a.dimensions == tomap({ FunctionName = "dogs-test-classify", Resource = "dogs-test-classify:live" }) if !contains(["dead-letters", "failures"], key)
    ])
    error_message = "The metrics of the alias have two dimensions; with another set there is no data, and never an alarm."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.function["failures"].namespace == "dogs-test" && aws_cloudwatch_metric_alarm.function["failures"].metric_name == "Failures" && length(aws_cloudwatch_metric_alarm.function["failures"].dimensions) == 0
    error_message = "Answers of 500 and above, which Lambda counts as success, go unseen."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.function["spillover"].metric_name == "ProvisionedConcurrencySpilloverInvocations"
    error_message = "Cold starts beside warm workers go unseen."
  }
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.function["dead-letters"].namespace == "AWS/SQS" && aws_cloudwatch_metric_alarm.function["dead-letters"].statistic == "Maximum"
      && aws_cloudwatch_metric_alarm.function["dead-letters"].metric_name == "ApproximateNumberOfMessagesVisible"
      && aws_cloudwatch_metric_alarm.function["dead-letters"].dimensions == tomap({ QueueName = "dogs-test-dead" })
    )
    error_message = "Failed calls in the queue go unseen."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.function_duration[0].threshold == 24000
    error_message = "Duration is in milliseconds: 80 % of 30 s are 24000."
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.function : strcontains(a.alarm_description, "First: ")])
    error_message = "An alarm does not say what to do first."
  }
  assert {
    condition     = length(output.rollback_alarm_names) == 0
    error_message = "The function takes back roll-outs of the endpoint."
  }
}

run "what_the_function_lacks_is_not_watched" {
  command = plan

  variables {
    classify_function = { name = "dogs-test-classify", alias = "live", provisioned_concurrency = 0 }
  }

  assert {
    condition     = keys(aws_cloudwatch_metric_alarm.function) == ["errors", "throttles"] && length(aws_cloudwatch_metric_alarm.function_duration) == 0
    error_message = "An alarm watches what does not exist."
  }
}

run "failed_jobs_ring_when_they_come_in_series_or_unheard" {
  command = apply

  variables {
    failed_job_rule_name = "dogs-test-failed-job"
  }

  assert {
    condition = { for key, a in aws_cloudwatch_metric_alarm.jobs : key => [a.namespace, a.metric_name, a.dimensions.RuleName, tostring(a.threshold), tostring(a.period)] } == {
      failed-jobs   = ["AWS/Events", "TriggeredRules", "dogs-test-failed-job", "3", "3600"]
      lost-messages = ["AWS/Events", "FailedInvocations", "dogs-test-failed-job", "1", "300"]
    }
    error_message = "The rule's metrics are not watched."
  }
}

run "serverless_and_async_have_graphs_of_their_own" {
  command = apply

  variables {
    endpoint = { name = "dogs-test", kind = "serverless" }
  }

  assert {
    condition     = strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "ModelSetupTime") && !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "CPUUtilization")
    error_message = "A serverless endpoint is shown with instances."
  }
}

run "async_requests_are_counted_by_metrics_of_their_own" {
  command = apply

  variables {
    endpoint = { name = "dogs-test", kind = "async", variant_name = "AllTraffic" }
  }

  assert {
    condition = alltrue([for name in ["InvocationsProcessed", "InvocationFailures", "ApproximateBacklogSize", "ModelLatency", "CPUUtilization"] :
      strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "\"${name}\"")
    ])
    error_message = "What an async endpoint works on, or what waits for it, is not shown."
  }
  assert {
    condition = alltrue([for name in ["Invocations", "InvocationsPerInstance", "OverheadLatency"] :
      !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "\"${name}\"")
    ])
    error_message = "A graph would stay empty: async endpoints have no such metric."
  }
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.async_failures[0].metric_name == "InvocationFailures"
      && aws_cloudwatch_metric_alarm.async_failures[0].dimensions == tomap({ EndpointName = "dogs-test", VariantName = "AllTraffic" })
      && one(aws_cloudwatch_metric_alarm.async_failures[0].alarm_actions) == aws_sns_topic.alarms.arn
      && strcontains(aws_cloudwatch_metric_alarm.async_failures[0].alarm_description, "First: ")
    )
    error_message = "Requests that fail after they were accepted go unseen."
  }
  assert {
    condition     = !contains(output.rollback_alarm_names, "dogs-test-endpoint-failures")
    error_message = "A caller's bad input could take a roll-out back."
  }
}

run "a_budget_can_count_one_tag_only_or_not_exist" {
  command = plan

  variables {
    monthly_budget_usd = 120.5
    budget_tag         = { key = "Project", value = "dogs" }
  }

  assert {
    condition     = one(aws_budgets_budget.monthly[0].cost_filter).values == tolist(["user:Project$dogs"]) && aws_budgets_budget.monthly[0].limit_amount == "120.5"
    error_message = "The budget counts something else than the tag."
  }
}

run "no_budget" {
  command = plan

  variables {
    monthly_budget_usd = 0
  }

  assert {
    condition     = length(aws_budgets_budget.monthly) == 0
    error_message = "There is a budget of nothing."
  }
}

run "nonsense_is_refused" {
  command = plan

  variables {
    notify_emails      = ["team"]
    latency_p99_ms     = 0
    monthly_budget_usd = -1
  }

  expect_failures = [var.notify_emails, var.latency_p99_ms, var.monthly_budget_usd]
}
