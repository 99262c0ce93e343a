"""Every setting of a run, checked when it is made; and the names of SageMaker's environment, in one place.

The command line, the SageMaker entry points and the recorded `config.json` are all made from these classes: a
hyperparameter is added here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from dogbreed.errors import DogbreedError

if TYPE_CHECKING:
    from typing_extensions import Self


class SageMaker:
    """Environment variables and paths of SageMaker's training contract.

    Source: https://github.com/aws/sagemaker-training-toolkit (ENVIRONMENT_VARIABLES.md).
    """

    TRAINING = "SM_CHANNEL_TRAINING"
    MODEL_DIR = "SM_MODEL_DIR"
    OUTPUT_DATA_DIR = "SM_OUTPUT_DATA_DIR"
    HOSTS = "SM_HOSTS"
    CURRENT_HOST = "SM_CURRENT_HOST"

    @staticmethod
    def base_dir() -> Path:
        """`/opt/ml` in a container; `SAGEMAKER_BASE_DIR` moves it."""
        return Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))

    @classmethod
    def checkpoints(cls) -> Path:
        """The folder that is copied to S3 as it changes, and back before an interrupted job goes on."""
        return cls.base_dir() / "checkpoints"

    @classmethod
    def rank(cls) -> int:
        """0 on the host that reports and writes: by the launcher's RANK, else by this host's place among all."""
        if "RANK" in os.environ:
            return int(os.environ["RANK"])
        hosts, current = os.environ.get(cls.HOSTS), os.environ.get(cls.CURRENT_HOST)
        return sorted(json.loads(hosts)).index(current) if hosts and current else 0

    @classmethod
    def in_job(cls) -> bool:
        """True in a training container, which is recognised by the variable that names its model directory."""
        return cls.MODEL_DIR in os.environ

    @classmethod
    def hyperparameter(cls, name: str) -> list[str]:
        """Where the toolkit puts a hyperparameter: upper case, `-` as it was given, or as `_` by the newer driver."""
        return [f"SM_HP_{name.upper()}", f"SM_HP_{name.upper().replace('_', '-')}"]


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with its explanation and its allowed values (both ends included)."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class _Config:
    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(f, hints[f.name], getattr(self, f.name)))

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in dataclasses.fields(cls))

    @classmethod
    def environment(cls, name: str) -> list[str]:
        """The variables that give a setting in a container."""
        return SageMaker.hyperparameter(name)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the config from named values, `-` and `_` alike.

        Raises:
            DogbreedError: a name that does not exist, or a value that is out of range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        given = {name.replace("-", "_"): value for name, value in values.items()}
        for name in given:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {close[0]}?" if close else f"Known are: {', '.join(sorted(known))}."
                raise DogbreedError(f"There is no setting called {name}", hint)
        return cls(**given)

    def part(self, cls: type[_T]) -> _T:
        """The settings that another config class shares with this one."""
        return cls(**{name: getattr(self, name) for name in cls.names()})


_T = TypeVar("_T", bound=_Config)


def _checked(f: dataclasses.Field[Any], kind: type, value: Any) -> Any:
    meta, name = f.metadata, f.name.replace("_", "-")
    try:
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        value = kind(value)
    except (TypeError, ValueError):
        raise DogbreedError(f"--{name} is {value!r}", f"Give {_WORDS[kind]}.") from None
    low, high, choices = meta["low"], meta["high"], meta["choices"]
    if choices and value not in choices:
        raise DogbreedError(f"--{name} is {value!r}", f"Choose one of: {', '.join(choices)}.")
    if kind is float and not math.isfinite(value):
        raise DogbreedError(f"--{name} is {value}", "Give a finite number.")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"from {low:g} to {high:g}" if high is not None else f"of at least {low:g}"
        raise DogbreedError(f"--{name} is {value:g}", f"Give a value {bounds}.")
    return value


_WORDS: dict[type, str] = {int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(_Config):
    """What the features depend on, besides the pictures."""

    backbone: str = setting(
        "efficientnet_lite0", "efficientnet_lite0|1|2, or any torchvision classification network (resnet50, …)."
    )
    weights: str = setting(
        "auto",
        "Pretrained weights: auto (an installed package, else the hub), hub, random, a file, or an s3:// address.",
    )
    precision: str = setting(
        "f32",
        "Arithmetic of the frozen network: bf16 is twice as fast on CPUs that have it, int8 needs the extra [int8].",
        choices=("f32", "bf16", "int8"),
    )


@dataclass(frozen=True, kw_only=True)
class HeadConfig(_Config):
    """How the classifier is fitted to the features."""

    solver: str = setting(
        "adamw",
        "How the head is fitted: adamw or sgd (mini-batches), lbfgs (all pictures at once), ridge (closed form).",
        choices=("adamw", "sgd", "lbfgs", "ridge"),
    )
    learning_rate: float = setting(0.001, "Step size of adamw and sgd, decayed along a cosine.", low=1e-6, high=10)
    batch_size: int = setting(128, "Pictures per step of adamw and sgd.", low=1, high=65536)
    hidden_size: int = setting(0, "Width of a hidden layer; 0 is a linear head.", low=0, high=8192)
    weight_decay: float = setting(1e-4, "L2 penalty on the weights (of ridge and lbfgs too).", low=0, high=100)
    label_smoothing: float = setting(0.0, "Share of the label spread over all classes.", low=0, high=0.9)
    dropout: float = setting(0.0, "Share of the features dropped in each step of adamw and sgd.", low=0, high=0.9)
    epochs: int = setting(30, "Passes over the pictures at most (steps of lbfgs).", low=1, high=10_000)
    patience: int = setting(5, "Epochs without a better validation loss before fitting stops.", low=1, high=10_000)
    seed: int = setting(0, "Start of every random number.", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver == "ridge" and self.hidden_size:
            raise DogbreedError(
                f"--solver ridge fits a linear head, but --hidden-size is {self.hidden_size}",
                "Use --hidden-size 0, or another solver.",
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(HeadConfig, EmbedConfig):
    """One training, complete: with the pictures it decides the model."""

    views: str = setting(
        "plain",
        "Training pictures as they are (plain), also mirrored (flip), or also mirrored and cropped (crops).",
        choices=("plain", "flip", "crops"),
    )

    gallery: int = setting(
        3,
        "Training pictures of each class kept inside the model, small, to show a similar one.",
        low=0,
        high=50,
    )

    @property
    def view_names(self) -> tuple[str, ...]:
        """The views of each training picture, as `pictures.decode` names them."""
        return {
            "plain": ("plain",),
            "flip": ("plain", "flip"),
            "crops": ("plain", "flip", "crop1", "crop2", "crop3"),
        }[self.views]


# The settings that a trial chooses itself.
SEARCHED = ("solver", "learning_rate", "batch_size", "hidden_size", "weight_decay", "label_smoothing")


@dataclass(frozen=True, kw_only=True)
class SearchSpace(_Config):
    """What tuning tries. The ranges of learning rate and batch size are those of the original projects."""

    learning_rate_min: float = setting(0.001, "Smallest learning rate tried.", low=1e-6, high=10)
    learning_rate_max: float = setting(0.1, "Largest learning rate tried.", low=1e-6, high=10)
    batch_sizes: str = setting("32,64,128,256,512", "Batch sizes tried, with commas.")
    hidden_sizes: str = setting("0,128,256,512", "Widths of the hidden layer tried (0: none), with commas.")
    solvers: str = setting("adamw,sgd,lbfgs,ridge", "Ways of fitting tried, with commas.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_rate_min >= self.learning_rate_max:
            raise DogbreedError(
                f"--learning-rate-min {self.learning_rate_min:g} is not below --learning-rate-max",
                "Give a smaller minimum.",
            )
        for solver in self.list_of("solvers"):
            HeadConfig(solver=solver)
        for size in self.sizes("batch_sizes"):
            HeadConfig(batch_size=size)
        for size in self.sizes("hidden_sizes"):
            HeadConfig(hidden_size=size)

    def list_of(self, name: str) -> list[str]:
        values = [v.strip() for v in getattr(self, name).split(",") if v.strip()]
        if not values:
            raise DogbreedError(f"--{name.replace('_', '-')} is empty", "Give at least one value.")
        return values

    def sizes(self, name: str) -> list[int]:
        try:
            return [int(v) for v in self.list_of(name)]
        except ValueError:
            raise DogbreedError(
                f"--{name.replace('_', '-')} is {getattr(self, name)!r}", "Give whole numbers with commas."
            ) from None


@dataclass(frozen=True, kw_only=True)
class ServeConfig(_Config):
    """How the server runs."""

    workers: int = setting(1, "Processes, each with the model in its memory.", low=1, high=64)
    threads: int = setting(0, "Threads of a worker that answer; 0: its share of the cores.", low=0, high=256)
    max_batch: int = setting(8, "Pictures in one run of the network, at most.", low=1, high=256)
    queue: int = setting(64, "Requests that a worker has in hand, at most; more are answered 429.", low=1, high=10_000)
    body_mib: int = setting(64, "Memory for their bodies in MiB, at most; more are answered 429.", low=8, high=65536)

    @classmethod
    def environment(cls, name: str) -> list[str]:
        return [f"DOGBREED_SERVE_{name.upper()}"]
