"""Local AWS: moto's server, extended until a hardened Terraform root applies, re-plans clean, updates and is destroyed.

    python -m localaws up --port 5601      # then AWS_ENDPOINT_URL=http://127.0.0.1:5601, with any credentials
    python -m localaws status
    python -m localaws down

What is wrong or absent in moto is put right by *patches*, one module per service; each says in one line what moto does
and what a user of it sees. The patches lean on moto's inside, so its version is pinned exactly, and each has a test
that fails on plain moto. To see them fail (and to find what can go when moto has moved on):

    LOCALAWS_PLAIN=1 python -m pytest tests/localaws/gaps

It knows nothing of the project that it was written for.
"""

from importlib import import_module
from importlib.metadata import version

MOTO_VERSION = "5.2.5"
if version("moto") != MOTO_VERSION:
    raise ImportError(
        f"localaws patches the inside of moto {MOTO_VERSION}, but moto {version('moto')} is installed: "
        f"pip install 'moto[server,all]=={MOTO_VERSION}'"
    )

PATCHES = (
    "autoscaling",
    "budgets",
    "cloudwatch",
    "codebuild",
    "ec2",
    "iam",
    "lambda_",
    "policies",
    "s3",
    "sagemaker",
    "ssm",
)
"""The modules that patch moto when they are imported, one per service."""


def install() -> None:
    """Patches moto in this process."""
    for module in PATCHES:
        import_module(f"{__name__}.{module}")
