"""From what one instance sustains to the values that Terraform takes, with their cost.

Every formula is here, with where it comes from; `dogbreed loadtest` prints the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dogbreed.sizing import prices

# What AWS recommends to begin with: the target is (most requests per second) × 0.5 × 60.
# https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-loadtest.html
SAFETY_FACTOR = 0.5

# From the order for an instance to its first answer. AWS gives no figure; users of auto-scaled endpoints report three
# to five minutes for CPU containers, and modules/endpoint counts with 240 s. Measure yours: the time between a scaling
# activity's start and end in `aws application-autoscaling describe-scaling-activities --service-namespace sagemaker`.
INSTANCE_START_S = 240
METRIC_PERIOD_S = 60  # CloudWatch sums invocations by the minute
METRIC_DELAY_S = 60  # and shows a minute's sum about a minute after its end
DEFAULT_COOLDOWN_S = 300  # of Application Auto Scaling for SageMaker variants, in both directions
MAX_COOLDOWN_S = 3600  # the module's limit

# Fetching a public picture before the endpoint is asked, where a call of the function was not measured itself.
FETCH_S = 0.25


@dataclass(frozen=True)
class EndpointPlan:
    """Values of `endpoint` in Terraform, and USD a month while the fewest and the most instances run.

    `expected_rate` and `survives_rate` in requests per second: what the fleet at its most carries at its target, and
    what it still carries within the objective when one instance is lost.
    """

    instance_type: str
    expected_rate: float
    invocations_per_instance: int
    min_instances: int
    max_instances: int
    scale_in_cooldown_s: int
    scale_out_cooldown_s: int
    latency_p99_ms: int
    survives_rate: float
    usd_min: float
    usd_max: float


@dataclass(frozen=True)
class FunctionPlan:
    """Values of `classify_function` in Terraform. `busy` is the mean number of calls at a time; USD are a month's."""

    expected_rate: float
    call_s: float
    busy: float
    memory_mb: int
    provisioned_concurrency: int
    reserved_concurrency: int
    usd_provisioned: float
    usd_requests: float
    usd_duration: float

    @property
    def usd(self) -> float:
        return self.usd_provisioned + self.usd_requests + self.usd_duration


def invocations_per_instance(sustained_rate: float) -> int:
    """The target of `SageMakerVariantInvocationsPerInstance`: invocations per minute and instance, at least 1.

    The metric counts by the minute, so requests per second are multiplied by 60. Half of what an instance sustains is
    left free for what arrives during the minutes that a new instance takes.
    """
    return max(1, math.floor(sustained_rate * 60 * SAFETY_FACTOR + 1e-9))


def plan_endpoint(
    sustained_rate: float,
    *,
    expected_rate: float,
    objective_ms: float,
    instance_type: str,
    usd_per_hour: float,
    start_s: float = INSTANCE_START_S,
) -> EndpointPlan:
    """How many instances, and how fast they come and go.

    min_instances is 2, so that the loss of a zone or an instance leaves one that answers while another takes its four
    minutes. At the target each of n ≥ 2 instances works at half of what it sustains, so the n − 1 that remain after a
    loss work at no more than all of it: the half that waits for a rising load is the spare instance, too (N + 1).

    max_instances is what the expected rate needs at the target, and one more: the count that auto-scaling asks for is
    rounded up from a metric that swings by chance, and a cap just at the need would leave the alarm on at every peak.

    Args:
        sustained_rate: requests per second that one instance answers within the objective.
        expected_rate: requests per second at the busiest time, all callers together.
        start_s: seconds that a new instance takes until it answers.
    """
    target = invocations_per_instance(sustained_rate)
    needed = math.ceil(expected_rate * 60 / target - 1e-9)
    fewest = 2
    most = max(needed + 1, fewest + 1)
    return EndpointPlan(
        instance_type=instance_type,
        expected_rate=expected_rate,
        invocations_per_instance=target,
        min_instances=fewest,
        max_instances=most,
        scale_in_cooldown_s=scale_in_cooldown_s(start_s),
        scale_out_cooldown_s=scale_out_cooldown_s(start_s),
        latency_p99_ms=round(objective_ms),
        survives_rate=(most - 1) * sustained_rate,
        usd_min=prices.monthly(fewest, usd_per_hour),
        usd_max=prices.monthly(most, usd_per_hour),
    )


def scale_out_cooldown_s(start_s: float) -> int:
    """The start of an instance and until a minute of the metric that knows of it has been seen, in whole minutes.

    Until then the load still falls on the old instances alone. A shorter cooldown ends while that is so, and the same
    load adds instances a second time. It does not delay a rising load: a need larger than what was just added is met
    at once, whatever the cooldown.
    https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html
    """
    return min(MAX_COOLDOWN_S, math.ceil((start_s + METRIC_PERIOD_S + METRIC_DELAY_S) / 60) * 60)


def scale_in_cooldown_s(start_s: float) -> int:
    """As long as it takes to get an instance back, and no less than AWS's own default of 300 s.

    What is taken away too early is missed for the start of an instance and the three minutes that the alarm looks at.
    """
    return max(DEFAULT_COOLDOWN_S, scale_out_cooldown_s(start_s))


def plan_function(
    *, expected_rate: float, call_s: float, slow_call_s: float, memory_mb: int = 256, mean_share: float = 0.5
) -> FunctionPlan:
    """Environments of the Lambda function, one call at a time each.

    Little's law: calls at a time = calls per second × seconds per call, on average. AWS names the same formula and a
    buffer of 10 % (https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html). Callers come by chance,
    so the number at a time is Poisson distributed about that mean, and 10 % is far too little for few calls:

    provisioned_concurrency: enough in 99 of 100 moments, and never less than the mean + 10 %.
    reserved_concurrency: a cap that honest traffic does not meet: 9,999 of 10,000 moments at the expected rate while
        every call takes `slow_call_s`, and at least twice what is provisioned.

    Args:
        call_s: seconds of a usual call, fetching included.
        slow_call_s: seconds of a slow one, the 99th percentile say.
        mean_share: the month's mean rate as a share of the expected (highest) one.
    """
    busy = expected_rate * call_s
    provisioned = max(1, math.ceil(busy * 1.1 - 1e-9), poisson_quantile(busy, 0.99))
    reserved = max(2 * provisioned, poisson_quantile(expected_rate * max(call_s, slow_call_s), 0.9999))
    calls = expected_rate * mean_share * prices.SECONDS_PER_MONTH
    gb = memory_mb / 1024
    return FunctionPlan(
        expected_rate=expected_rate,
        call_s=call_s,
        busy=busy,
        memory_mb=memory_mb,
        provisioned_concurrency=provisioned,
        reserved_concurrency=reserved,
        usd_provisioned=provisioned * gb * prices.SECONDS_PER_MONTH * prices.LAMBDA_PROVISIONED_USD_PER_GB_S,
        usd_requests=calls / 1e6 * prices.LAMBDA_USD_PER_MILLION_REQUESTS,
        usd_duration=calls * call_s * gb * prices.LAMBDA_RUNNING_USD_PER_GB_S,
    )


def poisson_quantile(mean: float, probability: float) -> int:
    """The least number that a Poisson variable with this mean does not exceed with this probability."""
    if mean > 700:  # exp(-mean) would vanish, and the normal distribution is as good
        from statistics import NormalDist

        return math.ceil(NormalDist(mean, math.sqrt(mean)).inv_cdf(probability))
    term = total = math.exp(-mean)
    count = 0
    while total < probability:
        count += 1
        term *= mean / count
        total += term
        if term == 0:  # the sum's rounding error is all that is missing
            break
    return count


def usual_rates(sustained_rate: float) -> list[float]:
    """Expected rates to show where none is given: what half an instance and up to 50 of them sustain, rounded."""
    rates = [_round_figure(sustained_rate * factor) for factor in (0.5, 1, 2, 5, 10, 20, 50)]
    return sorted(set(rates))


def _round_figure(value: float) -> float:
    scale = 10 ** math.floor(math.log10(value))
    return float(f"{round(value / scale, 1) * scale:.6g}")


def hcl(endpoint: EndpointPlan, function: FunctionPlan | None = None) -> str:
    """Lines for terraform/environments/<name>.tfvars; the names are those of terraform/variables.tf."""
    blocks: dict[str, dict[str, Any]] = {
        "endpoint": {
            "instance_type": endpoint.instance_type,
            "min_instances": endpoint.min_instances,
            "max_instances": endpoint.max_instances,
            "invocations_per_instance": endpoint.invocations_per_instance,
            "scale_in_cooldown_s": endpoint.scale_in_cooldown_s,
            "scale_out_cooldown_s": endpoint.scale_out_cooldown_s,
            "latency_p99_ms": endpoint.latency_p99_ms,
        }
    }
    if function:
        blocks["classify_function"] = {
            "memory_mb": function.memory_mb,
            "provisioned_concurrency": function.provisioned_concurrency,
            "reserved_concurrency": function.reserved_concurrency,
        }
    lines = []
    for name, values in blocks.items():
        width = max(map(len, values))
        inside = [
            f'  {k:<{width}} = "{v}"' if isinstance(v, str) else f"  {k:<{width}} = {v}" for k, v in values.items()
        ]
        lines += [f"{name} = {{", *inside, "}"]
    return "\n".join(lines)
