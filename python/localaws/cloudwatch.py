"""CloudWatch."""

from __future__ import annotations

from typing import Any

from moto.cloudwatch.responses import CloudWatchResponse

from localaws.patching import extend


@extend(CloudWatchResponse)
def put_composite_alarm(self: CloudWatchResponse) -> Any:
    """moto has no PutCompositeAlarm, though it describes such alarms: aws_cloudwatch_composite_alarm fails."""
    return self.put_metric_alarm()
