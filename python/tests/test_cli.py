"""The command line: instant help, and every mistake answered with one line that says what to do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from photographs import encode
from PIL import Image
from runs import dogbreed, one_line, run, start
from synthetic import features  # noqa: F401  (one thread, as the processes)

from dogbreed import cli
from dogbreed.train import Trained

ROOT = Path(__file__).parents[2]

HEAVY = (
    "torch",
    "aiohttp",
    "starlette",
    "uvicorn",
    "torchvision",
    "numpy",
    "scipy",
    "sklearn",
    "openvino",
    "optuna",
    "matplotlib",
    "PIL",
    "timm",
    "boto3",
    "jinja2",
    "moto",
    "localaws",
    "python_terraform",
)
COMMANDS = [
    "embed", "tune", "train", "evaluate", "optimise", "predict", "serve", "pack", "demo", "backbones",
    "loadtest", "simulate-scaling",
    "data fetch", "data check", "data split", "data manifest", "data sample",
    "infra package", "infra lock", "infra mirror", "infra plan", "infra apply", "infra destroy", "infra output",
    "infra scan", "infra image", "local up", "local down", "local status",
]  # fmt: skip


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Runs the command line in this process: as the real one, without its two seconds of imports."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


@pytest.fixture
def copy(photos: Path, tmp_path: Path) -> Path:
    return shutil.copytree(photos, tmp_path / "photos")


# ---------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["data", "--help"], ["infra", "--help"], ["--version"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from dogbreed.cli import main\n"
        "try: main()\n"
        f"finally: print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = run("-c", code, *arguments)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, *command.split(), "--help")
    assert (status, err) == (0, "") and f"Usage: dogbreed {command}" in out
    group, _, name = command.rpartition(" ")
    assert name in call(capsys, *group.split(), "--help")[1], "it is not listed"


def test_every_setting_is_an_option_with_its_default(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    _, out, _ = call(capsys, "train", "--help")
    for name, value in cli.TrainConfig().as_dict().items():
        assert f"--{name.replace('_', '-')}" in out and f"default: {value}" in out


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys)
    assert status == 2 and "Usage: dogbreed" in out + err


# ---------------------------------------------------------------------------------------------- bad input


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def emptied(data: Path) -> Path:
    for picture in (data / "train" / "002.Afghan_hound").iterdir():
        picture.unlink()
    return data


def with_one_class(data: Path) -> Path:
    for folder in data.glob("*/*"):
        if folder.name != "001.Affenpinscher":
            remove(folder)
    return data


def without(data: Path, *parts: str) -> Path:
    remove(data.joinpath(*parts))
    return data


BAD_DATA = {
    "wrong path": (lambda d: d / "nowhere", "There is no data set at", "Give the folder that holds train/"),
    "a file": (lambda d: next(d.rglob("*.jpg")), "is a file", "dogbreed data fetch"),
    "another layout": (lambda d: d / "train", "class folders but no train/", "dogbreed data split"),
    "empty class folder": (emptied, "002.Afghan_hound holds no pictures", "Add pictures"),
    "one class": (with_one_class, "a classifier needs two", "a folder of its own"),
    "class missing from valid": (
        lambda d: without(d, "valid", "003.Akita"), "'003.Akita' is in train but missing from valid", "Add ",
    ),
    "class missing from test": (
        lambda d: without(d, "test", "003.Akita"), "'003.Akita' is in train but missing from test", "Add ",
    ),
    "class missing from train": (
        lambda d: without(d, "train", "003.Akita"), "'003.Akita' is in valid but missing from train", "Add ",
    ),
    "no valid split": (lambda d: without(d, "valid"), "has no split 'valid'", "dogbreed data split"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["embed", "tune", "train"])
@pytest.mark.parametrize("mistake", BAD_DATA)
def test_data_that_cannot_be_learnt_from(
    mistake: str, command: str, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, problem, fix = BAD_DATA[mistake]
    out = [] if command == "embed" else ["--out", str(tmp_path / "out")]
    status, _, err = call(capsys, command, spoil(copy), *out)
    assert status == 1
    assert problem in one_line(err) and fix in one_line(err)
    assert [p.name for p in tmp_path.iterdir()] == ["photos"], "something was left behind"


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["train", "--learning-rate", "99"], 1, "--learning-rate is 99. Give a value from 1e-06 to 10."),
        (["train", "--batch_size", "0"], 1, "--batch-size is 0. Give a value from 1 to 65536."),
        (["train", "--epochs", "many"], 2, "Invalid value for '--epochs'"),
        (["train", "--solver", "adam"], 1, "--solver is 'adam'. Choose one of: adamw, sgd, lbfgs, ridge."),
        (["train", "--lerning-rate", "0.1"], 2, "No such option: --lerning-rate. Did you mean --learning-rate?"),
        (["train", "--batch_sise", "8"], 2, "Did you mean --batch-size?"),
        (["train", "--backbone", "resnet5"], 1, "There is no backbone called 'resnet5'. Did you mean resnet5"),
        (["train", "--weights", "/nowhere.pt"], 1, "There is no file of weights at /nowhere.pt. Give a file"),
        (["train", "--study", "nowhere"], 1, "There is no study at nowhere/study.json. Run `dogbreed tune` first."),
        (["train", "--like", "nowhere"], 1, "There is no model at nowhere/config.json. Give a folder that"),
        (["train", "--like", "a", "--study", "b"], 1, "Give one of them."),
        (["tune", "--trials", "0"], 1, "--trials is 0. Give a number of at least 1."),
        (["tune", "--solvers", "adam"], 1, "--solver is 'adam'. Choose one of"),
        (["tune", "--learning-rate-min", "0.5"], 1, "Give a smaller minimum."),
        (["train", "--device", "gpu"], 1, "--device is 'gpu'. Choose one of: auto, cpu, cuda, mps."),
        (["trian"], 2, "No such command 'trian'. Did you mean"),
        (["data", "chekc"], 2, "No such command 'chekc'. Did you mean 'check'?"),
        (["train", "--epochs"], 2, "Option '--epochs' requires an argument. See: dogbreed"),
        (["tune"], 2, "Missing argument 'data'. See: dogbreed tune --help"),
        (["predict", "nowhere.jpg"], 1, "There is no file nowhere.jpg. Give a picture"),
        (["local", "up", "--port", "99999"], 2, "Invalid value for '--port': "),
        (["local", "up", "--port", "-1"], 2, "Invalid value for '--port': "),
        (["pack", "nowhere"], 1, "There is no model at nowhere/config.json. Give a folder that"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(
    arguments: list[str], status: int, line: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = [str(photos)] if arguments[0] in ("train", "tune") and len(arguments) > 1 else []
    found, _, err = call(capsys, arguments[0], *given, *arguments[1:])
    assert found == status
    assert line in one_line(err)
    assert list(tmp_path.iterdir()) == []


def test_a_real_process_ends_the_same_way(tmp_path: Path) -> None:
    done = dogbreed("train", tmp_path / "nowhere")
    assert done.returncode == 1 and one_line(done.stderr).startswith("There is no data set at")


def test_a_corrupt_picture_is_left_out_counted_and_named_by_check(
    copy: Path, tmp_path: Path, shared_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = next((copy / "train").rglob("*.jpg"))
    bad.write_bytes(bad.read_bytes()[:3000])  # as Leonberger_06571.jpg of the original set
    status, out, err = call(capsys, "train", copy, "--out", tmp_path / "model", "--solver", "ridge")
    assert status == 0 and "accuracy" in out
    assert err == f"1 pictures could not be used. See: dogbreed data check {copy}\n"
    status, out, _ = call(capsys, "data", "check", copy)
    assert status == 1 and bad.name in out.replace("\n", "")


def model_of_another_version(model: Path) -> None:
    recorded = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**recorded, "format": 99}))


DAMAGE = {
    "another version": (model_of_another_version, "has format 99, this version reads 2"),
    "no config": (lambda m: (m / "config.json").unlink(), "There is no model at"),
    "broken config": (lambda m: (m / "config.json").write_text("{"), "is not valid JSON"),
    "a config of another kind": (lambda m: (m / "config.json").write_text("[]"), "has format None"),
    "no classes": (lambda m: (m / "classes.json").unlink(), "There is no list of classes at"),
    "cut weights": (lambda m: (m / "model.pt").write_bytes((m / "model.pt").read_bytes()[:5000]), "is damaged"),
    "no weights": (lambda m: (m / "model.pt").unlink(), "is damaged"),
    "weights of another model": (lambda m: (m / "classes.json").write_text('{"0": "a", "1": "b"}'), "is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_model_directory_that_cannot_be_used(
    damage: str, trained: Trained, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(trained.folder, tmp_path / "model")
    spoil, message = DAMAGE[damage]
    spoil(model)
    for command in (["evaluate", model, photos], ["predict", photos, "--model", model], ["pack", model]):
        status, _, err = call(capsys, *command)
        assert status == 1 and message in one_line(err)


def test_a_model_of_other_classes_is_not_measured(
    trained: Trained, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in copy.glob("*/004*"):
        shutil.rmtree(folder)
    status, _, err = call(capsys, "evaluate", trained.folder, copy)
    assert status == 1 and "The model knows 4 classes" in one_line(err) and "Basset hound" in one_line(err)


def test_a_cache_of_another_version_is_not_used(
    photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "embed", photos)[0] == 0
    for meta in cache.rglob("meta.json"):
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 99}))
    status, _, err = call(capsys, "train", photos, "--out", tmp_path / "model")
    assert status == 1 and "it has format 99, this version reads" in one_line(err) and "rm -r '" in one_line(err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, "The disk is full at /there. Free some space and run the same command again."),
        (errno.EACCES, "No permission to write or read /there. Choose another folder, or change its owner."),
        (errno.EROFS, "No permission to write or read /there. Choose another folder, or change its owner."),
        (errno.ENOTDIR, "/there cannot be used (Not a directory). Choose another path."),
    ],
)
def test_a_disk_that_refuses(
    number: int, line: str, photos: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, {errno.ENOTDIR: "Not a directory"}.get(number, "refused"), "/there")

    monkeypatch.setattr("torch.save", refuse)
    status, _, err = call(capsys, "train", photos, "--out", tmp_path / "model", "--solver", "ridge")
    assert status == 1 and one_line(err) == line
    assert not list(tmp_path.iterdir()), "half a model was left"


def test_ctrl_c_while_embedding_is_one_line_and_the_work_is_kept(photos: Path, tmp_path: Path, cache: Path) -> None:
    process = start("-m", "dogbreed", "embed", photos)
    while process.poll() is None and not list(cache.rglob("*.partial")):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert one_line(err) == "Stopped. What was done is kept: run the same command again to go on."
    assert dogbreed("embed", photos).returncode == 0


def test_a_reader_that_leaves_is_no_error() -> None:
    process = start("-m", "dogbreed", "backbones")
    assert process.stdout and process.stderr
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)


# ---------------------------------------------------------------------------------------------- what it does


def test_the_main_job_step_by_step(
    photos: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Every command with its defaults, in the order of a person's first hour."""
    monkeypatch.chdir(tmp_path)
    status, out, _ = call(capsys, "embed", photos)
    assert status == 0 and "train: 48 pictures × 1280 features" in out
    status, out, _ = call(capsys, "tune", photos, "--trials", "5", "--epochs", "3")
    assert (
        status == 0 and "5 trials in" in out and f"dogbreed train {photos} --study runs/study" in out.replace("\n", "")
    )
    status, out, _ = call(capsys, "train", photos, "--study", "runs/study")
    assert status == 0 and "top-5 accuracy" in out and Path("runs/model-report.html").stat().st_size > 10_000
    status, out, _ = call(capsys, "evaluate", "runs/model", photos, "--split", "valid", "--study", "runs/study")
    assert status == 0 and "Dog or not: " in out
    picture = next((photos / "test").rglob("*.jpg"))
    status, out, _ = call(capsys, "predict", picture, "--json", "--top-k", "2")
    (answer,) = json.loads(out)
    assert status == 0 and answer["file"] == str(picture)
    assert [set(p) for p in answer["predictions"]] == [{"breed", "class_index", "probability"}] * 2
    status, out, _ = call(capsys, "predict", picture.parent)
    assert status == 0 and out.count(".jpg") == 4
    status, _, _ = call(capsys, "pack")
    assert status == 0 and Path("runs/model.tar.gz").exists()
    status, _, _ = call(capsys, "train", photos, "--like", "runs/model", "--out", "again")
    assert status == 0
    same = ("train", "extractor", "data", "fit", "rejection_threshold")
    one, two = (json.loads(Path(m, "config.json").read_text()) for m in ("runs/model", "again"))
    assert {k: one[k] for k in same} == {k: two[k] for k in same}


def test_a_picture_that_cannot_be_predicted_is_named_and_the_others_are_answered(
    trained: Trained, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = next((photos / "test").rglob("*.jpg")), tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    status, out, _ = call(capsys, "predict", bad, good, "--model", trained.folder, "--json")
    first, second = json.loads(out)
    assert status == 1 and "not a picture" in first["error"] and second["predictions"]


def test_data_sets_are_drawn_split_listed_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = call(capsys, "data", "sample", "drawn", "--classes", "2", "--per-class", "6")
    assert (status, out) == (0, "drawn\n")
    status, out, _ = call(capsys, "data", "split", "drawn/train", "split", "--valid", "0.25", "--test", "0.25")
    assert status == 0 and out.startswith("split: 4 train, 2 valid, 2 test")
    status, out, _ = call(capsys, "data", "manifest", "split", "--base-uri", "s3://bucket/dogs", "--out", "lists")
    assert status == 0 and out.split() == [f"lists/{s}.manifest" for s in ("train", "valid", "test")]
    entries = [json.loads(line) for line in Path("lists/train.manifest").read_text().splitlines()]
    assert len(entries) == 4 and entries[0]["source-ref"].startswith("s3://bucket/dogs/train/")
    assert call(capsys, "data", "check", "drawn", "--json", "found.json", "--html", "found.html")[0] == 0
    assert json.loads(Path("found.json").read_text()) and Path("found.html").exists()
    folder = next(Path("drawn/train").iterdir())
    (folder / "broken.jpg").write_bytes(encode(Image.new("RGB", (300, 300)))[:200])
    assert call(capsys, "data", "check", "drawn")[0] == 1


def test_an_archive_is_unpacked(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = shutil.make_archive(str(tmp_path / "dogImages"), "zip", photos.parent, photos.name)
    status, out, _ = call(capsys, "data", "fetch", archive, tmp_path / "data")
    assert status == 0 and out.replace("\n", "") == str(tmp_path / "data")
    assert call(capsys, "embed", tmp_path / "data")[0] == 0
    status, _, err = call(capsys, "data", "fetch", tmp_path / "nothing.zip", tmp_path / "other")
    assert status == 1 and "nothing.zip" in one_line(err)


def test_the_installed_command_is_the_same(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("dogbreed")
    if not command.exists():
        pytest.skip("the package is not installed here")
    done = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("dogbreed ") and done.returncode == 0


def test_training_like_a_model_says_when_the_pictures_are_others(
    trained: Trained, photos: Path, copy: Path, tmp_path: Path, shared_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--like", trained.folder, "--out", tmp_path / "model"]
    assert call(capsys, *command, photos)[0::2] == (0, "")
    next((copy / "train").rglob("*.jpg")).unlink()
    status, _, err = call(capsys, *command, copy)
    assert status == 0 and err.startswith(f"Not the model of {trained.folder}")


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_local_aws_that_cannot_be_used_is_one_clear_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "localaws", ModuleType("localaws"))  # as with another moto: it has no server
    monkeypatch.delitem(sys.modules, "localaws.server", raising=False)
    status, _, err = call(capsys, "local", command, "--root", ROOT)
    assert status == 1 and one_line(err).startswith("The local AWS cannot be used (")
    assert one_line(err).endswith("Run `pip install './python[local]'`.")


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_what_the_local_aws_cannot_do_is_one_clear_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from localaws import server

    def refuse(*_: object) -> None:
        raise server.LocalAwsError("it is still\nstarting", "Try again.")

    for name in ("up", "down", "status"):
        monkeypatch.setattr(server, name, refuse)
    status, _, err = call(capsys, "local", command, "--root", ROOT)
    assert (status, one_line(err)) == (1, "The local AWS cannot be used (it is still starting). Try again.")


@pytest.mark.parametrize("name", ["boto3", "botocore", "tomli", "packaging", "python_terraform"])
def test_a_missing_extra_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(root: Path | None) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("dogbreed.aws.repository.Repository.find", find)
    status, _, err = call(capsys, "infra", "mirror")
    assert (status, one_line(err)) == (1, f"{name} is not installed here. Run `pip install './python[aws]'`.")


def test_make_works_in_a_folder_whose_name_holds_a_space(tmp_path: Path) -> None:
    """With stand-ins for the programs of the environment, which write down how they were called."""
    checkout = tmp_path / "my dogs"
    (checkout / "python").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", checkout)
    sources = ["pyproject.toml", "locks/scan.txt", "dogbreed/aws/provider_mirror.py", "tests/browser.py"]
    made = [".venv/installed", "build/terraform.rc", "build/browser", ".venv-scan/installed"]
    for name in [*(f"python/{source}" for source in sources), *made]:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    (checkout / ".venv" / "bin").mkdir()
    for name in ("python", "dogbreed"):
        program = checkout / ".venv" / "bin" / name
        program.write_text(f"#!/bin/sh\necho '{name}' \"$@, $SCAN_TOOLS\" >> '{tmp_path}/calls'\n")
        program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "SCAN_TOOLS"}  # `make test` sets it
    for arguments in (["test"], ["demo", "DEMO_DIR=my demo"], ["clean"]):
        done = subprocess.run(["make", *arguments], cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    test, *others = (tmp_path / "calls").read_text().splitlines()
    assert test.startswith("python -m pytest ") and test.endswith(f", {checkout}/.venv-scan/bin")
    assert others == ["dogbreed demo --folder my demo, ", "dogbreed local down, "]
    assert sorted(path.name for path in checkout.iterdir()) == ["Makefile", "python"]
    assert subprocess.run(["make", "clean"], cwd=checkout).returncode == 0, "there is no local AWS to stop"
