"""One server for all tests of local AWS; each test finds the account empty.

With LOCALAWS_PLAIN=1 the server is moto's own, to see which gaps it still has.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from localaws import server

REGION = "us-east-1"
ACCOUNT = "123456789012"


class Aws:
    """Clients of the server; no retries, so that what would be retried for minutes is seen as the failure it is."""

    account = ACCOUNT
    region = REGION

    def __init__(self, url: str) -> None:
        self.url = url
        self._clients: dict[str, Any] = {}

    def __getattr__(self, service: str) -> Any:
        name = service.rstrip("_").replace("_", "-")  # lambda_, application_autoscaling
        if name not in self._clients:
            self._clients[name] = boto3.client(
                name,
                region_name=REGION,
                endpoint_url=self.url,
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=30),
            )
        return self._clients[name]

    def role(self, name: str = "role", trusted: str = "sagemaker.amazonaws.com") -> str:
        """The ARN of a new role."""
        statement = {"Effect": "Allow", "Principal": {"Service": trusted}, "Action": "sts:AssumeRole"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        arn: str = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy)["Role"]["Arn"]
        return arn

    def model(self, name: str = "model", **parameters: Any) -> None:
        """A SageMaker model without an archive."""
        role = f"arn:aws:iam::{ACCOUNT}:role/role"
        container = {"Image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/serve:1"}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container, **parameters)

    def configuration(self, name: str, instance_type: str = "ml.m5.large", **variant: Any) -> str:
        """An endpoint configuration with one variant of the model "model"."""
        base = {"VariantName": "main", "ModelName": "model", "InstanceType": instance_type, "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[{**base, **variant}])
        return name


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = _plain_moto() if os.environ.get("LOCALAWS_PLAIN") else _localaws(tmp_path_factory.mktemp("localaws"))
    with ExitStack() as ends:
        with pytest.MonkeyPatch.context() as patch:  # a second for each time that a test empties the account
            patch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "false")
            url = ends.enter_context(running)
        yield url


@pytest.fixture
def aws(url: str) -> Aws:
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=30).close()
    return Aws(url)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose server is ended, whatever the test does."""
    yield tmp_path / "state"
    server.down(tmp_path / "state")


@contextmanager
def _localaws(state: Path) -> Iterator[str]:
    yield server.up(port=0, state=state).url
    server.down(state)


@contextmanager
def _plain_moto() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        process.terminate()
