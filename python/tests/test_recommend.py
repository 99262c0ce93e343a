"""From a measured rate to Terraform values: the formulas, the cost, and that Terraform takes what is printed."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import hcl2
import pytest
from scipy.stats import poisson
from test_terraform_modules import Tree

from dogbreed.errors import DogbreedError
from dogbreed.sizing import prices, recommend

ROOT = Path(__file__).parents[2]
TERRAFORM = ROOT / "terraform"


def endpoint(sustained: float = 10, expected: float = 20, start_s: float = 240) -> recommend.EndpointPlan:
    return recommend.plan_endpoint(
        sustained,
        expected_rate=expected,
        objective_ms=500,
        instance_type="ml.m5.large",
        usd_per_hour=prices.instance_price("ml.m5.large"),
        start_s=start_s,
    )


def test_the_target_is_half_of_what_is_sustained_and_by_the_minute() -> None:
    assert recommend.invocations_per_instance(10) == 300  # the module's default, for 10 a second
    assert recommend.invocations_per_instance(0.01) == 1


@pytest.mark.parametrize("sustained, expected", [(10, 1), (10, 20), (10, 23), (3.7, 80), (240, 1000)])
def test_the_fleet_carries_the_expected_rate_at_its_target_and_after_a_loss(sustained: float, expected: float) -> None:
    plan = endpoint(sustained, expected)
    at_target = plan.invocations_per_instance / 60
    assert (plan.max_instances - 1) * at_target >= expected * 0.999
    assert plan.survives_rate >= expected
    assert 2 <= plan.min_instances < plan.max_instances
    # One instance more than that is not bought.
    assert plan.max_instances == 3 or (plan.max_instances - 2) * at_target < expected


def test_cooldowns_follow_from_the_start_of_an_instance() -> None:
    assert endpoint(start_s=240).scale_out_cooldown_s == 360  # and a minute to count, and one to arrive
    assert endpoint(start_s=100).scale_out_cooldown_s == 240
    assert endpoint(start_s=100).scale_in_cooldown_s == 300
    assert endpoint(start_s=900).scale_in_cooldown_s == 1020
    assert endpoint(start_s=9000).scale_out_cooldown_s == 3600


def test_costs_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    per_instance = prices.monthly(1, prices.instance_price("ml.m5.large"))
    assert per_instance == pytest.approx(float(re.findall(r"([\d.]+) per instance", readme)[0]), abs=0.005)
    assert endpoint().usd_min == pytest.approx(2 * per_instance)
    warm = 3 * 256 / 1024 * prices.SECONDS_PER_MONTH * prices.LAMBDA_PROVISIONED_USD_PER_GB_S
    row = next(line for line in readme.splitlines() if line.startswith("| `classify_function`"))
    assert f"| {warm:.2f} |" in row
    assert prices.COLLECTED in readme


def test_a_price_that_is_not_known_is_asked_for() -> None:
    assert prices.instance_price("ml.m7i.large", 0.121) == 0.121
    with pytest.raises(DogbreedError, match=r"no price of ml\.m7i\.large here.*--price"):
        prices.instance_price("ml.m7i.large")


def test_concurrency_is_little_s_law_with_room_for_chance() -> None:
    plan = recommend.plan_function(expected_rate=20, call_s=0.5, slow_call_s=1.5)
    assert plan.busy == 10
    assert plan.provisioned_concurrency == poisson.ppf(0.99, 10) == 18
    assert plan.reserved_concurrency == max(2 * 18, poisson.ppf(0.9999, 30))
    large = recommend.plan_function(expected_rate=20_000, call_s=0.5, slow_call_s=0.6)
    assert large.provisioned_concurrency == 11_000  # of many calls chance is less than the 10 % that AWS names


def test_what_a_month_of_calls_costs() -> None:
    plan = recommend.plan_function(expected_rate=2, call_s=0.4, slow_call_s=1, memory_mb=512, mean_share=0.25)
    calls = 0.5 * 730 * 3600
    assert plan.usd_requests == pytest.approx(calls * 0.20 / 1e6)
    assert plan.usd_duration == pytest.approx(calls * 0.4 * 0.5 * 0.0000077778)
    assert plan.usd == pytest.approx(plan.usd_requests + plan.usd_duration + plan.usd_provisioned)


@pytest.mark.parametrize("mean", [0.01, 0.7, 3, 42, 650, 5000])
@pytest.mark.parametrize("probability", [0.5, 0.99, 0.9999])
def test_poisson_quantiles(mean: float, probability: float) -> None:
    assert recommend.poisson_quantile(mean, probability) == pytest.approx(
        poisson.ppf(probability, mean), abs=1 + mean / 1000
    )


def test_rates_to_show_are_round_and_rising() -> None:
    rates = recommend.usual_rates(86.88)
    assert rates == sorted(rates) and rates[1] == 87 and rates[-1] == 4300


# ---- Terraform ----


def snippet(sustained: float, expected: float, call_s: float) -> str:
    function = recommend.plan_function(expected_rate=expected, call_s=call_s, slow_call_s=3 * call_s)
    return recommend.hcl(endpoint(sustained, expected), function)


def attributes(variable: str) -> set[str]:
    """The attributes of a variable in terraform/variables.tf, at its first level."""
    text = (TERRAFORM / "variables.tf").read_text(encoding="utf-8")
    block = text.split(f'variable "{variable}" {{')[1].split("\n}")[0]
    return set(re.findall(r"^ {4}(\w+) *=", block, re.M))


def test_every_name_printed_is_an_attribute_that_terraform_knows() -> None:
    printed = hcl2.loads(snippet(12, 30, 0.4) + "\n")
    shown = {name: set(values) for name, values in printed.items() if not name.startswith("__")}
    assert set(shown) == {"endpoint", "classify_function"}
    for name, values in shown.items():
        assert {v for v in values if not v.startswith("__")} <= attributes(name)
    assert "invocations_per_instance" in shown["endpoint"] and "reserved_concurrency" in shown["classify_function"]


@pytest.mark.slow
@pytest.mark.parametrize("sustained, expected, call_s", [(0.4, 0.2, 4), (12, 30, 0.4), (400, 20_000, 0.05)])
def test_terraform_plans_what_is_printed(sustained: float, expected: float, call_s: float, tmp_path: Path) -> None:
    """All validations of the root and the modules, and that the values arrive at the resources."""
    if not shutil.which("terraform"):
        pytest.skip("there is no terraform here")
    tree = Tree(tmp_path)
    plans = tree.terraform / "tests" / "plans"
    text = (plans / "environment.tftest.hcl").read_text(encoding="utf-8")
    printed = snippet(sustained, expected, call_s)
    (plans / "sizing.tftest.hcl").write_text(
        text.replace("  variables {\n", f'  variables {{\n    environment = "dev"\n{printed}\n', 1),
        encoding="utf-8",
    )
    planned = tree.plan("sizing.tftest.hcl")
    plan = endpoint(sustained, expected)
    target = planned["module.endpoint.aws_appautoscaling_target.steady[0]"]
    assert (target["min_capacity"], target["max_capacity"]) == (plan.min_instances, plan.max_instances)
    (policy,) = planned["module.endpoint.aws_appautoscaling_policy.load[0]"][
        "target_tracking_scaling_policy_configuration"
    ]
    assert policy["target_value"] == plan.invocations_per_instance
    assert policy["scale_out_cooldown"] == plan.scale_out_cooldown_s
    assert policy["scale_in_cooldown"] == plan.scale_in_cooldown_s
    function = planned["module.classify_function[0].aws_lambda_function.this"]
    assert f"= {function['reserved_concurrent_executions']}\n}}" in printed and function["memory_size"] == 256
    warm = [after for address, after in planned.items() if "provisioned_concurrency_config" in address]
    assert f"= {warm[0]['provisioned_concurrent_executions']}\n" in printed


def test_the_latency_alarm_takes_the_objective() -> None:
    variables = (TERRAFORM / "modules" / "observability" / "variables.tf").read_text(encoding="utf-8")
    assert "latency_p99_ms > 0 && var.latency_p99_ms <= 60000" in variables
    assert endpoint().latency_p99_ms == 500 and math.isfinite(endpoint().survives_rate)
