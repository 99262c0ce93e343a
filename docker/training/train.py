#!/usr/local/bin/python
"""What SageMaker starts in the image (`docker run IMAGE train`): trains on what it finds under /opt/ml.

SageMaker lays out files; the names in the environment that `dogbreed` reads are made by a package inside AWS's own
containers. This makes the same names, and then trains in this very process, so that the SIGTERM of a spot interruption
arrives where the checkpoint is written.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any, NoReturn

PROGRAMS = ("train", "hpo")


def main() -> None:
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    given = read(base, "hyperparameters")
    for name, value in given.items():
        if not isinstance(value, str):
            fail(base, f"The hyperparameter {name} is no text but {value!r}. Put it in quotes, as SageMaker does.")
    hyperparameters = {name: plain(value) for name, value in given.items()}
    program = Path(hyperparameters.get("sagemaker_program", "train.py")).stem
    if program not in PROGRAMS:
        fail(base, f"There is no program {program!r} in this image. Set sagemaker_program to train.py or hpo.py.")
    os.environ.update(environment(base, hyperparameters))
    sys.argv = [program]
    runpy.run_module(f"dogbreed.{program}", run_name="__main__", alter_sys=True)


def environment(base: Path, hyperparameters: dict[str, str]) -> dict[str, str]:
    """The variables that AWS's containers set, as far as `dogbreed` reads them."""
    resources = read(base, "resourceconfig")
    data = base / "input" / "data"
    return {
        "SM_MODEL_DIR": str(base / "model"),
        "SM_OUTPUT_DATA_DIR": str(base / "output" / "data"),
        "SM_HOSTS": json.dumps(resources.get("hosts", ["algo-1"])),
        "SM_CURRENT_HOST": resources.get("current_host", "algo-1"),
        **{f"SM_CHANNEL_{name.upper()}": str(data / name) for name in read(base, "inputdataconfig")},
        **{f"SM_HP_{name.upper()}": value for name, value in hyperparameters.items() if not reserved(name)},
    }


def read(base: Path, name: str) -> dict[str, Any]:
    path = base / "input" / "config" / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as e:
        fail(base, f"{path} is not valid JSON ({e}). Write it as SageMaker does.")
    if not isinstance(content, dict):
        fail(base, f"{path} holds no JSON object. Write it as SageMaker does.")
    return content


def plain(value: str) -> str:
    """A hyperparameter as it was meant: launchers that speak to AWS's containers put texts in JSON's quotes."""
    try:
        decoded = json.loads(value)
    except ValueError:
        return value
    return decoded if isinstance(decoded, str) else value


def reserved(name: str) -> bool:
    """Whether a hyperparameter is meant for the container, not for the program."""
    return name.startswith(("sagemaker_", "_"))


def fail(base: Path, message: str) -> NoReturn:
    """Ends with what SageMaker shows as the job's FailureReason."""
    (base / "output").mkdir(parents=True, exist_ok=True)
    (base / "output" / "failure").write_text(message, encoding="utf-8")
    sys.exit(f"error: {message}")


if __name__ == "__main__":
    main()
