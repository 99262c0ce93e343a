"""Lambda."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from moto.awslambda import urls
from moto.awslambda.exceptions import LambdaClientError, UnknownEventConfig
from moto.awslambda.models import EventInvokeConfig, LambdaFunction
from moto.awslambda.responses import LambdaResponse
from moto.core.responses import ActionResult
from moto.core.utils import utcnow

from localaws.patching import Original, extend, memory, wrap

FORGOTTEN = ("DeadLetterConfig", "FileSystemConfigs", "LoggingConfig", "SnapStart")
"""Parts of a function's configuration that moto has no place for."""


@wrap(LambdaFunction, "__init__")
def keep_all_of_the_configuration(
    original: Original, self: Any, account_id: str, spec: dict[str, Any], region: str, version: int = 1
) -> None:
    """moto forgets the dead-letter queue, the log settings and SnapStart: they are changed on every plan."""
    original(self, account_id, spec, region, version)
    self.forgotten = {key: spec[key] for key in FORGOTTEN if key in spec}
    _log_where_told(self)


@wrap(LambdaFunction, "update_configuration")
def update_all_of_the_configuration(original: Original, self: Any, updates: dict[str, Any]) -> Any:
    """moto ignores changes of tracing, key, storage, dead-letter queue and log settings: they are planned for ever."""
    self.forgotten = {**self.forgotten, **{key: updates[key] for key in FORGOTTEN if key in updates}}
    self.tracing_config = updates.get("TracingConfig", self.tracing_config)
    self.kms_key_arn = updates.get("KMSKeyArn", self.kms_key_arn)
    self.ephemeral_storage = updates.get("EphemeralStorage", {}).get("Size", self.ephemeral_storage)
    _log_where_told(self)
    return original(self, updates)


def _log_where_told(function: Any) -> None:
    function.logs_group_name = function.forgotten.get("LoggingConfig", {}).get("LogGroup", function.logs_group_name)


@wrap(LambdaFunction, "get_configuration")
def answer_all_of_the_configuration(original: Original, self: Any, on_create: bool = False) -> Any:
    """See `keep_all_of_the_configuration`."""
    configuration = original(self, on_create) | self.forgotten
    if "SnapStart" in self.forgotten:
        configuration["SnapStart"] = {**self.forgotten["SnapStart"], "OptimizationStatus": "Off"}
    return configuration


@wrap(LambdaFunction, "get_code")
def say_that_nothing_may_run(original: Original, self: LambdaFunction) -> Any:
    """moto leaves out a reserved concurrency of 0: `reserved_concurrent_executions = 0` is changed on every plan."""
    code = original(self)
    if self.reserved_concurrency is not None:
        code["Concurrency"] = {"ReservedConcurrentExecutions": self.reserved_concurrency}
    return code


def _function_name(self: LambdaResponse) -> str:
    """The name in the path, where an ARN and a qualifier after a colon are allowed too."""
    return unquote(self.path.split("/functions/")[1].split("/")[0]).split(":function:")[-1].split(":")[0]


def _key(self: LambdaResponse) -> tuple[str, str | None]:
    """Of a setting that belongs to an alias or a version."""
    return _function_name(self), self._get_param("Qualifier")


# Asynchronous invocation: moto knows one setting per function, AWS one for each alias and version too.


def _event_invoke_configs(self: LambdaResponse) -> dict[tuple[str, str | None], EventInvokeConfig]:
    return memory(self.backend, "event_invoke_configs")


def _put_event_invoke_config(self: LambdaResponse, config: dict[str, Any]) -> ActionResult:
    name, qualifier = _key(self)
    function = self.backend.get_function(name, qualifier)
    arn = f"{self.backend.get_function(name).function_arn}:{qualifier or '$LATEST'}"
    stored = EventInvokeConfig(arn, function.last_modified, config)
    stored.last_modified = int(utcnow().timestamp())  # type: ignore[assignment]  # moto's text is no timestamp to clients
    _event_invoke_configs(self)[_key(self)] = stored
    return ActionResult(stored.response())


@wrap(LambdaResponse, "put_function_event_invoke_config")
def replace_the_event_invoke_config(original: Original, self: LambdaResponse) -> ActionResult:
    """moto appends a setting and answers with the first: a change never arrives, and aliases share it."""
    return _put_event_invoke_config(self, self.json_body)


@wrap(LambdaResponse, "update_function_event_invoke_config")
def change_the_event_invoke_config(original: Original, self: LambdaResponse) -> ActionResult:
    """See `replace_the_event_invoke_config`; members that are left out stay."""
    return _put_event_invoke_config(self, {**_event_invoke_config(self).config, **self.json_body})


@wrap(LambdaResponse, "get_function_event_invoke_config")
def answer_the_event_invoke_config(original: Original, self: LambdaResponse) -> ActionResult:
    """See `replace_the_event_invoke_config`."""
    return ActionResult(_event_invoke_config(self).response())


@wrap(LambdaResponse, "delete_function_event_invoke_config")
def forget_the_event_invoke_config(original: Original, self: LambdaResponse) -> Any:
    """See `replace_the_event_invoke_config`."""
    _event_invoke_config(self)
    del _event_invoke_configs(self)[_key(self)]
    return 204, {"status": 204}, ""


def _event_invoke_config(self: LambdaResponse) -> EventInvokeConfig:
    found = _event_invoke_configs(self).get(_key(self))
    if found is None:
        raise UnknownEventConfig(self.backend.get_function(*_key(self)).function_arn)
    return found


# Provisioned concurrency


class NoProvisionedConcurrency(LambdaClientError):
    code = 404

    def __init__(self) -> None:
        super().__init__(
            "ProvisionedConcurrencyConfigNotFoundException",
            "No Provisioned Concurrency Config found for this function",
        )


urls.url_paths[r"{0}/(?P<api_version>[^/]+)/functions/(?P<function_name>[\w_:%-]+)/provisioned-concurrency/?$"] = (
    LambdaResponse.dispatch
)


def _provisioned(self: LambdaResponse) -> dict[tuple[str, str | None], dict[str, Any]]:
    return memory(self.backend, "provisioned_concurrency")


@extend(LambdaResponse)
def put_provisioned_concurrency_config(self: LambdaResponse) -> Any:
    """moto has no provisioned concurrency: aws_lambda_provisioned_concurrency_config fails."""
    self.backend.get_function(*_key(self))
    count = int(self.json_body["ProvisionedConcurrentExecutions"])
    _provisioned(self)[_key(self)] = {
        "RequestedProvisionedConcurrentExecutions": count,
        "AvailableProvisionedConcurrentExecutions": count,
        "AllocatedProvisionedConcurrentExecutions": count,
        "Status": "READY",
        "LastModified": utcnow().strftime("%Y-%m-%dT%H:%M:%S+0000"),
    }
    return 202, {"status": 202}, json.dumps(_provisioned(self)[_key(self)])


@extend(LambdaResponse)
def get_provisioned_concurrency_config(self: LambdaResponse) -> str:
    """moto has no provisioned concurrency."""
    if _key(self) not in _provisioned(self):
        raise NoProvisionedConcurrency
    return json.dumps(_provisioned(self)[_key(self)])


@extend(LambdaResponse)
def list_provisioned_concurrency_configs(self: LambdaResponse) -> str:
    """moto has no provisioned concurrency."""
    arn = self.backend.get_function(_function_name(self)).function_arn
    configs = [
        {"FunctionArn": f"{arn}:{qualifier}", **config}
        for (name, qualifier), config in _provisioned(self).items()
        if name == _function_name(self)
    ]
    return json.dumps({"ProvisionedConcurrencyConfigs": configs})


@extend(LambdaResponse)
def delete_provisioned_concurrency_config(self: LambdaResponse) -> Any:
    """moto has no provisioned concurrency."""
    _provisioned(self).pop(_key(self), None)
    return 204, {"status": 204}, ""


@wrap(LambdaResponse, "delete_function")
def forget_what_belonged_to_it(original: Original, self: LambdaResponse) -> Any:
    """moto knows nothing of what is kept here: a function made again would find the old one's settings."""
    answer = original(self)
    if self._get_param("Qualifier") is None:
        for kept in (_provisioned(self), _event_invoke_configs(self)):
            for key in [key for key in kept if key[0] == _function_name(self)]:
                del kept[key]
    return answer
