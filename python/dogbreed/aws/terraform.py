"""Terraform for one environment: checked before it starts, watched while it runs, stopped without harm to its state."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dogbreed.aws.package import PACKAGES, package
from dogbreed.aws.provider_mirror import cli_configuration
from dogbreed.aws.repository import Repository
from dogbreed.errors import DogbreedError
from dogbreed.files import write_text

LOCAL = "local"
OLDEST = (1, 11)
DATA = "module.storage"  # where the root keeps it
# Attributes that exist in the state alone: whether Terraform may empty a bucket, or an image repository, to delete it.
GUARDS = {"force_destroy", "force_delete"}
UNCHECKED = "check_image=false"  # what is to be removed needs no image that is there

_SOURCES = re.compile(r"^.*\b(?:source|version)\b.*=.*$", re.M)


class Terraform:
    """Terraform with the state, the variables and the account of one environment.

    >>> terraform = Terraform("dev", Repository.find())
    >>> if terraform.plan():
    ...     terraform.apply()
    """

    def __init__(self, environment: str, repository: Repository) -> None:
        known = repository.environments
        if environment not in known:
            raise DogbreedError(
                f"There is no environment {environment!r}",
                f"Choose one of {', '.join(known)}, or write {repository.terraform}/environments/{environment}.tfvars.",
            )
        self.environment = environment
        self.repository = repository
        self.data = repository.terraform / ".terraform" / environment
        self._guarded: list[str] = []
        _check_version()

    # ------------------------------------------------------------------------------------------ commands

    def plan(self, out: Path | None = None) -> bool:
        """Shows what would change and saves the plan to `out` or where `apply` finds it; False if nothing would."""
        self.package(rebuild=True)
        self.init()
        self._guarded = []
        return self._plan(out=str((out or self.plan_file).absolute()))

    def plan_destroy(self) -> bool:
        """Shows what would be removed and saves that plan; False if nothing would.

        Data stays unless the environment says otherwise, with all that protects it: buckets, their rules and their key.
        Terraform alone would strip the buckets of all that before it finds that one of them is not empty.
        """
        self.package(rebuild=False)
        self.init()
        made = self._made()
        if not self.deletes_data:
            made.pop(DATA, None)
        if not made:
            return False
        everything = [resource for resources in made.values() for resource in resources]
        guarded = [r["address"] for r in everything if any(r["values"].get(name) is False for name in GUARDS)]
        self._guarded = guarded if self.deletes_data else []
        targets = [] if self.deletes_data else sorted(made)
        return self._plan(destroy=True, target=targets, out=str(self.plan_file), var=UNCHECKED)

    @cached_property
    def deletes_data(self) -> bool:
        """Whether the environment lets `destroy` remove the data too."""
        question = "coalesce(var.data.delete_on_destroy, false)"
        return self._read("console", stdin=question, var_file=self._variables).split()[-1:] == ["true"]

    @property
    def what_stays(self) -> str:
        """What `plan_destroy` leaves, in words for the person who is asked."""
        if self.deletes_data:
            return f"All data in {self.environment} goes too: pictures, models, and every old version of them."
        return (
            "The buckets stay, with the key that reads them: data is never removed unless told to. "
            f"To remove that too, set data = {{ delete_on_destroy = true }} in {self._variables} and run this again."
        )

    def plan_json(self, plan: Path | None = None) -> dict[str, Any]:
        """The saved plan, as `terraform show -json` tells it."""
        return dict(json.loads(self._read("show", str((plan or self.plan_file).absolute()), json=True)))

    def apply(self) -> None:
        """Carries out the saved plan, whichever it is; Terraform refuses one that the state has outrun."""
        try:
            if self._guarded:
                self._release(self._guarded)
            if self._run("apply", str(self.plan_file), lock_timeout="60s"):
                raise DogbreedError(
                    f"Terraform did not finish in {self.environment}",
                    "Its message above says why. What was done is in the state: run it again when the cause is mended.",
                )
        finally:
            self.forget_plan()

    def _release(self, guarded: list[str]) -> None:
        """Lets what the saved plan removes be emptied first, and makes that plan anew: the same one.

        Terraform empties a bucket if the state says that it may. Writing it there changes nothing in AWS.
        """
        options: dict[str, Any] = {"var_file": self._variables, "lock_timeout": "60s", "out": str(self.plan_file)}
        shown = _removed(self.plan_json())
        self._read("plan", target=guarded, **options)
        if more := _changed(self.plan_json()) - {(address, name) for address in guarded for name in GUARDS}:
            raise DogbreedError(
                f"The buckets cannot be made ready to be emptied without changing more: {' of '.join(min(more)[::-1])}",
                f"Nothing was changed. Run `make apply ENV={self.environment}` first, then destroy again.",
            )
        try:
            self._read("apply", str(self.plan_file), lock_timeout="60s")
            self._read("plan", destroy=True, **options, var=UNCHECKED)  # of two values the last counts
            if _removed(self.plan_json()) != shown:
                raise DogbreedError("What would be removed is no longer what was shown", "")
        except DogbreedError as error:
            so_far = "Nothing was removed, but the state may say now that buckets may be emptied. Run it again."
            raise DogbreedError(error.problem, so_far) from None

    @cached_property
    def plan_file(self) -> Path:
        """Where `plan` leaves what `apply` takes: this process's own, and gone with it."""
        self.data.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=self.data, prefix="plan-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder) / "plan.tfplan"

    def forget_plan(self) -> None:
        """Removes the saved plan: it holds every value, secret ones too."""
        self.plan_file.unlink(missing_ok=True)

    def output(self) -> dict[str, Any]:
        """The outputs by name; empty before the first apply and after a removal, which may leave them in the state."""
        self.init()
        state = self._state()
        outputs = state.get("outputs", {}) if self._made(state).keys() - {DATA} else {}
        return {name: output["value"] for name, output in outputs.items()}

    def init(self) -> None:
        """Gets the provider and the backend ready; at once where nothing has changed since the last time."""
        settings = self._backend()
        stamp = self._stamp
        if stamp.is_file() and stamp.read_text() == self._digest(settings):
            return
        print(f"Initialising Terraform for {self.environment} …", file=sys.stderr)
        stamp.unlink(missing_ok=True)
        # -reconfigure: a backend that another run left behind is never asked to hand over its state.
        options: dict[str, Any] = {"backend_config": [f"{k}={v}" for k, v in settings.items()], "reconfigure": True}
        self._read("init", **options)
        write_text(stamp, self._digest(settings))  # with the lock file that it may just have written

    def package(self, *, rebuild: bool) -> None:
        """Builds what Terraform uploads; without `rebuild` only where a file is missing."""
        missing = [name for name in PACKAGES if not (self.repository.build / name).is_file()]
        if rebuild or missing:
            package(self.repository)

    # ------------------------------------------------------------------------------------------ settings

    @property
    def is_local(self) -> bool:
        return self.environment == LOCAL

    def variable(self, name: str, default: str) -> str:
        """A plain text variable of the environment's file, else `default`."""
        return _settings(self._file("tfvars")).get(name, default)

    @property
    def region(self) -> str:
        return self.variable("region", "us-east-1")

    @property
    def project(self) -> str:
        return self.variable("project", "dogbreed")

    @cached_property
    def environ(self) -> dict[str, str]:
        """The environment variables that Terraform runs with; starts the local AWS where it is meant."""
        ours = {
            "TF_DATA_DIR": str(self.data),
            "TF_CLI_CONFIG_FILE": str(cli_configuration(self.repository)),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
        }
        if not self.is_local:
            return {**_plain(os.environ), **ours, "AWS_REGION": self.region}
        region = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), self.region)
        server = local_up(self.repository, buckets=[self._local_bucket])
        return {**local_environ(os.environ), **ours, **server.environment, **region}

    def _backend(self) -> dict[str, str]:
        """Where the state lies: where bootstrap/ made room, unless a file <environment>.tfbackend says otherwise."""
        if self.is_local:
            bucket = self._local_bucket
        else:
            bucket = f"terraform-state-{self.project}-{_account(self.region)}-{self.region}"
        given = _settings(path) if (path := self._file("tfbackend")).is_file() else {}
        key = f"{self.project}/{self.environment}/terraform.tfstate"
        settings = {"bucket": bucket, "key": key, "region": self.region, **given}
        if not self.is_local:
            _check_bucket(settings["bucket"], settings["region"])
        return settings

    @property
    def _stamp(self) -> Path:
        """A file that says what the last `init` has read."""
        return self.data / "initialised"

    @property
    def _local_bucket(self) -> str:
        return f"{self.project}-local-tfstate"

    @property
    def _variables(self) -> str:
        return str(self._file("tfvars"))

    def _file(self, ending: str) -> Path:
        return self.repository.terraform / "environments" / f"{self.environment}.{ending}"

    def _digest(self, settings: dict[str, str]) -> str:
        """Changes with whatever `init` reads: the backend, the provider's source and version, the modules' sources."""
        root = self.repository.terraform
        files = [root / "versions.tf", root / ".terraform.lock.hcl", Path(self.environ["TF_CLI_CONFIG_FILE"])]
        sources = sorted(root.glob("*.tf")) + sorted((root / "modules").glob("*/*.tf"))
        read = [line for path in sources for line in _SOURCES.findall(path.read_text(encoding="utf-8"))]
        read += [path.read_text(encoding="utf-8") for path in files if path.is_file()]
        return hashlib.sha256(json.dumps([settings, read], sort_keys=True).encode()).hexdigest()

    # ------------------------------------------------------------------------------------------ running

    def _plan(self, **options: Any) -> bool:
        status = self._run("plan", var_file=self._variables, detailed_exitcode=True, lock_timeout="60s", **options)
        if status not in (0, 2):
            raise DogbreedError("Terraform could not make a plan", "Its message above says why; nothing was changed.")
        return status == 2

    def _state(self) -> dict[str, Any]:
        """The values in the state; empty before the first apply."""
        return dict(json.loads(self._read("show", json=True)).get("values", {}))

    def _made(self, state: dict[str, Any] | None = None) -> dict[str, list[dict[str, Any]]]:
        """What the state manages: the resources by the root's module or resource that they belong to."""
        root = (self._state() if state is None else state).get("root_module", {})
        made = {module["address"]: list(_managed(module)) for module in root.get("child_modules", [])}
        made |= {resource["address"]: [resource] for resource in _managed({**root, "child_modules": []})}
        return {name: resources for name, resources in made.items() if resources}

    def _run(self, command: str, *arguments: str, **options: Any) -> int:
        """Runs a command with its output where the user sees it."""
        return self._start(command, *arguments, capture=False, **options).returncode

    def _read(self, command: str, *arguments: str, stdin: str | None = None, **options: Any) -> str:
        """Runs a command for its output; if it fails, its messages are shown."""
        done = self._start(command, *arguments, capture=True, stdin=stdin, **options)
        if done.returncode:
            raise DogbreedError(f"`terraform {command}` failed", "Its message above says why; nothing was changed.")
        return done.stdout

    def _start(
        self, command: str, *arguments: str, capture: bool, stdin: str | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        from python_terraform import IsFlagged, IsNotFlagged
        from python_terraform import Terraform as CommandLine

        options["no_color"] = capture or not sys.stdout.isatty()
        flags = {k: (IsFlagged if v else IsNotFlagged) if isinstance(v, bool) else v for k, v in options.items()}
        line = CommandLine(working_dir=str(self.repository.terraform)).generate_cmd_string(command, *arguments, **flags)
        # An `apply` that takes long tells as it goes; what the others have to say comes at the end.
        pipes = {"stdout": capture, "stderr": capture or command != "apply"}
        run = partial(
            _run_alone, line, stdin, cwd=self.repository.terraform, env=self.environ,
            **{name: subprocess.PIPE if piped else None for name, piped in pipes.items()},
        )  # fmt: skip
        done = run()
        if done.returncode and command != "init" and re.search(r"terraform[\s│]+init\b", done.stderr):
            self._stamp.unlink(missing_ok=True)  # it missed a change
            self.init()
            done = run()
        if done.returncode or not capture:
            print(done.stderr, end="", file=sys.stderr)
        return done


def _run_alone(line: list[str], stdin: str | None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs Terraform to its end, whoever wants it to stop.

    In a session of its own: a second Ctrl-C of the terminal would make it drop what it is doing, and the state with it.
    It gets exactly one, whether we were sent that, ended (SIGTERM) or our terminal was closed (SIGHUP).
    """
    process: subprocess.Popen[str] | None = None
    asked, told = threading.Event(), threading.Lock()

    def stop(*_: object) -> None:
        asked.set()
        if process and told.acquire(blocking=False):
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the terminal is gone
            print("Terraform finishes what it has begun and saves its state. Please wait.", file=sys.stderr)

    with _handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), stop):
        source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        process = subprocess.Popen(line, stdin=source, text=True, start_new_session=True, **options)
        if asked.is_set():  # while it started
            stop()
        out, err = process.communicate(stdin)
    if asked.is_set():
        raise KeyboardInterrupt
    return subprocess.CompletedProcess(line, process.returncode, out or "", err or "")


@contextlib.contextmanager
def _handling(signals: tuple[signal.Signals, ...], handler: Callable[..., None]) -> Iterator[None]:
    """Handles these signals, but for those that are ignored: `nohup` means it."""
    before = {number: signal.getsignal(number) for number in signals}
    for number, former in before.items():
        if former is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _managed(module: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The managed resources in a module of the state, and in the modules below it."""
    yield from (resource for resource in module.get("resources", []) if resource["mode"] == "managed")
    for child in module.get("child_modules", []):
        yield from _managed(child)


def _removed(plan: Mapping[str, Any]) -> set[str]:
    """The addresses of what a plan removes."""
    return {c["address"] for c in plan.get("resource_changes", []) if "delete" in c["change"]["actions"]}


def _changed(plan: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What a plan changes: address and attribute, or what is done to the whole."""
    found = set()
    for address, change in ((c["address"], c["change"]) for c in plan.get("resource_changes", [])):
        if change["actions"] == ["update"]:
            before, after, unknown = change["before"], change["after"], change["after_unknown"]
            names = before.keys() | after.keys() | unknown.keys()
            found |= {(address, n) for n in names if before.get(n) != after.get(n) or unknown.get(n) is True}
        elif change["actions"] not in (["no-op"], ["read"]):
            found.add((address, " and ".join(change["actions"])))
    return found


def _settings(path: Path) -> dict[str, str]:
    """The plain `name = "text"` lines at the left margin of an HCL file."""
    return dict(re.findall(r'^(\w+)\s*=\s*"([^"$]*)"', path.read_text(encoding="utf-8"), re.M))


# ---------------------------------------------------------------------------------------------- checks


def _check_version() -> None:
    fix = f"Install Terraform {OLDEST[0]}.{OLDEST[1]} or newer: https://developer.hashicorp.com/terraform/install"
    if shutil.which("terraform") is None:
        raise DogbreedError("There is no `terraform` on the PATH", fix)
    environ = {**_plain(os.environ), "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull}
    done = subprocess.run(["terraform", "version", "-json"], capture_output=True, text=True, env=environ)
    found = re.search(r'"terraform_version":\s*"((\d+)\.(\d+)[^"]*)"', done.stdout)
    if not found:
        raise DogbreedError("`terraform version` does not work", fix)
    if (int(found[2]), int(found[3])) < OLDEST:
        raise DogbreedError(f"Terraform {found[1]} is too old", fix)


def _account(region: str) -> str:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        with _quick_client("sts", region) as sts:
            return str(sts.get_caller_identity()["Account"])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        what = "have expired" if "Expired" in code else f"are refused ({code})"
        fix = "Sign in again, for instance with `aws sso login`, or use ENV=local, which needs none."
        raise DogbreedError(f"The AWS credentials {what}", fix) from None
    except BotoCoreError as error:
        reason = str(error).rstrip(".")
        if type(error).__name__ in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError"):
            raise DogbreedError(f"AWS cannot be reached ({reason})", "Check the network, or use ENV=local.") from None
        raise DogbreedError(
            f"There are no usable AWS credentials ({reason})",
            "Sign in, for instance with `aws sso login` and AWS_PROFILE, or use ENV=local, which needs none.",
        ) from None


def _check_bucket(name: str, region: str) -> None:
    from botocore.exceptions import ClientError

    try:
        with _quick_client("s3", region) as s3:
            s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
            raise DogbreedError(
                f"There is no bucket {name} for Terraform's state yet",
                "Make it once: `terraform -chdir=terraform/bootstrap init`, then `apply` there.",
            ) from None
        raise DogbreedError(
            f"The bucket {name} of Terraform's state may not be read ({error.response['Error']['Code']})",
            "Use credentials of the account it belongs to.",
        ) from None


@contextlib.contextmanager
def _quick_client(service: str, region: str) -> Iterator[Any]:
    """A client that gives up after seconds: a check must not take longer than the work."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2})
    # Of a session of its own: the default one keeps the credentials that it has seen first.
    client = boto3.Session().client(service, region_name=region, config=config)
    try:
        yield client
    finally:
        client.close()


# ---------------------------------------------------------------------------------------------- local AWS


def _plain(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without what changes Terraform's commands behind our back."""
    return {k: v for k, v in environ.items() if k != "TF_WORKSPACE" and not k.startswith("TF_CLI_ARGS")}


def local_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without any setting of AWS: nothing in it names a real account, or another way to one."""
    kept = {k: v for k, v in _plain(environ).items() if not k.startswith("AWS_")}
    return {**kept, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_CONFIG_FILE": os.devnull}


def local_state(repository: Repository) -> Path:
    return repository.root / ".local-aws"


@contextlib.contextmanager
def local_server() -> Iterator[Any]:
    """The module that runs the local AWS, which is an extra; what it cannot do is for the user to mend."""
    try:
        from localaws import server
    except ImportError as error:
        raise DogbreedError(f"The local AWS cannot be used ({error})", "Run `pip install './python[local]'`.") from None
    try:
        yield server
    except server.LocalAwsError as error:
        fix = error.fix
        if "listen on port" in error.problem:
            fix = "Run `dogbreed local up --port 0` first: it takes a free port."
        raise DogbreedError(f"The local AWS cannot be used ({' '.join(error.problem.split())})", fix) from None


def local_up(repository: Repository, *, port: int | None = None, buckets: list[str] | None = None) -> Any:
    """The repository's local AWS, started where it does not run; with it went whatever was made in it before."""
    state = local_state(repository)
    with local_server() as server:
        running = server.status(state)
        if running and port not in (None, 0, running.port):
            raise DogbreedError(
                f"The local AWS runs already, at {running.url}",
                "Run `dogbreed local down` first; what was made in it goes with it.",
            )
        port = port if port is not None else running.port if running else server.PORT
        return server.up(port, state, buckets or [])
