"""The training host: its set-up script run for real in a sandbox, and its training against a local S3."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from photographs import write_photos
from synthetic import features  # noqa: F401  (one thread, as the processes below)

from dogbreed import ec2_train
from dogbreed.config import TrainConfig
from dogbreed.ec2_train import CloudWatchLog, S3Object, main, run_key
from dogbreed.errors import DogbreedError
from dogbreed.train import Trained, train

EC2 = Path(__file__).parents[2] / "ec2"
SETTINGS = ["--solver=ridge", "--weight-decay=0.001"]  # of the fixture `trained`
SLOW = TrainConfig(
    solver="adamw", learning_rate=1e-4, batch_size=8, hidden_size=32, dropout=0.1, epochs=150, patience=999
)
SLOW_FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in SLOW.as_dict().items()]
OUTPUT, CHECKPOINTS = "s3://artifacts/output/ec2/dogbreed-test", "s3://artifacts/checkpoints/ec2/dogbreed-test"


# ---------------------------------------------------------------------------------------------- a local S3


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Aws:
    """Two buckets and a log group."""

    def __init__(self) -> None:
        import boto3

        self.s3, self.logs = boto3.client("s3"), boto3.client("logs")
        for bucket in ("data", "artifacts"):
            self.s3.create_bucket(Bucket=bucket)
        self.logs.create_log_group(logGroupName="/test/trainer")

    def put(self, folder: Path, prefix: str) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.s3.upload_file(str(path), "data", f"{prefix}/{path.relative_to(folder).as_posix()}")

    def keys(self, prefix: str = "") -> list[str]:
        return [o["Key"] for o in self.s3.list_objects_v2(Bucket="artifacts", Prefix=prefix).get("Contents", [])]

    def results(self) -> dict[str, bytes]:
        return {
            key.rpartition("/")[2]: self.s3.get_object(Bucket="artifacts", Key=key)["Body"].read()
            for key in self.keys("output/")
        }

    def log(self, stream: str = "i-1") -> str:
        events = self.logs.get_log_events(logGroupName="/test/trainer", logStreamName=stream, startFromHead=True)
        return "\n".join(event["message"] for event in events["events"])


@pytest.fixture
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Aws:
    import urllib.request

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "OMP_NUM_THREADS": "1",  # sums come out the same as in the tests themselves
    }.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST"))
    return Aws()


def host(work: Path, *more: str, data: str = "s3://data/dogImages") -> list[str]:
    return [
        f"--data-url={data}", f"--output-url={OUTPUT}", f"--checkpoint-url={CHECKPOINTS}", f"--work={work}",
        "--log-group=/test/trainer", "--log-stream=i-1", *more,
    ]  # fmt: skip


def model_in(results: dict[str, bytes], folder: Path) -> dict[str, torch.Tensor]:
    with tarfile.open(fileobj=io.BytesIO(results["model.tar.gz"])) as tar:
        tar.extractall(folder, filter="data")
    state: dict[str, torch.Tensor] = torch.load(folder / "model.pt", weights_only=True)
    return state


def assert_same(one: dict[str, torch.Tensor], model: Path) -> None:
    other = torch.load(model / "model.pt", weights_only=True)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------------------------- training


def test_a_host_trains_what_a_job_would_and_says_last_that_it_is_done(
    aws: Aws,
    trained: Trained,
    photos: Path,
    shared_cache: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws.put(photos, "dogImages")
    uploaded: list[str] = []
    upload = ec2_train.S3Folder.upload

    def recorded(self: Any, path: Path, name: str) -> None:
        uploaded.append(name)
        assert not (tmp_path / "done").exists()
        upload(self, path, name)

    monkeypatch.setattr(ec2_train.S3Folder, "upload", recorded)
    assert main(host(tmp_path, *SETTINGS)) == 0
    results = aws.results()
    assert set(results) == {"model.tar.gz", "metrics.json", "report.html", "done.json"}
    assert uploaded[-4:] == ["model.tar.gz", "metrics.json", "report.html", "done.json"]
    assert_same(model_in(results, tmp_path / "model"), trained.folder)
    expected = json.loads((trained.folder / "metrics.json").read_text())
    assert json.loads(results["metrics.json"])["valid_loss"] == expected["valid_loss"]
    done = json.loads(results["done.json"])
    assert re.fullmatch(rf"{OUTPUT}/[0-9a-f]{{16}}/model\.tar\.gz", done["model"])
    assert done["settings"]["solver"] == "ridge" and done["data"] == "s3://data/dogImages"
    assert (tmp_path / "done").read_text() == done["model"] + "\n"
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["model"], "what was downloaded is removed"
    out = capfd.readouterr().out
    for text in (out, aws.log()):
        assert "valid_loss=" in text and f"The model is {done['model']}" in text


def test_what_is_trained_is_not_trained_again(
    aws: Aws, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    aws.put(photos / "valid", "dogImages/valid")
    monkeypatch.setattr(ec2_train, "run_job", lambda base, _: write_results(base))
    assert main(host(tmp_path / "one", *SETTINGS)) == 0
    monkeypatch.setattr(ec2_train, "run_job", lambda *_: pytest.fail("trained again"))
    assert main(host(tmp_path / "other", *SETTINGS)) == 0
    assert (tmp_path / "other" / "done").exists() and "The model is" in capfd.readouterr().out


def write_results(base: Path) -> int:
    for name in ("model/metrics.json", "output/data/report.html"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("{}")
    return 0


def test_pictures_settings_and_code_make_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [S3Object("data", "dogImages/a.jpg", "a.jpg", 3, '"1"')]
    key = run_key(pictures, ec2_train.checked(["--epochs=30"]))
    assert key == run_key(pictures, ec2_train.checked([])), "30 is the default"
    assert key == run_key([S3Object("copy", "x/a.jpg", "a.jpg", 3, '"1"')], ec2_train.checked([]))
    assert key != run_key([S3Object("data", "dogImages/a.jpg", "a.jpg", 3, '"2"')], ec2_train.checked([]))
    assert key != run_key(pictures, ec2_train.checked(["--epochs=31"]))
    package = tmp_path / "dogbreed"
    shutil.copytree(Path(ec2_train.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(ec2_train, "__file__", str(package / "ec2_train.py"))
    assert key == run_key(pictures, ec2_train.checked([]))
    (package / "aws").mkdir(exist_ok=True)
    (package / "aws" / "launch.py").write_text("# starts trainings and takes no part in them")
    assert key == run_key(pictures, ec2_train.checked([]))
    (package / "train.py").write_text("# changed")
    assert key != run_key(pictures, ec2_train.checked([]))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_training_that_is_stopped_goes_on_to_the_same_model(
    how: signal.Signals, aws: Aws, photos: Path, shared_cache: Path, tmp_path: Path
) -> None:
    aws.put(photos, "dogImages")
    work = tmp_path / "work"
    process = start(work)
    while process.poll() is None and not list(work.glob("*/checkpoints/fit.pt")):
        time.sleep(0.005)
    if how == signal.SIGTERM:  # a spot interruption or the time limit; then another host goes on
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, out + err
        assert "Stopped. What was done is kept: start the host again to go on." in aws.log()
        (key,) = [key for key in aws.keys("checkpoints/") if key.endswith("/fit.pt")]
        shutil.rmtree(work)
        buffer = io.BytesIO(aws.s3.get_object(Bucket="artifacts", Key=key)["Body"].read())
        aws.s3.put_object(Bucket="artifacts", Key=key, Body=marked(buffer))
    else:  # the host breaks down, and is started again
        os.killpg(process.pid, how)
        process.communicate(timeout=60)
        (checkpoint,) = work.glob("*/checkpoints/fit.pt")
        checkpoint.write_bytes(marked(io.BytesIO(checkpoint.read_bytes())))
    assert not (work / "done").exists() and not aws.keys("output/")
    again = start(work)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, out + err
    assert "train_loss=123.0;" in out, "it goes on from the checkpoint"
    whole = train(data=photos, out=tmp_path / "whole", config=SLOW).folder
    assert_same(model_in(aws.results(), tmp_path / "model"), whole)


def start(work: Path) -> subprocess.Popen[str]:
    """A host's process, in a group of its own with the training that it starts."""
    command = [sys.executable, "-m", "dogbreed.ec2_train", *host(work, *SLOW_FLAGS)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def marked(checkpoint: io.BytesIO) -> bytes:
    """A checkpoint that is seen in the log of whoever goes on from it."""
    state = torch.load(checkpoint, weights_only=True)
    assert 0 < len(state["history"]) < SLOW.epochs
    state["history"][0]["train_loss"] = 123.0
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_an_archive_is_unpacked_as_the_folder_it_holds(aws: Aws, photos: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "dogImages"), "zip", photos.parent, "dogImages")
    aws.s3.upload_file(archive, "data", "sets/dogImages.zip")
    found = ec2_train.list_pictures(aws.s3, "s3://data/sets/dogImages.zip")
    for _ in range(2):  # the second time nothing is downloaded
        ec2_train.fetch_pictures(aws.s3, found, tmp_path / "got" / "training")
    names = {p.relative_to(photos) for p in photos.rglob("*.jpg")}
    assert {p.relative_to(tmp_path / "got" / "training" / "dogImages") for p in tmp_path.rglob("got/**/*.jpg")} == names
    assert [p.name for p in (tmp_path / "got").iterdir()] == ["training"], "the archive takes no room any more"


def test_an_interrupted_download_goes_on(
    aws: Aws, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.put(photos / "valid", "valid")
    found = ec2_train.list_pictures(aws.s3, "s3://data/valid/")
    ec2_train.fetch_pictures(aws.s3, found[:5], tmp_path / "training")
    fetched: list[str] = []
    download = ec2_train.download
    monkeypatch.setattr(ec2_train, "download", lambda s3, o, f: (fetched.append(o.name), download(s3, o, f)))
    ec2_train.fetch_pictures(aws.s3, found, tmp_path / "training")
    assert sorted(fetched) == [o.name for o in found[5:]]
    got, sent = ({p.name: p.read_bytes() for p in f.rglob("*.jpg")} for f in (tmp_path, photos / "valid"))
    assert got == sent


def test_a_picture_that_changes_meanwhile_is_not_taken_for_the_listed_one(aws: Aws, tmp_path: Path) -> None:
    aws.s3.put_object(Bucket="data", Key="d/a.jpg", Body=b"old")
    found = ec2_train.list_pictures(aws.s3, "s3://data/d")
    aws.s3.put_object(Bucket="data", Key="d/a.jpg", Body=b"new")
    with pytest.raises(ec2_train.aws_errors(), match=r"PreconditionFailed|pre-conditions"):
        ec2_train.fetch_pictures(aws.s3, found, tmp_path / "training")
    assert not list(tmp_path.rglob("*.jpg"))


class Dropping(ThreadingHTTPServer):
    """A store with one object, that closes the connection after some bytes of each answer."""

    body, bytes_per_answer = bytes(range(256)) * 100, 10_000

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.asked: list[tuple[str | None, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        server: Dropping

        def do_GET(self) -> None:
            self.server.asked.append((self.headers["Range"], self.headers["If-Match"]))
            start = int((self.headers["Range"] or "bytes=0-")[6:-1])
            rest = self.server.body[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: self.server.bytes_per_answer])

        def log_message(self, *_: object) -> None: ...


@pytest.fixture
def dropping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dropping]:
    monkeypatch.setattr(ec2_train, "READ_PAUSE_S", 0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with Dropping() as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.server_port}")
        thread = threading.Thread(target=store.serve_forever)
        thread.start()
        yield store
        store.shutdown()
        thread.join()


def test_a_lost_connection_goes_on_where_it_ended(dropping: Dropping, tmp_path: Path) -> None:
    found = S3Object("data", "d/a.jpg", "a.jpg", len(dropping.body), '"1"')
    ec2_train.download(ec2_train.connect("s3"), found, tmp_path)
    assert (tmp_path / "a.jpg").read_bytes() == dropping.body
    assert dropping.asked == [(None, '"1"'), ("bytes=10000-", '"1"'), ("bytes=20000-", '"1"')]


def test_a_connection_that_is_lost_again_and_again_is_an_error(dropping: Dropping, tmp_path: Path) -> None:
    dropping.bytes_per_answer = 10
    found = S3Object("data", "d/a.jpg", "a.jpg", len(dropping.body), '"1"')
    with pytest.raises(ec2_train.aws_errors()):
        ec2_train.download(ec2_train.connect("s3"), found, tmp_path)
    assert len(dropping.asked) == ec2_train.READS
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "s3://data/nothing"}, "There are no pictures at s3://data/nothing. Upload them there, or correct"),
        ({"data": "s3://data/nothing.zip"}, "There are no pictures at s3://data/nothing.zip. Upload them there"),
        ({"data": "s3://absent/x"}, "The specified bucket does not exist. Check the addresses, and the rights of"),
        ({"data": "/home/me/dogs"}, "/home/me/dogs is not an address in S3. Give s3://BUCKET/KEY."),
        ({"more": ["--epoch=3"]}, "There is no setting called epoch. Did you mean epochs?"),
        ({"more": ["--epochs=0"]}, "--epochs is 0. Give a value from 1 to 10000."),
        ({"more": ["--out=/"]}, "There is no setting called out."),
        ({"more": ["faster"]}, "faster is not understood. Give settings of the training as --NAME=VALUE."),
    ],
)
def test_a_mistake_is_one_clear_line_in_the_log_too(
    arguments: dict[str, Any], message: str, aws: Aws, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = arguments.pop("more", [])
    assert main(host(tmp_path, *more, **arguments)) == 1
    (line,) = capfd.readouterr().out.splitlines()
    assert line.startswith("error: ") and message in line
    assert aws.log() == line
    assert not (tmp_path / "done").exists()


def test_a_wrong_setting_costs_no_download(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ec2_train, "list_pictures", lambda *_: pytest.fail("S3 was asked"))
    assert main(host(tmp_path, "--solver=magic")) == 1


def test_a_training_that_fails_leaves_no_result_and_its_reason(aws: Aws, tmp_path: Path) -> None:
    aws.put(write_photos(tmp_path / "photos", {"train": 1}), "dogImages")
    work = tmp_path / "work"
    assert main(host(work, *SETTINGS)) == 1
    assert not aws.keys("output/") and not (work / "done").exists()
    log = aws.log()
    assert "has no split 'valid'" in log
    assert log.endswith("error: The training ended with status 1. The lines above say why.")


def test_an_unexpected_failure_is_in_the_log(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("how odd")

    monkeypatch.setattr(ec2_train, "list_pictures", broken)
    assert main(host(tmp_path)) == 1
    assert "Traceback" in aws.log() and "ZeroDivisionError: how odd" in aws.log()


def test_pictures_that_do_not_fit_are_refused_before_they_are_fetched(tmp_path: Path) -> None:
    huge = [S3Object("data", "a.jpg", "a.jpg", 10**15, "")]
    with pytest.raises(DogbreedError, match=r"The pictures take 1000000\.0 GB, and .* Raise volume_gb"):
        ec2_train.fetch_pictures(None, huge, tmp_path / "training")


@pytest.mark.parametrize("name", ["../outside.jpg", "a/../../outside.jpg", "/outside.jpg"])
def test_a_key_cannot_name_a_file_outside(name: str, tmp_path: Path) -> None:
    with pytest.raises(DogbreedError, match="would be written outside of its folder"):
        ec2_train.download(None, S3Object("data", f"d/{name}", name, 1, ""), tmp_path / "training")
    assert not list(tmp_path.iterdir())


def test_checkpoints_that_cannot_be_copied_do_not_end_the_training(
    aws: Aws, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = ec2_train.S3Folder.at(aws.s3, "s3://artifacts/checkpoints/x")
    with ec2_train.mirrored(aws.s3, tmp_path / "checkpoints", remote):
        (tmp_path / "checkpoints" / "fit.pt").write_text("state")
        aws.s3.delete_bucket(Bucket="artifacts")
    assert "The checkpoints could not be copied to S3" in capsys.readouterr().out
    assert (tmp_path / "checkpoints" / "fit.pt").read_text() == "state"


def test_checkpoints_are_copied_as_they_change_and_brought_where_they_lack(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec2_train, "SYNC_S", 0.01)
    remote = ec2_train.S3Folder.at(aws.s3, "s3://artifacts/checkpoints/x")
    one, other = tmp_path / "one", tmp_path / "other"
    with ec2_train.mirrored(aws.s3, one, remote):
        (one / "cache").mkdir()
        (one / "cache" / "features.npz").write_text("f")
        (one / ".fit.pt.1.partial").write_text("half")
        while aws.keys() != ["checkpoints/x/cache/features.npz"]:
            time.sleep(0.01)
        (one / "fit.pt").write_text("epoch 2")
    with ec2_train.mirrored(aws.s3, other, remote):
        assert (other / "fit.pt").read_text() == "epoch 2"
        assert (other / "cache" / "features.npz").read_text() == "f"
        assert len(list(other.rglob("*.*"))) == 2


# ---------------------------------------------------------------------------------------------- logs


class Logs:
    """Takes batches as CloudWatch does."""

    exceptions = SimpleNamespace(ResourceAlreadyExistsException=KeyError)

    def __init__(self, broken: bool = False) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.broken = broken

    def create_log_stream(self, **_: Any) -> None:
        raise KeyError

    def put_log_events(self, *, logGroupName: str, logStreamName: str, logEvents: list[dict[str, Any]]) -> None:
        if self.broken:
            from botocore.exceptions import EndpointConnectionError

            raise EndpointConnectionError(endpoint_url="https://logs")
        assert len(logEvents) <= 10_000
        assert sum(len(e["message"].encode()) + 26 for e in logEvents) <= 1_048_576
        assert all(e["message"] for e in logEvents)
        self.batches.append(logEvents)


def test_logs_go_out_whole_lines_in_batches_that_cloudwatch_takes() -> None:
    logs, echo = Logs(), io.StringIO()
    log = CloudWatchLog(logs, "group", "stream", echo)
    lines = [*("é" * 7000 for _ in range(200)), *(f"line {i}" for i in range(12_000))]
    text = "\n\n".join(lines) + "\nwithout an end"
    for i in range(0, len(text), 1000):
        log.write(text[i : i + 1000])
    log.close()
    assert [e["message"] for batch in logs.batches for e in batch] == [*lines, "without an end"]
    assert echo.getvalue() == text + "\n"


def test_a_log_that_cannot_be_delivered_is_said_once() -> None:
    logs, echo = Logs(broken=True), io.StringIO()
    log = CloudWatchLog(logs, "group", "stream", echo)
    log.write("one\n")
    log._deliver()
    log.write("two\n")
    log.close()
    assert echo.getvalue().count("could not be delivered to group") == 1
    assert "one\n" in echo.getvalue() and "two\n" in echo.getvalue()


# ---------------------------------------------------------------------------------------------- set-up of the host

FAKE = """#!/bin/bash
# Notes how it was called, and fails where it is told to.
call="$(basename "$0") $*"
echo "$call" >> "$SANDBOX/calls"
case "$call" in
  "aws s3 cp"*) cp "$SANDBOX/bundle" bundle.tar.gz ;;
  "aws logs put-log-events"*) cat >> "$SANDBOX/sent" ;;
  "python3.12 -m venv"*) mkdir -p venv/bin; cp "$0" venv/bin/python ;;
  journalctl*) echo "Killed" ;;
esac
[[ -z "$FAIL" || ! "$call" =~ $FAIL ]]
"""
SET_UP = "systemctl enable --now --no-block dogbreed-train"


class Host:
    """A machine in a folder: what the script does outside of it is noted instead of done."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("bin", "var/log", "var/lib/cloud/data", "var/lib/cloud/instance/sem", "etc/systemd/system"):
            (root / folder).mkdir(parents=True)
        (root / "var/lib/cloud/data/instance-id").write_text("i-0123\n")
        (root / "var/lib/cloud/instance/sem/config_scripts_user").touch()
        for name in ("aws", "systemctl", "shutdown", "dnf", "python3.12", "journalctl"):
            self.program(f"bin/{name}")
        with tarfile.open(root / "bundle", "w:gz") as tar:
            for name, content in {
                "requirements.txt": "--no-index\n--find-links wheels\ntimm>=1\n",
                "dogbreed/ec2_train.py": "",
            }.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content.encode()))

    def program(self, path: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(FAKE)
        (self.root / path).chmod(0o755)

    def run(self, script: str | Path, *, fail: str = "", **environment: str) -> int:
        command = ["bash", str(script)] if isinstance(script, Path) else ["bash", "-c", script]
        path = f"{self.root / 'bin'}:/usr/bin:/bin"
        return subprocess.run(
            command, env={"PATH": path, "SANDBOX": str(self.root), "FAIL": fail, **environment}, timeout=60
        ).returncode

    def inside(self, script: str) -> str:
        """The script with its absolute paths in this folder."""
        return re.sub(r"(?<![\w./])/(opt|var|etc)/", rf"{self.root}/\1/", script)

    def set_up(self, user_data: str, *, fail: str = "") -> int:
        script = self.root / "user_data"
        script.write_text(self.inside(user_data))
        return self.run(script, fail=fail)

    @property
    def calls(self) -> list[str]:
        return (self.root / "calls").read_text().replace(str(self.root), "").splitlines()

    @property
    def sent(self) -> str:
        path = self.root / "sent"
        return json.loads(path.read_text())[0]["message"] if path.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture
def gpu_machine(machine: Host) -> Host:
    machine.program("opt/pytorch/bin/python")
    return machine


def rendered(folder: Path, **changes: Any) -> str:
    """The user data as Terraform makes it."""
    if not shutil.which("terraform"):
        pytest.skip("there is no terraform here")
    variables = {
        "region": "eu-central-1", "log_group": "/dogbreed-dev/trainer", "max_minutes": 240, "max_training_s": 13500,
        "bundle_uri": "s3://artifacts/code/training.tar.gz", "torch_index_url": "https://download.pytorch.org/whl/cpu",
        "service": (EC2 / "dogbreed-train.service").read_text(),
        "arguments": [
            "--data-url=s3://data/dogImages", "--output-url=s3://artifacts/o", "--backbone=a 'b' \"c\" $d `e`",
        ],
        **changes,
    }  # fmt: skip
    expression = (
        f'base64encode(templatefile({json.dumps(str(EC2 / "user_data.sh.tftpl"))}, jsondecode(file("v.json"))))'
    )
    (folder / "v.json").write_text(json.dumps(variables))
    answer = subprocess.run(["terraform", "console"], input=expression, cwd=folder, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return base64.b64decode(json.loads(answer.stdout)).decode()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rendered(tmp_path_factory.mktemp("render"), bundle_sha256="@SHA256@")


@pytest.fixture
def user_data(template: str, machine: Host) -> str:
    return template.replace("@SHA256@", hashlib.sha256((machine.root / "bundle").read_bytes()).hexdigest())


def test_a_gpu_host_is_set_up_from_the_bundle_alone(gpu_machine: Host, user_data: str) -> None:
    assert gpu_machine.set_up(user_data) == 0
    assert gpu_machine.calls == [
        "shutdown -P +240",
        "aws s3 cp --no-progress s3://artifacts/code/training.tar.gz bundle.tar.gz",
        "python -m pip install --quiet --disable-pip-version-check --root-user-action ignore "
        "--requirement requirements.txt",
        "systemctl daemon-reload",
        SET_UP,
    ]
    home = gpu_machine.root / "opt/dogbreed"
    assert (home / "code/dogbreed/ec2_train.py").exists()
    assert (home / "venv/bin/python").resolve() == gpu_machine.root / "opt/pytorch/bin/python"
    assert (home / "arguments").read_text().splitlines() == [
        "--log-group=/dogbreed-dev/trainer",
        "--data-url=s3://data/dogImages",
        "--output-url=s3://artifacts/o",
        "--backbone=a 'b' \"c\" $d `e`",
    ]
    environment = dict(line.split("=", 1) for line in (home / "environment").read_text().splitlines())
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "eu-central-1"
    assert environment["LOG_STREAM"] == "i-0123"
    units = gpu_machine.root / "etc/systemd/system"
    installed = (units / "dogbreed-train.service").read_text().strip()
    assert installed == gpu_machine.inside((EC2 / "dogbreed-train.service").read_text()).strip()
    assert (units / "dogbreed-train.service.d/limit.conf").read_text() == "[Service]\nRuntimeMaxSec=13500\n"


def test_a_cpu_host_installs_python_and_torch_first(machine: Host, user_data: str) -> None:
    assert machine.set_up(user_data) == 0
    assert machine.calls[2:6] == [
        "dnf install --assumeyes --quiet python3.12 python3.12-pip",
        "python3.12 -m venv venv",
        "python -m pip install --quiet --index-url https://download.pytorch.org/whl/cpu torch torchvision",
        "python -m pip install --quiet --disable-pip-version-check --root-user-action ignore "
        "--requirement requirements.txt",
    ]
    assert machine.calls[-1] == SET_UP


def test_every_later_start_has_the_same_limit(gpu_machine: Host, user_data: str) -> None:
    gpu_machine.set_up(user_data)
    script = gpu_machine.root / "var/lib/cloud/scripts/per-boot/dogbreed-limit"
    assert os.access(script, os.X_OK)
    assert gpu_machine.run(str(script)) == 0
    assert gpu_machine.calls[-1] == "shutdown -P +240"


@pytest.mark.parametrize(
    "failing",
    ["aws s3 cp", "dnf install", "-m venv", "pip install.*torch", "pip install.*requirements", "daemon-reload",
     "systemctl enable"],
)  # fmt: skip
def test_a_set_up_that_fails_says_why_and_powers_off(failing: str, machine: Host, user_data: str) -> None:
    assert machine.set_up(user_data, fail=failing) != 0
    assert re.search(failing, machine.calls[-4]), "nothing is done after the failure"
    assert [call.split(" --")[0] for call in machine.calls[-3:]] == [
        "aws logs create-log-stream", "aws logs put-log-events", "shutdown -P now",
    ]  # fmt: skip
    assert "--log-group-name /dogbreed-dev/trainer --log-stream-name i-0123" in machine.calls[-2]
    assert "error: the set-up of the training host failed with status 1" in machine.sent
    sem = machine.root / "var/lib/cloud/instance/sem/config_scripts_user"
    assert not sem.exists(), "the next start tries again"


@pytest.mark.parametrize("bundle", [b"tampered with", b""])
def test_a_bundle_that_is_not_the_planned_one_is_not_installed(bundle: bytes, machine: Host, user_data: str) -> None:
    (machine.root / "bundle").write_bytes(bundle)
    assert machine.set_up(user_data) != 0
    assert machine.calls[-1] == "shutdown -P now"
    assert not any("pip" in call for call in machine.calls)
    assert "bundle.tar.gz: FAILED" in machine.sent


def test_a_damaged_bundle_powers_off(machine: Host, template: str) -> None:
    (machine.root / "bundle").write_bytes(b"no archive")
    user_data = template.replace("@SHA256@", hashlib.sha256(b"no archive").hexdigest())
    assert machine.set_up(user_data) != 0
    assert machine.calls[-1] == "shutdown -P now"


def test_a_host_without_a_way_to_log_powers_off_all_the_same(machine: Host, user_data: str) -> None:
    assert machine.set_up(user_data, fail="aws") != 0
    assert machine.calls[-1] == "shutdown -P now"


def test_a_shutdown_that_fails_is_forced(machine: Host, user_data: str) -> None:
    assert machine.set_up(user_data, fail="aws s3|shutdown -P now") != 0
    assert machine.calls[-2:] == ["shutdown -P now", "systemctl poweroff --force"]


def test_a_set_up_that_cannot_even_begin_powers_off(machine: Host, user_data: str) -> None:
    (machine.root / "opt").write_text("a file in the way")
    assert machine.set_up(user_data) != 0
    assert machine.calls == ["shutdown -P +240", "shutdown -P now"]


def test_a_set_up_that_is_interrupted_is_done_again_at_the_next_start(gpu_machine: Host, user_data: str) -> None:
    (gpu_machine.root / "bin/aws").write_text(FAKE.replace('cp "$SANDBOX/bundle" bundle.tar.gz', "kill $PPID"))
    assert gpu_machine.set_up(user_data) != 0
    assert gpu_machine.calls[-1] == "shutdown -P now"
    assert not (gpu_machine.root / "var/lib/cloud/instance/sem/config_scripts_user").exists()
    gpu_machine.program("bin/aws")
    assert gpu_machine.set_up(user_data) == 0
    assert gpu_machine.calls[-1] == SET_UP


def test_the_host_stops_after_a_training_that_went_well(gpu_machine: Host, user_data: str) -> None:
    gpu_machine.set_up(user_data)
    (gpu_machine.root / "calls").unlink()
    assert gpu_machine.run(gpu_machine.root / "opt/dogbreed/stop", SERVICE_RESULT="success") == 0
    assert gpu_machine.calls == ["shutdown -P now"]


@pytest.mark.parametrize(("fail", "said"), [("", "Its last lines:\nKilled"), ("aws", "")])
def test_the_host_stops_after_a_training_that_did_not(fail: str, said: str, gpu_machine: Host, user_data: str) -> None:
    gpu_machine.set_up(user_data)
    outcome = {"SERVICE_RESULT": "oom-kill", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}
    gpu_machine.run(gpu_machine.root / "opt/dogbreed/stop", fail=fail, **outcome)
    assert gpu_machine.calls[-1] == "shutdown -P now"
    if said:
        assert (
            gpu_machine.sent.startswith("The training ended with oom-kill (killed KILL).") and said in gpu_machine.sent
        )


def test_the_user_data_fits_and_is_valid_bash(template: str, tmp_path: Path) -> None:
    many = rendered(tmp_path, bundle_sha256="0" * 64, arguments=[f"--setting-{i}={'x' * 60}" for i in range(40)])
    assert len(many.encode()) < 16 * 1024
    assert template.splitlines()[0] == "#!/bin/bash"
    scripts = [template, *re.findall(r"<< '(?:SEND_LOG|STOP)'\n(.*?)\n(?:SEND_LOG|STOP)\n", template, re.DOTALL)]
    assert len(scripts) == 3
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-e", "SC1091", "-"], input=template, text=True, check=True)


def test_the_service_is_what_systemd_understands(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze here")
    unit = tmp_path / "dogbreed-train.service"
    programs = {"/opt/dogbreed/venv/bin/python": "/bin/sh", "/opt/dogbreed/stop": "/bin/sh"}
    text = (EC2 / "dogbreed-train.service").read_text()
    for program, there in programs.items():
        assert program in text
        text = text.replace(program, there)
    unit.write_text(text)
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    said = [line for line in checked.stderr.splitlines() if "dogbreed-train" in line]
    assert not said, said
