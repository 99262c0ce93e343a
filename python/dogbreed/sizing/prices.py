"""What things cost: list prices of us-east-1, on demand, in USD, without tax.

Collected on 2026-11-21 from AWS's price lists as third parties repeat them (https://aws.amazon.com/sagemaker/pricing/,
https://aws.amazon.com/lambda/pricing/). Types whose price these sources did not agree on are left out; look there
before you rely on one, and give what you find as `--price`.
"""

from __future__ import annotations

from dogbreed.errors import DogbreedError

COLLECTED = "2026-11-21"
HOURS_PER_MONTH = 730
SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600

# One hour of an instance behind a real-time endpoint.
INSTANCE_USD_PER_HOUR = {
    "ml.c5.large": 0.102,
    "ml.c5.xlarge": 0.204,
    "ml.c5.2xlarge": 0.408,
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.m5.4xlarge": 0.922,
    "ml.g4dn.xlarge": 0.736,
    "ml.g5.xlarge": 1.408,
}

# Lambda on ARM, which the function's module chooses.
LAMBDA_USD_PER_MILLION_REQUESTS = 0.20
LAMBDA_USD_PER_GB_S = 0.0000133334  # while a call runs in an environment that was started for it
LAMBDA_PROVISIONED_USD_PER_GB_S = 0.0000033334  # for each provisioned environment, always
LAMBDA_RUNNING_USD_PER_GB_S = 0.0000077778  # while a call runs in a provisioned environment, on top of that


def instance_price(instance_type: str, usd_per_hour: float | None = None) -> float:
    """USD an hour of one instance: `usd_per_hour` if given, else of the table."""
    if usd_per_hour is not None:
        return usd_per_hour
    if instance_type not in INSTANCE_USD_PER_HOUR:
        known = ", ".join(INSTANCE_USD_PER_HOUR)
        raise DogbreedError(
            f"There is no price of {instance_type} here",
            f"Give it as --price (USD an hour), or choose one of: {known}.",
        )
    return INSTANCE_USD_PER_HOUR[instance_type]


def monthly(instances: float, usd_per_hour: float) -> float:
    """USD a month of so many instances (or of so many on average) that always run."""
    return instances * usd_per_hour * HOURS_PER_MONTH
