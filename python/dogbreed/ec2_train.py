"""Training on a host of its own: pictures from S3, then the entry point of a training job, then the model to S3.

The host keeps the contract of a SageMaker job (folders and variables), so the training is the very same program. A run
is known by the hash of pictures, settings and code: interrupted on one host it goes on there or on another one, and
what is done already is not done again.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TextIO, cast

from dogbreed.config import SageMaker, TrainConfig
from dogbreed.console import progress
from dogbreed.data.unpack import RECORD
from dogbreed.errors import DogbreedError
from dogbreed.files import atomic_path, sha256_file, sha256_json, write_json, write_text

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DOWNLOADS = 16  # at once: with thousands of small files it is the latency that counts
READS = 5  # of an object whose connection is lost; each goes on where the last one ended
READ_PAUSE_S = 1.0
SYNC_S = 60.0  # between two copies of the checkpoints to S3
STOPPED = 130  # exit status, as after Ctrl-C

# ---------------------------------------------------------------------------------------------- S3


@dataclass(frozen=True)
class S3Object:
    """An object, with its name below the folder that was listed."""

    bucket: str
    key: str
    name: str
    size: int
    etag: str


@dataclass(frozen=True)
class S3Folder:
    """The objects of a bucket whose keys begin with `prefix`, which ends with a slash or is empty."""

    s3: Any
    bucket: str
    prefix: str

    @classmethod
    def at(cls, s3: Any, url: str) -> S3Folder:
        bucket, key = split_url(url)
        return cls(s3, bucket, f"{key.rstrip('/')}/" if key else "")

    def __truediv__(self, name: str) -> S3Folder:
        return S3Folder(self.s3, self.bucket, f"{self.prefix}{name}/")

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{name}"

    def objects(self) -> list[S3Object]:
        """All objects in the order of their keys, without the empty ones that stand for folders."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        return [
            S3Object(self.bucket, e["Key"], e["Key"].removeprefix(self.prefix), e["Size"], e["ETag"])
            for page in pages
            for e in page.get("Contents", [])
            if not e["Key"].endswith("/")
        ]

    def upload(self, path: Path, name: str) -> None:
        self.s3.upload_file(str(path), self.bucket, self.prefix + name)  # encrypted by the bucket's default


def split_url(url: str) -> tuple[str, str]:
    """The bucket and the key of an `s3://` address."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise DogbreedError(f"{url} is not an address in S3", "Give s3://BUCKET/KEY.")
    return bucket, key


def download(s3: Any, found: S3Object, folder: Path) -> None:
    """Brings an object to `folder`/name, whole or not at all; one that has changed since it was listed is an error."""
    parts = PurePosixPath(found.name).parts
    if ".." in parts or found.name.startswith("/"):
        raise DogbreedError(f"s3://{found.bucket}/{found.key} would be written outside of its folder", "Rename it.")
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    with atomic_path(folder.joinpath(*parts)) as partial, partial.open("wb") as file:
        for left in reversed(range(READS)):
            rest = {"Range": f"bytes={file.tell()}-"} if file.tell() else {}
            body = s3.get_object(Bucket=found.bucket, Key=found.key, IfMatch=found.etag, **rest)["Body"]
            try:
                shutil.copyfileobj(body, file)
                break
            except (HTTPClientError, IncompleteReadError):  # the connection was lost, where botocore retries no more
                if not left:
                    raise
                time.sleep(READ_PAUSE_S)


def connect(service: str) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise DogbreedError("Training with pictures from S3 needs boto3", "Run: pip install 'dogbreed[aws]'") from None
    retries: Any = {"mode": "standard", "total_max_attempts": 10}
    return boto3.client(service, config=Config(max_pool_connections=DOWNLOADS, retries=retries))


def aws_errors() -> tuple[type[Exception], ...]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError, Boto3Error


# ---------------------------------------------------------------------------------------------- pictures


def list_pictures(s3: Any, url: str) -> list[S3Object]:
    """What there is to train on: an archive, or all objects of a folder."""
    bucket, key = split_url(url)
    if key.lower().endswith(ARCHIVES):
        from botocore.exceptions import ClientError

        try:
            head = s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (403, 404):  # 403: no right to know
                raise
            found = []
        else:
            found = [S3Object(bucket, key, PurePosixPath(key).name, head["ContentLength"], head["ETag"])]
    else:
        found = S3Folder.at(s3, url).objects()
    if not found:
        raise DogbreedError(f"There are no pictures at {url}", "Upload them there, or correct data_url.")
    return found


def fetch_pictures(s3: Any, found: list[S3Object], folder: Path) -> None:
    """Brings pictures to a folder that holds nothing else; goes on where it was interrupted."""
    archive = len(found) == 1 and found[0].name.lower().endswith(ARCHIVES)
    if (folder / RECORD).exists():
        return
    missing = [o for o in found if not (folder / o.name).exists()]
    needed = sum(o.size for o in missing) * (2 if archive else 1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(folder.parent).free):
        raise DogbreedError(
            f"The pictures take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of the disk are free", "Raise volume_gb."
        )
    if archive:
        from dogbreed.data.fetch import fetch

        download(s3, found[0], folder.parent)
        fetch(str(folder.parent / found[0].name), folder)
        (folder.parent / found[0].name).unlink()
        return
    with progress("Downloading", len(missing), unit="pictures") as advance, ThreadPoolExecutor(DOWNLOADS) as pool:
        try:
            for _ in pool.map(lambda o: download(s3, o, folder), missing):
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# ---------------------------------------------------------------------------------------------- checkpoints


@contextlib.contextmanager
def mirrored(s3: Any, folder: Path, remote: S3Folder | None) -> Iterator[None]:
    """Brings what `folder` lacks from S3, then copies there what changes in it, every minute and at the end.

    The host's disk outlives an interruption, but not the host. What cannot be copied does not end the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if remote is None:
        yield
        return
    failures: tuple[type[Exception], ...] = (*aws_errors(), OSError)
    copied: dict[Path, tuple[int, int]] = {}
    for found in remote.objects():
        if not (folder / found.name).exists():
            download(s3, found, folder)
            copied[folder / found.name] = _stamp(folder / found.name)

    def copy() -> None:
        try:
            for path in sorted(folder.rglob("*")):
                with contextlib.suppress(FileNotFoundError):  # replaced or removed by the training meanwhile
                    if path.is_file() and path.suffix not in (".partial", ".lock"):
                        stamp = _stamp(path)
                        if copied.get(path) != stamp:
                            remote.upload(path, path.relative_to(folder).as_posix())
                            copied[path] = stamp
        except failures as error:
            print(f"The checkpoints could not be copied to S3 ({error}); those on the disk are kept.")

    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(SYNC_S):
            copy()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        copy()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


# ---------------------------------------------------------------------------------------------- logs


class CloudWatchLog(io.TextIOBase):
    """A text stream that writes to another one and, in batches, to a CloudWatch log stream.

    A log that cannot be delivered is said once and does not end the training: the host's journal has it all.
    """

    PERIOD_S = 5.0
    MAX_EVENT = 8_000  # characters; CloudWatch takes 256 KB
    MAX_BATCH = 1_000_000  # bytes, 26 for each event; CloudWatch takes 1,048,576 and 10,000 events
    OVERHEAD = 26

    def __init__(self, logs: Any, group: str, stream: str, echo: TextIO) -> None:
        self._logs, self._group, self._stream, self._echo = logs, group, stream, echo
        self._events: list[dict[str, Any]] = []
        self._line, self._broken = "", False
        self._lock, self._ended = threading.Lock(), threading.Event()
        with self._forgiving(), contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
        self._thread = threading.Thread(target=self._deliver_regularly, daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        self._echo.write(text)
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
            now = int(time.time() * 1000)
            self._events += [{"timestamp": now, "message": line[: self.MAX_EVENT]} for line in lines if line.strip()]
        return len(text)

    def flush(self) -> None:
        if not self.closed:
            self._echo.flush()

    def close(self) -> None:
        if not self.closed:
            self._ended.set()
            self._thread.join()
            self.write("\n" if self._line else "")
            self._deliver()
        super().close()

    def _deliver_regularly(self) -> None:
        while not self._ended.wait(self.PERIOD_S):
            self._deliver()

    def _deliver(self) -> None:
        with self._lock:
            events, self._events = self._events, []
        with self._forgiving():
            for batch in self._batches(events):
                self._logs.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=batch)

    def _batches(self, events: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        batch: list[dict[str, Any]] = []
        size = 0
        for event in events:
            weight = len(event["message"].encode()) + self.OVERHEAD
            if batch and (size + weight > self.MAX_BATCH or len(batch) == 10_000):
                yield batch
                batch, size = [], 0
            batch.append(event)
            size += weight
        if batch:
            yield batch

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except aws_errors() as error:
            if not self._broken:
                self._broken = True
                self._echo.write(f"The log could not be delivered to {self._group} ({error}).\n")


@contextlib.contextmanager
def logged(group: str | None, stream: str) -> Iterator[None]:
    """Sends what is printed to a log group, too."""
    logs = None
    if group is not None:
        try:
            logs = connect("logs")
        except Exception as error:  # no boto3, no region: the training will say it with a fix
            print(f"The log cannot be delivered to {group} ({error}).")
    if group is None or logs is None:
        yield
        return
    log = cast(TextIO, CloudWatchLog(logs, group, stream, sys.stdout))
    with contextlib.closing(log), contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


# ---------------------------------------------------------------------------------------------- the training


def checked(flags: list[str]) -> dict[str, Any]:
    """The settings that flags of the form `--name=value` make, complete; a wrong one costs no download."""
    given: dict[str, str] = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        if not name.startswith("--") or not equals:
            raise DogbreedError(f"{flag} is not understood", "Give settings of the training as --NAME=VALUE.")
        given[name.removeprefix("--").replace("-", "_")] = value
    device = given.pop("device", "auto")
    return {**TrainConfig.from_dict(given).as_dict(), "device": device}


def run_key(found: list[S3Object], settings: dict[str, Any]) -> str:
    """What a run is known by: the same pictures, settings and code give the same model."""
    package = Path(__file__).parent
    sources = sorted(path.relative_to(package) for path in package.rglob("*") if path.suffix in (".py", ".j2"))
    parts = {
        "pictures": [[o.name, o.size, o.etag] for o in found],
        "settings": settings,
        # aws/ starts trainings and takes no part in them.
        "code": [[path.as_posix(), sha256_file(package / path)] for path in sources if path.parts[0] != "aws"],
    }
    return sha256_json(parts)[:16]


def run_job(base: Path, flags: list[str]) -> int:
    """Runs the entry point of a training job in the folders of one, and prints what it prints; returns its status."""
    environment = {
        **os.environ,
        "SAGEMAKER_BASE_DIR": str(base),
        SageMaker.TRAINING: str(base / "input" / "data" / "training"),
        SageMaker.MODEL_DIR: str(base / "model"),
        SageMaker.OUTPUT_DATA_DIR: str(base / "output" / "data"),
    }
    command = [sys.executable, "-u", "-m", "dogbreed.train", *flags]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        except KeyboardInterrupt:
            process.terminate()  # it saves where it is
            for line in process.stdout:
                print(line, end="", flush=True)
    return process.returncode


def train_once(*, data_url: str, output_url: str, checkpoint_url: str | None, work: Path, flags: list[str]) -> None:
    """Trains what is not trained yet, and uploads the model; `done.json` last, and then `done` in the work folder.

    Raises:
        DogbreedError: a wrong address or setting, no pictures, no room, or a training that failed.
        KeyboardInterrupt: the training was stopped; the same call goes on.
    """
    settings = checked(flags)
    s3 = connect("s3")
    found = list_pictures(s3, data_url)
    key = run_key(found, settings)
    results = S3Folder.at(s3, output_url) / key
    if "done.json" not in {o.name for o in results.objects()}:
        base = work / key
        print(f"Training {key}: {len(found)} objects at {data_url}", flush=True)
        started = time.monotonic()
        fetch_pictures(s3, found, base / "input" / "data" / "training")
        checkpoints = S3Folder.at(s3, checkpoint_url) / key if checkpoint_url else None
        with mirrored(s3, base / SageMaker.checkpoints().name, checkpoints):
            status = run_job(base, flags)
        if status == STOPPED:
            raise KeyboardInterrupt
        if status:
            raise DogbreedError(f"The training ended with status {status}", "The lines above say why.")
        upload_results(base, results, {"data": data_url, "settings": settings, "seconds": time.monotonic() - started})
        shutil.rmtree(base)
    print(f"The model is {results.url('model.tar.gz')}", flush=True)
    write_text(work / "done", results.url("model.tar.gz") + "\n")


def upload_results(base: Path, results: S3Folder, facts: dict[str, Any]) -> None:
    from dogbreed.model import pack

    pack(base / "model", base / "model.tar.gz")
    write_json(base / "done.json", {"model": results.url("model.tar.gz"), **facts})
    for path in ("model.tar.gz", "model/metrics.json", "output/data/report.html", "done.json"):
        results.upload(base / path, Path(path).name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dogbreed.ec2_train", allow_abbrev=False, fromfile_prefix_chars="@", description=__doc__,
        epilog="Further --NAME=VALUE are settings of the training, see `dogbreed train --help`. @FILE holds arguments, "
        "one in a line.", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data-url", required=True, help="the pictures: a folder in S3, or an archive")
    parser.add_argument("--output-url", required=True, help="the folder in S3 that gets a folder of results")
    parser.add_argument("--checkpoint-url", help="a folder in S3 for checkpoints; default: on the disk only")
    parser.add_argument("--work", type=Path, default=Path("runs/ec2"), help="the folder to work in")
    parser.add_argument("--log-group", help="CloudWatch log group that gets what is printed, too")
    parser.add_argument("--log-stream", default=socket.gethostname(), help="its stream; default: the host's name")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 trained, 1 failed, 2 called wrongly, 130 stopped (the same call goes on)."""
    options, flags = _parser().parse_known_args(arguments)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with logged(options.log_group, options.log_stream):
            return _main(options, flags)
    finally:
        signal.signal(signal.SIGTERM, before)


def _main(options: argparse.Namespace, flags: list[str]) -> int:
    try:
        train_once(
            data_url=options.data_url,
            output_url=options.output_url,
            checkpoint_url=options.checkpoint_url,
            work=options.work,
            flags=flags,
        )
    except KeyboardInterrupt:
        return _say("Stopped. What was done is kept: start the host again to go on.", STOPPED)
    except DogbreedError as error:
        return _say(str(error))
    except aws_errors() as error:
        return _say(f"AWS: {error}. Check the addresses, and the rights of the host's role.")
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return _say("The disk is full. Raise volume_gb.")
        traceback.print_exc()  # here, so that the log group has it
        return 1
    return 0


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(message: str, status: int = 1) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
