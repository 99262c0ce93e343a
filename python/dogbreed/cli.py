"""The `dogbreed` command: a thin layer. Commands import what they need when they run, so that `--help` is instant."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from dogbreed import __version__, show
from dogbreed.config import SEARCHED, EmbedConfig, SageMaker, SearchSpace, ServeConfig, TrainConfig, _Config
from dogbreed.errors import DogbreedError

# `--learning_rate` means `--learning-rate`: SageMaker passes hyperparameters in either spelling.
_SETTINGS = {"token_normalize_func": lambda token: token.replace("_", "-"), "help_option_names": ["-h", "--help"]}

app = typer.Typer(
    context_settings=_SETTINGS, no_args_is_help=True, add_completion=False, rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, tune and use a classifier of dog breeds, on this machine or on AWS.",
)  # fmt: skip
data_app = typer.Typer(no_args_is_help=True, help="Fetch, check, split, list or draw data sets.")
infra_app = typer.Typer(no_args_is_help=True, help="Make, change and remove what runs on AWS, with Terraform.")
local_app = typer.Typer(
    no_args_is_help=True, help="A local AWS: the account of the environment [bold]local[/bold], in memory."
)
app.add_typer(data_app, name="data")
app.add_typer(infra_app, name="infra")
app.add_typer(local_app, name="local")

T = TypeVar("T", bound=_Config)
C = TypeVar("C", bound=Callable[..., Any])

Data = Annotated[
    Path,
    typer.Argument(
        envvar=SageMaker.TRAINING, help="The data set: a folder with train/, valid/ and test/.", show_envvar=False
    ),
]


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise DogbreedError(f"--device is {name!r}", "Choose one of: auto, cpu, cuda, mps.")
    if name in ("cuda", "mps"):
        import torch

        if not (torch.cuda if name == "cuda" else torch.backends.mps).is_available():
            raise DogbreedError(f"There is no {name} device here", "Leave --device out: the best one is chosen.")
    return name


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", callback=_device)]


def settings(*config_classes: type[_Config], without: Collection[str] = ()) -> Callable[[C], C]:
    """Gives a command one option per field of the config classes; they arrive as `given`, without those left alone.

    In a container the options' defaults come from its environment.
    """

    def decorate(function: C) -> C:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "given"]
        environment = {name: cls.environment(name) for cls in config_classes for name in cls.names()}
        fields = {
            f.name: (f, get_type_hints(cls)[f.name])
            for cls in config_classes
            for f in dataclasses.fields(cls)
            if f.name not in without
        }

        def command(**arguments: Any) -> Any:
            chosen = {name: arguments.pop(name) for name in fields}
            return function(**arguments, given={k: v for k, v in chosen.items() if v is not None})

        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    kind | None,
                    typer.Option(
                        f"--{name.replace('_', '-')}",
                        help=_help(f),
                        envvar=environment[name],
                        show_envvar=False,
                        show_default=False,
                        rich_help_panel="Settings",
                    ),
                ],
            )
            for name, (f, kind) in fields.items()
        ]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + options
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        return command  # type: ignore[return-value]

    return decorate


def _help(f: dataclasses.Field[Any]) -> str:
    """A setting's explanation and default; brackets are markup here."""
    text: str = f.metadata["help"]
    return text.replace("[", r"\[") + rf" [dim]\[default: {f.default}][/dim]"


def _only(cls: type[T], given: dict[str, Any], base: dict[str, Any] | None = None) -> T:
    names = cls.names()
    return cls.from_dict({**(base or {}), **{k: v for k, v in given.items() if k in names}})


# ------------------------------------------------------------------------------------------------ the model


@app.command()
@settings(EmbedConfig)
def embed(data: Data, *, device: Device = "auto", given: Any = None) -> None:
    """Compute and cache the features of all splits: what tuning and training start from."""
    from dogbreed.console import out
    from dogbreed.data.dataset import open_dataset
    from dogbreed.embed import embed as embed_split
    from dogbreed.extractor import Extractor

    dataset = open_dataset(data)
    extractor = Extractor.create(_only(EmbedConfig, given), device=device, samples=dataset.split("train"))
    for split, samples in dataset.splits.items():
        features = embed_split(samples, extractor, title=f"Embedding {split}")
        speed = f"{len(samples) / features.seconds:.0f} pictures/s" if features.seconds else "from the cache"
        out.print(f"{split}: {len(features)} pictures × {features.matrix.shape[1]} features, {speed}")
        show.say_skipped(len(features.skipped), data)


@app.command()
@settings(TrainConfig, SearchSpace, without=SEARCHED)
def tune(
    data: Data,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the study; an interrupted one goes on.")] = Path("runs/study"),
    trials: Annotated[int, typer.Option(help="Trials in the end.", envvar=SageMaker.hyperparameter("trials"), show_envvar=False)] = 100,
    device: Device = "auto",
    given: Any = None,
) -> None:  # fmt: skip
    """Search the hyperparameters with the least validation loss, a fraction of a second per trial."""
    from dogbreed.console import out as console
    from dogbreed.hpo import tune as run

    study = run(
        data=data,
        out=out,
        config=_only(TrainConfig, given),
        space=_only(SearchSpace, given),
        trials=trials,
        device=device,
    )
    if SageMaker.in_job():
        from dogbreed.files import write_bytes
        from dogbreed.metrics import emit

        write_bytes(Path(os.environ[SageMaker.MODEL_DIR]) / "study.json", (out / "study.json").read_bytes())
        found = {"valid_loss": study.best_trial.value, "valid_accuracy": study.best_trial.accuracy}
        emit(**{name: value for name, value in found.items() if value is not None})
    show.print_study(study)
    console.print(f"{len(study.trials)} trials in {study.seconds:.1f} s. Next: dogbreed train {data} --study {out}")


@app.command()
@settings(TrainConfig)
def train(
    data: Data,
    *,
    out: Annotated[Path, typer.Option(envvar=SageMaker.MODEL_DIR, show_envvar=False, help="The model directory to write.")] = Path("runs/model"),
    study: Annotated[Path | None, typer.Option(help="Take the best settings of this study.")] = None,
    like: Annotated[Path | None, typer.Option(help="Take the settings recorded in this model directory.")] = None,
    report: Annotated[Path | None, typer.Option(help="The HTML report to write. [dim]Default: beside the model.[/dim]")] = None,
    device: Device = "auto",
    given: Any = None,
) -> None:  # fmt: skip
    """Train a model and write its directory and report; interrupted, the same command goes on."""
    from dogbreed.hpo import Study
    from dogbreed.model import read_config

    if study and like:
        raise DogbreedError("--study and --like are both given", "Give one of them.")
    best = Study.load(study) if study else None
    base = best.best.as_dict() if best else {}
    recorded = read_config(like) if like else {}
    config = _only(TrainConfig, given, recorded.get("train", base))
    trained = show.train_and_report(data, out, config=config, study=best, report=report, device=device)
    if like and trained.model.facts["data"]["features"] != recorded["data"]["features"]:
        from dogbreed.console import err

        err.print(
            f"Not the model of {like}: its pictures, labels or weights were others.", soft_wrap=True, markup=False
        )


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    data: Annotated[Path, typer.Argument(help="A data set with the same classes.")],
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    negatives: Annotated[Path | None, typer.Option(help="Pictures of other things, to measure the dog-or-not score.")] = None,
    study: Annotated[Path | None, typer.Option(help="Show this study in the report.")] = None,
    report: Annotated[Path | None, typer.Option(help="The HTML report to write. [dim]Default: beside the model.[/dim]")] = None,
    device: Device = "auto",
) -> None:  # fmt: skip
    """Measure a model on a split, with 95 % intervals, and write the report."""
    from dogbreed.console import out
    from dogbreed.evaluate import evaluate as run
    from dogbreed.evaluate import recorded_history
    from dogbreed.evaluate import report as write_report
    from dogbreed.hpo import Study

    loaded, evaluation = run(model_dir=model, data=data, split=split, negatives=negatives, device=device)
    path = report or show.report_path(model)
    write_report(
        path,
        loaded,
        evaluation,
        command=f"dogbreed evaluate {model} {data} --split {split}",
        history=recorded_history(model),
        study=Study.load(study) if study else None,
        notes=show.notes(data, loaded),
    )
    show.print_metrics({split: evaluation.metrics})
    rejection = evaluation.rejection
    out.print(f"Dog or not: {rejection.recall:.1%} of these pictures pass", end="")
    if rejection.false_positive_rate is not None:
        out.print(f"; of {rejection.negatives} pictures of other things {rejection.false_positive_rate:.1%} do", end="")
    out.print(f".\nReport: {path}", soft_wrap=True)


@app.command()
def predict(
    sources: Annotated[list[str], typer.Argument(metavar="FILE|DIR|URL…", help="Pictures, folders, addresses.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="The model directory.")] = Path("runs/model"),
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many breeds to name.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    allow: Annotated[list[str] | None, typer.Option(metavar="HOST:PORT", help="A host that may be fetched from though it is not public.")] = None,
    device: Device = "auto",
) -> None:  # fmt: skip
    """Name the breed of the dog in each picture, or say that it is probably none."""
    from dogbreed.model import Model
    from dogbreed.predict import expand
    from dogbreed.predict import predict as run

    found = expand(sources)
    loaded = Model.load(model, device=device)
    predictions = list(run(loaded, found, allowed=allow or ()))
    if as_json:
        typer.echo(json.dumps([p.as_dict(loaded.breeds, top_k) for p in predictions], indent=2, ensure_ascii=False))
    else:
        show.print_predictions(predictions, loaded.breeds, top_k)
    if any(p.error for p in predictions):
        raise typer.Exit(1)


@app.command()
def pack(
    model: Annotated[Path, typer.Argument(help="A model directory.")] = Path("runs/model"),
    out: Annotated[
        Path | None, typer.Option(help="The archive to write. [dim]Default: beside the model.[/dim]")
    ] = None,
) -> None:
    """Pack a model directory as the model.tar.gz that an endpoint loads."""
    from dogbreed.console import out as console
    from dogbreed.model import Model
    from dogbreed.model import pack as write

    Model.load(model)  # what cannot be opened here would fail the endpoint later
    target = out or show.archive_path(model)
    write(model, target)
    console.print(f"{target}: {target.stat().st_size / 1e6:.1f} MB", soft_wrap=True, markup=False)


@app.command()
def optimise(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    data: Annotated[Path, typer.Argument(help="The data set that it was trained on.")],
    max_drop: Annotated[float, typer.Option(min=0, max=100, help="Points of validation accuracy that speed may cost.")] = 0.5,
) -> None:  # fmt: skip
    """Choose by measurement how the model computes on CPUs like this one, and keep the choice in its folder."""
    from dogbreed.optimise import optimise as run

    choice = run(model, data, max_drop=max_drop / 100)
    show.print_choice(choice)
    if choice.chosen.precision != "f32":
        typer.echo(f"Metrics and report are still of f32. To measure again: dogbreed evaluate {model} {data}")


@app.command()
@settings(ServeConfig)
def serve(
    model: Annotated[Path, typer.Argument(help="A model directory.")] = Path("runs/model"),
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8080,
    allow: Annotated[list[str] | None, typer.Option(metavar="HOST:PORT", help="A host that may be fetched from though it is not public.")] = None,
    given: Any = None,
) -> None:  # fmt: skip
    """Answer over HTTP: POST /invocations as a SageMaker endpoint does, and a page for people at /."""
    from dogbreed.serve import serve as run

    run(model, host=host, port=port, config=_only(ServeConfig, given), allowed=allow or ())


@app.command()
def demo(
    data: Annotated[str | None, typer.Option(help="A folder, archive or URL. [dim]Default: the original pictures, or drawn ones.[/dim]")] = None,
    folder: Annotated[Path, typer.Option(help="Where pictures, model and report go.")] = Path(),
    trials: Annotated[int, typer.Option(help="Trials of the study.")] = 50,
) -> None:  # fmt: skip
    """Run everything once: pictures, tuning, training, choice of arithmetic, predictions, report, server."""
    from dogbreed.demo import run_demo

    run_demo(data, folder, trials=trials)


@app.command()
def backbones() -> None:
    """List the backbones by name."""
    from dogbreed.backbones import backbone_names

    typer.echo("\n".join(backbone_names()))


# ------------------------------------------------------------------------------------------------ data


@data_app.command()
def fetch(
    source: Annotated[str | None, typer.Argument(help="A URL or an archive. [dim]Default: the original dogImages.zip.[/dim]")] = None,
    out: Annotated[Path, typer.Argument(help="The folder to unpack to.")] = Path("data/dogImages"),
    sha256: Annotated[str | None, typer.Option(help="Refuse an archive with another checksum.")] = None,
) -> None:  # fmt: skip
    """Download and unpack a data set; interrupted, the same command goes on."""
    from dogbreed.data.fetch import ORIGINAL_URL
    from dogbreed.data.fetch import fetch as run

    typer.echo(run(source or ORIGINAL_URL, out, sha256=sha256))


@data_app.command()
def check(
    data: Annotated[Path, typer.Argument(help="A data set.")],
    html: Annotated[Path | None, typer.Option(help="Also write an HTML report.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the findings as JSON.")] = None,
) -> None:
    """Find broken, odd, duplicate and misplaced pictures; exits with 1 if there are errors."""
    from dogbreed.data.check import check as run
    from dogbreed.data.check import print_report, write_html
    from dogbreed.data.check import write_json as write_findings

    report = run(data)
    print_report(report)
    if html:
        write_html(report, html)
    if as_json:
        write_findings(report, as_json)
    if not report.ok:
        raise typer.Exit(1)


@data_app.command()
def split(
    source: Annotated[Path, typer.Argument(help="A folder of class folders.")],
    out: Annotated[Path, typer.Argument(help="The data set to write.")],
    valid: Annotated[float, typer.Option(help="Share of the validation split.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the test split.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Start of the random choice.")] = 0,
) -> None:
    """Split class folders into train, valid and test, the same pictures always the same way."""
    from dogbreed.data.split import split as run

    counts = run(source, out, valid=valid, test=test, seed=seed)
    typer.echo(f"{out}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


@data_app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="The folder to draw to.")],
    classes: Annotated[int, typer.Option(help="Cartoon breeds.")] = 8,
    per_class: Annotated[int, typer.Option(help="Pictures of each.")] = 60,
    seed: Annotated[int, typer.Option(help="Start of the random choice.")] = 0,
) -> None:
    """Draw a labelled set of cartoon dogs, for trying things out without a download."""
    from dogbreed.data.sample import draw_sample

    typer.echo(draw_sample(out, classes=classes, per_class=per_class, seed=seed))


@data_app.command()
def manifest(
    data: Annotated[Path, typer.Argument(help="A data set.")],
    base_uri: Annotated[str, typer.Option(help="Where the data set lies, as in s3://bucket/prefix.")],
    out: Annotated[Path, typer.Option(help="The folder to write {train,valid,test}.manifest to.")] = Path(),
) -> None:
    """Write SageMaker augmented manifests, one per split."""
    from dogbreed.data.dataset import open_dataset
    from dogbreed.data.manifest import write_manifest

    dataset = open_dataset(data)
    for name in dataset.splits:
        write_manifest(dataset, name, out / f"{name}.manifest", base_uri=base_uri)
        typer.echo(out / f"{name}.manifest")


# ------------------------------------------------------------------------------------------------ infrastructure

Env = Annotated[str, typer.Option("--env", "-e", help="local, dev, prod, or another file in terraform/environments/.")]
Root = Annotated[Path | None, typer.Option(help="The repository. [dim]Default: the one around this folder.[/dim]")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


@infra_app.command("package")
def infra_package(root: Root = None) -> None:
    """Build what Terraform uploads into build/; unchanged sources leave it untouched."""
    from dogbreed.aws.package import package
    from dogbreed.aws.repository import Repository

    for path in package(Repository.find(root)):
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@infra_app.command()
def lock(root: Root = None) -> None:
    """Resolve the wheels that the bundles carry, and write python/locks/."""
    from dogbreed.aws.package import PLATFORMS
    from dogbreed.aws.package import lock as run
    from dogbreed.aws.repository import Repository

    repository = Repository.find(root)
    for platform in PLATFORMS:
        wheels = run(repository, platform)
        typer.echo(f"{platform.lock(repository)}: {len(wheels)} wheels for Python {platform.python}")


@infra_app.command("mirror")
def infra_mirror(root: Root = None) -> None:
    """Write the configuration that says where Terraform takes its provider from."""
    from dogbreed.aws.provider_mirror import cli_configuration
    from dogbreed.aws.repository import Repository

    typer.echo(cli_configuration(Repository.find(root)))


@infra_app.command()
def plan(
    env: Env = "local",
    out: Annotated[Path | None, typer.Option(help="Keep the plan in this file.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the plan as JSON.")] = None,
    root: Root = None,
) -> None:
    """Show what `apply` would change; nothing is changed."""
    from dogbreed.files import write_json

    terraform = _terraform(env, root)
    try:
        terraform.plan(out=out)
        if as_json:
            write_json(as_json, terraform.plan_json(out))
    finally:
        terraform.forget_plan()


@infra_app.command("apply")
def infra_apply(env: Env = "local", yes: Yes = False, root: Root = None) -> None:
    """Show what would change, ask, and change it."""
    terraform = _terraform(env, root)
    if terraform.plan():
        _confirm(f"Apply this to {env}?", yes, terraform)
        terraform.apply()


@infra_app.command("destroy")
def infra_destroy(env: Env = "local", yes: Yes = False, root: Root = None) -> None:
    """Show what would be removed, ask, and remove it; data stays unless the environment says otherwise."""
    terraform = _terraform(env, root)
    if terraform.plan_destroy():
        typer.echo(terraform.what_stays)
        _confirm(f"Remove this from {env}?", yes, terraform)
        terraform.apply()
    else:
        typer.echo("There is nothing to remove.")
        if not terraform.deletes_data:
            typer.echo(terraform.what_stays)


@infra_app.command("output")
def infra_output(env: Env = "local", root: Root = None) -> None:
    """Print the outputs as JSON: names, addresses and roles of what was made."""
    typer.echo(json.dumps(_terraform(env, root).output(), indent=2))


@infra_app.command("image")
def infra_image(
    image: Annotated[str, typer.Argument(help="serving, which endpoints run, or training, for jobs.")] = "serving",
    env: Env = "local",
    root: Root = None,
) -> None:
    """Build a container image of these sources with CodeBuild, unless it is there, and print its address."""
    from dogbreed.aws.images import build_image

    terraform = _terraform(env, root)
    if terraform.is_local:
        raise DogbreedError(
            "The local AWS builds and pulls no images: its endpoints run as processes on this machine",
            "Name an environment on AWS, such as ENV=dev.",
        )
    made = terraform.output().get("image_build")
    terraform.package(rebuild=True)
    typer.echo(build_image(terraform.repository, made, image))


@infra_app.command("scan")
def infra_scan(
    tools: Annotated[Path, typer.Option(help="The folder of the scanners' programs.")] = Path(".venv-scan/bin"),
    root: Root = None,
) -> None:
    """Scan Terraform, its plan, the images and all IAM policies for security faults; exits with 1 if there are any."""
    from dogbreed.aws.repository import Repository
    from dogbreed.aws.scan import scan

    report = scan(Repository.find(root), tools)
    typer.echo(report)
    if report.failed:
        raise typer.Exit(1)


def _terraform(env: str, root: Path | None) -> Any:
    from dogbreed.aws.repository import Repository
    from dogbreed.aws.terraform import Terraform

    return Terraform(env, Repository.find(root))


def _confirm(question: str, yes: bool, terraform: Any) -> None:
    """Ends the command, without a trace of the plan, unless the answer is yes."""
    if yes or (sys.stdin.isatty() and typer.confirm(question)):
        return
    terraform.forget_plan()
    if sys.stdin.isatty():
        raise DogbreedError("Nothing was changed", "Run the same command again to do it.")
    raise DogbreedError("Nobody can be asked here, so nothing was changed", "Add --yes (make: YES=1).")


@local_app.command("up")
def local_up(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. [dim]Default: 5601.[/dim]")
    ] = None,
    root: Root = None,
) -> None:
    """Start the local AWS, if it does not run, and print what points AWS clients at it."""
    from dogbreed.aws.repository import Repository
    from dogbreed.aws.terraform import local_up as run

    for name, value in run(Repository.find(root), port=port).environment.items():
        typer.echo(f"export {name}={value}")


@local_app.command("down")
def local_down(root: Root = None) -> None:
    """Stop the local AWS; its account, with all that was made in it, is gone."""
    from dogbreed.aws.repository import Repository
    from dogbreed.aws.terraform import local_server, local_state

    with local_server() as server:
        ended = server.down(local_state(Repository.find(root)))
    typer.echo(f"Stopped {ended.url}." if ended else "It does not run.")


@local_app.command("status")
def local_status(root: Root = None) -> None:
    """Say whether the local AWS runs, and where; exits with 1 if not."""
    from dogbreed.aws.repository import Repository
    from dogbreed.aws.terraform import local_server, local_state

    with local_server() as server:
        running = server.status(local_state(Repository.find(root)))
    typer.echo(f"{running.url} (process {running.pid}, log {running.log})" if running else "It does not run.")
    if not running:
        raise typer.Exit(1)


# ------------------------------------------------------------------------------------------------ sizing

ObjectiveMs = Annotated[
    float | None,
    typer.Option("--objective", min=1, help="Milliseconds that 99 of 100 requests may take. [dim]Default: 500.[/dim]"),
]
InstanceType = Annotated[str, typer.Option(help="What an instance is, for its price.")]
Price = Annotated[
    float | None,
    typer.Option(min=0, help="USD an hour of an instance. [dim]Default: the list price in us-east-1.[/dim]"),
]
InstanceStart = Annotated[float, typer.Option(min=0, help="Seconds that a new instance takes until it answers.")]
Seed = Annotated[int, typer.Option(min=0, help="Start of the random choice.")]


@app.command()
def loadtest(
    url: Annotated[str | None, typer.Argument(help="A server. [dim]Default: http://127.0.0.1:8080.[/dim]")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="NAME", help="A SageMaker endpoint instead.")] = None,
    function: Annotated[str | None, typer.Option(metavar="NAME[:ALIAS]", help="A Lambda function instead.")] = None,
    pictures: Annotated[list[Path] | None, typer.Option(help="Pictures or folders to send. [dim]Default: drawn dogs.[/dim]")] = None,
    objective: ObjectiveMs = None,
    instances: Annotated[int, typer.Option(min=1, help="How many instances answer there.")] = 1,
    expected_rate: Annotated[float | None, typer.Option(min=0.001, help="Requests per second at the busiest time. [dim]Default: a table of several.[/dim]")] = None,
    start_rate: Annotated[float, typer.Option(min=0.01, help="First rate, requests per second.")] = 5,
    max_rate: Annotated[float, typer.Option(min=0.01, help="Highest rate to try.")] = 1000,
    step: Annotated[float, typer.Option("--step", min=0.5, help="Seconds that each rate is held at least.")] = 15,
    min_requests: Annotated[int, typer.Option(min=1, help="Requests of a step at least, in up to 2 minutes.")] = 1000,
    confirm: Annotated[float, typer.Option("--confirm", min=0, help="Seconds that the rate found is held again; 0 doesn't.")] = 60,
    warm_up: Annotated[float, typer.Option("--warm-up", min=0, help="Seconds of load before anything counts.")] = 5,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds until a request has failed.")] = 10,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for a target that is starting.")] = 60,
    arrivals: Annotated[str, typer.Option(help="poisson (as independent callers come) or constant.")] = "poisson",
    connections: Annotated[int, typer.Option(min=1, max=1024, help="Calls of AWS at a time.")] = 64,
    instance_type: InstanceType = "ml.m5.large",
    price: Price = None,
    instance_start: InstanceStart = 240,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="The folder of loadtest.json and loadtest.png.")] = Path("runs/loadtest"),
    yes: Yes = False,
) -> None:  # fmt: skip
    """Find the highest rate that a server, endpoint or function sustains, and the Terraform values that follow.

    Requests are sent when they are due, however slowly answers come, at rising rates; latency counts from when a request
    was due. Ctrl-C ends it with what was measured so far.
    """
    from dogbreed.sizing import command
    from dogbreed.sizing.loadtest import Settings

    target = command.choose_target(url, endpoint, function, connections)
    test = Settings(
        objective_ms=objective or command.DEFAULT_OBJECTIVE_MS, start_rate=start_rate, max_rate=max_rate, step_s=step,
        min_requests=min_requests, warm_up_s=warm_up, confirm_s=confirm, timeout_s=timeout, wait_s=wait,
        arrivals=arrivals, seed=seed,
    )  # fmt: skip
    whole = command.load_test(
        target, test, pictures=pictures or (), folder=out, instances=instances, expected_rate=expected_rate,
        instance_type=instance_type, usd_per_hour=price, start_s=instance_start, yes=yes,
    )  # fmt: skip
    if not whole:
        raise typer.Exit(130)


@app.command("simulate-scaling")
def simulate_scaling(
    traffic: Annotated[str, typer.Option(metavar="KIND|FILE", help="daily, spike, step, constant, or a CSV file with time_s,requests_per_s or timestamp,requests.")] = "daily",
    target: Annotated[list[str] | None, typer.Option(help="Invocations per minute and instance; several with commas. [dim]Default: 300, or what --measured leads to.[/dim]")] = None,
    cooldown: Annotated[list[str] | None, typer.Option(help="Seconds of both cooldowns; several with commas. [dim]Default: 300 in, 360 out.[/dim]")] = None,
    scale_in_cooldown: Annotated[list[str] | None, typer.Option(help="Another one after a scale-in.")] = None,
    scale_out_cooldown: Annotated[list[str] | None, typer.Option(help="Another one after a scale-out.")] = None,
    min_instances: Annotated[int, typer.Option(min=1, help="Fewest instances.")] = 1,
    max_instances: Annotated[int, typer.Option(min=1, max=1000, help="Most instances.")] = 3,
    measured: Annotated[Path | None, typer.Option(metavar="DIR", help="Take the instance from this load test.")] = None,
    service_ms: Annotated[float | None, typer.Option(min=0.01, help="Milliseconds of work for one request. [dim]Default: 80.[/dim]")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, max=1000, help="Requests that an instance works on at a time. [dim]Default: 1.[/dim]")] = None,
    variation: Annotated[float, typer.Option(min=0, max=5, help="Coefficient of variation of that work; 0 is constant, 1 exponential.")] = 0,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait at an instance; more are refused.")] = 64,
    deadline: Annotated[float, typer.Option("--deadline", min=0.01, help="Longest wait in seconds.")] = 60,
    base_rate: Annotated[float, typer.Option(min=0, help="Requests per second at quiet times.")] = 0.5,
    peak_rate: Annotated[float, typer.Option(min=0.001, help="Requests per second at the busiest time.")] = 10,
    hours: Annotated[float, typer.Option(min=0.1, max=192, help="How long the made-up traffic lasts.")] = 24,
    spike_minutes: Annotated[float, typer.Option(min=1, help="How long a spike lasts.")] = 20,
    objective: ObjectiveMs = None,
    instance_type: InstanceType = "ml.m5.large",
    price: Price = None,
    instance_start: InstanceStart = 240,
    one_change_at_a_time: Annotated[bool, typer.Option("--one-change-at-a-time", help="Suppose that nothing is added while instances start.")] = False,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="The folder of scaling.json and scaling.png.")] = Path("runs/scaling"),
) -> None:  # fmt: skip
    """Compare auto-scaling policies on a trace of traffic before an apply: latency, failures, cost.

    The values of the original projects: dogbreed simulate-scaling --target 30,50,100 --cooldown 10,30,45,300
    """
    from dogbreed.sizing import command, loadtest, prices, recommend
    from dogbreed.sizing.simulate import Instance, policies

    usd_per_hour = prices.instance_price(instance_type, price)
    if min_instances > max_instances:
        raise DogbreedError(f"--min-instances {min_instances} is above --max-instances {max_instances}", "Swap them.")
    found = loadtest.load(measured) if measured else None
    service = found.service() if found else None
    if found and not service:
        raise DogbreedError(f"The load test {measured} has no answers in it", "Run dogbreed loadtest again.")
    default = {"service_s": command.DEFAULT_SERVICE_MS / 1000, "parallel": 1} | (service or {})
    usual = command.DEFAULT_TARGET
    if found and found.sustained_per_instance:
        usual = recommend.invocations_per_instance(found.sustained_per_instance)
    both = command.numbers(cooldown, "--cooldown", [])
    ins = command.numbers(scale_in_cooldown, "--scale-in-cooldown", both or [command.DEFAULT_SCALE_IN_COOLDOWN_S])
    outs = command.numbers(scale_out_cooldown, "--scale-out-cooldown", both or [command.DEFAULT_SCALE_OUT_COOLDOWN_S])
    command.simulate_scaling(
        command.read_traffic(
            traffic, base_rate=base_rate, peak_rate=peak_rate, hours=hours, spike_minutes=spike_minutes
        ),
        policies(
            command.numbers(target, "--target", [usual]), ins, None if both and not (scale_in_cooldown or scale_out_cooldown) else outs,
            min_instances=min_instances, max_instances=max_instances,
        ),
        Instance(
            service_s=service_ms / 1000 if service_ms else default["service_s"],
            parallel=parallel or int(default["parallel"]),
            cv=variation, queue=queue, deadline_s=deadline, start_s=instance_start,
        ),
        objective_ms=objective or (found.settings.objective_ms if found else command.DEFAULT_OBJECTIVE_MS),
        usd_per_hour=usd_per_hour, folder=out, one_change_at_a_time=one_change_at_a_time, seed=seed,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ running


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dogbreed {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None: ...  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; mistakes of the user end in one line on standard error."""
    sys.exit(_run("dogbreed", sys.argv[1:] if arguments is None else arguments))


def run_entry_point(command: str) -> None:
    """Runs `train.py` or `hpo.py` as SageMaker starts them: hyperparameters as options, a failure's text kept."""
    if SageMaker.rank():
        # Every host sees all pictures: doing the same work again would help nobody, and writing the same files harm.
        print("The first host does the work; this one has nothing to do.")
        sys.exit(0)
    arguments = sys.argv[1:]
    if command == "hpo":  # one trial by default; a whole study when told how many
        whole = any(a.partition("=")[0] == "--trials" for a in arguments) or _from_environment("trials")
        command = "tune" if whole else "trial"
        if whole and SageMaker.in_job():
            # Where a spot interruption spares it; an --out that is given comes later and counts.
            arguments = ["--out", str(SageMaker.checkpoints() / "study"), *arguments]
    sys.exit(_run(Path(sys.argv[0]).name, [command, *arguments]))


def _from_environment(name: str) -> bool:
    return any(key in os.environ for key in SageMaker.hyperparameter(name))


@app.command(hidden=True)
@settings(TrainConfig)
def trial(
    data: Data,
    *,
    out: Annotated[Path, typer.Option(envvar=SageMaker.MODEL_DIR)] = Path("runs/trial"),
    device: Device = "auto",
    given: Any = None,
) -> None:
    """One trial of a SageMaker tuning job."""
    from dogbreed.hpo import trial_job

    trial_job(data=data, out=out, config=_only(TrainConfig, given), device=device)


_LOCAL_COMPUTE = "Run this where PyTorch is: in a job, or after `pip install ./python` on a machine of your own."
_OPTIONAL = {
    **dict.fromkeys(("torch", "torchvision", "timm", "openvino"), _LOCAL_COMPUTE),  # not on a SageMaker notebook
    **dict.fromkeys(
        ("boto3", "botocore", "python_terraform", "packaging", "tomli"), "Run `pip install './python[aws]'`."
    ),
    **dict.fromkeys(("localaws", "moto"), "Run `pip install './python[local]'`."),
    "aiohttp": "Run `pip install './python[loadtest]'`.",
}

# Of Typer's own copy of Click, or of Click itself: it depends on Typer's version.
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]


def _run(program: str, arguments: list[str]) -> int:
    warnings.filterwarnings("ignore")  # of libraries, for their authors; ours are errors or printed
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` means it
            signal.signal(number, signal.default_int_handler)
    try:
        command = typer.main.get_command(app)
        # Not by calling it: that would print Click's boxes, and swallow Ctrl-C.
        with command.make_context(program, list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except _ClickError as error:
        return _usage(error)
    except DogbreedError as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return _fail("Stopped. What was done is kept: run the same command again to go on.", 130)
    except ModuleNotFoundError as error:
        if error.name not in _OPTIONAL:
            _keep_failure(traceback.format_exc())
            raise
        return _fail(f"{error.name} is not installed here. {_OPTIONAL[error.name]}")
    except MemoryError:
        return _fail("There is not enough memory. Close other programs, or use a smaller backbone.")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" at {error.filename}" if error.filename else ""
            return _fail(f"The disk is full{where}. Free some space and run the same command again.")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _fail(
                f"No permission to write or read {error.filename}. Choose another folder, or change its owner."
            )
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG):
            return _fail(f"{error.filename} cannot be used ({error.strerror}). Choose another path.")
        if error.errno == errno.EPIPE:  # the reader of a pipe went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        _keep_failure(traceback.format_exc())
        raise
    except Exception:
        _keep_failure(traceback.format_exc())
        raise
    return 0


def _usage(error: Any) -> int:
    """An unknown command or option, a value of the wrong type: one line, with what was probably meant."""
    path = error.ctx.command_path if error.ctx else "dogbreed"
    if type(error).__name__ == "NoArgsIsHelpError":  # Typer has printed the help by now
        return 2
    close = [name for name in getattr(error, "possibilities", None) or [] if name != "--help"]
    problem = error.message if close else error.format_message()
    if close:
        problem = f"{problem}. Did you mean {close[0]}?"
    return _fail(f"{problem}{'' if problem.endswith(('.', '?')) else '.'} See: {path} --help", 2)


def _fail(message: str, status: int = 1) -> int:
    print(f"error: {message}", file=sys.stderr)
    _keep_failure(message)
    return status


def _keep_failure(text: str) -> None:
    """Tells SageMaker why a job failed: what is in this file becomes its FailureReason, up to 1,024 characters."""
    if SageMaker.in_job():
        target = SageMaker.base_dir() / "output" / "failure"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text[-1024:])
