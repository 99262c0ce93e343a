"""`dogbreed infra`: checked before it starts, asked before it changes, stopped without harm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from dogbreed.aws import terraform as module
from dogbreed.aws.package import PACKAGES
from dogbreed.aws.repository import Repository
from dogbreed.aws.terraform import Terraform, local_environ
from dogbreed.errors import DogbreedError

ROOT = Path(__file__).parents[2]

# Stands in for Terraform: writes down how it was called, and does what `script.json` says for each command.
FAKE = f"""\
#!{sys.executable}
import json, os, signal, sys, time
from pathlib import Path
here = Path(__file__).parent
command = sys.argv[1]
script = json.loads((here / "script.json").read_text())
if [name for name in os.environ if name.startswith("TF_CLI_ARGS") or name == "TF_WORKSPACE"]:
    sys.exit("something changes this command")
if command == "version":
    print(json.dumps({{"terraform_version": script.get("version", "1.11.4")}}))
    sys.exit()
with (here / "calls.jsonl").open("a+") as file:
    file.seek(0)
    before = sum(json.loads(line)[0][0] == command for line in file)
    print(json.dumps([sys.argv[1:], dict(os.environ)]), file=file)
def told(kind, default):
    # what the script says of this command; of a list, what it says of this call
    value = script.get(kind, {{}}).get(command, default)
    return value[min(before, len(value) - 1)] if isinstance(value, list) else value
for argument in sys.argv[1:]:
    if argument.startswith("-out="):
        Path(argument[5:]).write_text("a plan")
if command in script.get("slow", []):
    signals = []
    signal.signal(signal.SIGINT, lambda *_: signals.append("INT"))
    signal.signal(signal.SIGTERM, lambda *_: signals.append("TERM"))
    (here / "started").touch()
    end = time.monotonic() + 30
    while not signals and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(1)  # writes its state; another signal would make it give up
    (here / "signals.json").write_text(json.dumps(signals))
    sys.exit(1)
print(told("says", ""))
print(told("errs", ""), file=sys.stderr)
sys.exit(told("exits", 0))
"""


class Fake:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set()
        (folder / "terraform").write_text(FAKE)
        (folder / "terraform").chmod(0o755)

    def set(self, **script: Any) -> None:
        (self.folder / "script.json").write_text(json.dumps(script))

    @property
    def calls(self) -> list[tuple[list[str], dict[str, str | None]]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def commands(self) -> list[str]:
        return [arguments[0] for arguments, _ in self.calls]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return Fake(tmp_path / "bin")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    root = tmp_path / "repository"
    (root / "terraform" / "environments").mkdir(parents=True)
    (root / "terraform" / "versions.tf").write_text('terraform {\n  required_version = ">= 1.11"\n}\n')
    for name in ("local", "dev"):
        (root / "terraform" / "environments" / f"{name}.tfvars").write_text(f'environment = "{name}"\n')
    (root / "python").mkdir()
    shutil.copy(ROOT / "python" / "pyproject.toml", root / "python")
    (root / "build").mkdir()
    for name in PACKAGES:
        (root / "build" / name).touch()
    yield Repository(root)
    from localaws import server

    server.down(root / ".local-aws")


@pytest.fixture
def dev(fake: Fake, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Terraform:
    """The environment dev of an account that exists, with its packages built."""
    monkeypatch.setattr(module, "_account", lambda region: "111122223333")
    monkeypatch.setattr(module, "_check_bucket", lambda name, region: None)
    monkeypatch.setattr(Terraform, "package", lambda self, rebuild: None)
    return Terraform("dev", repository)


# ---------------------------------------------------------------------------------------------- before it starts


def test_no_terraform_is_one_clear_line(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(DogbreedError, match=r"no `terraform` on the PATH.* Install Terraform 1\.11"):
        Terraform("dev", repository)


@pytest.mark.parametrize(("version", "good"), [("1.10.5", False), ("0.15.0", False), ("1.11.0", True), ("2.0.0", True)])
def test_an_old_terraform_is_one_clear_line(version: str, good: bool, fake: Fake, repository: Repository) -> None:
    fake.set(version=version)
    if good:
        Terraform("dev", repository)
        return
    with pytest.raises(DogbreedError, match=rf"Terraform {version} is too old\. Install"):
        Terraform("dev", repository)


def test_an_unknown_environment_names_the_known_ones(fake: Fake, repository: Repository) -> None:
    with pytest.raises(DogbreedError, match=r"no environment 'staging'.* dev, local"):
        Terraform("staging", repository)


def test_no_credentials_is_one_clear_line(fake: Fake, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Credentials that something else in this process has used are not those of the environment.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", boto3.Session("another", "secret"))
    with pytest.raises(DogbreedError, match=r"no usable AWS credentials.* ENV=local, which needs none"):
        Terraform("dev", repository).init()
    assert fake.commands == []


@pytest.mark.parametrize(("code", "says"), [("ExpiredToken", "have expired"), ("InvalidClientTokenId", "are refused")])
def test_credentials_that_do_not_work_are_one_clear_line(code: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    class Sts:
        def get_caller_identity(self) -> None:
            raise ClientError({"Error": {"Code": code, "Message": ""}}, "GetCallerIdentity")

        def close(self) -> None: ...

    monkeypatch.setattr(boto3, "Session", lambda: SimpleNamespace(client=lambda *_, **__: Sts()))
    with pytest.raises(DogbreedError, match=rf"credentials {says}.*Sign in again"):
        module._account("us-east-1")


def test_an_unreachable_aws_is_known_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    began = time.monotonic()
    with pytest.raises(DogbreedError, match="AWS cannot be reached"):
        module._account("us-east-1")
    assert time.monotonic() - began < 10


def test_a_missing_state_bucket_says_to_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    class S3:
        code = "404"

        def head_bucket(self, Bucket: str) -> None:
            raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "HeadBucket")

        def close(self) -> None: ...

    monkeypatch.setattr(boto3, "Session", lambda: SimpleNamespace(client=lambda *_, **__: S3()))
    with pytest.raises(DogbreedError, match=r"no bucket states for Terraform's state yet.*bootstrap"):
        module._check_bucket("states", "us-east-1")
    S3.code = "403"
    with pytest.raises(DogbreedError, match=r"may not be read \(403\)"):
        module._check_bucket("states", "us-east-1")


def test_missing_packages_are_built_before_a_plan(
    dev: Terraform, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    built: list[Repository] = []
    monkeypatch.setattr(module, "package", lambda r: built.append(r))
    dev.package(rebuild=False)
    assert built == [], "all are there"
    (repository.build / "lambda.zip").unlink()
    dev.package(rebuild=False)
    dev.package(rebuild=True)
    assert built == [repository, repository]


# ---------------------------------------------------------------------------------------------- what it runs


def test_each_environment_has_a_state_and_a_folder_of_its_own(
    dev: Terraform, fake: Fake, repository: Repository
) -> None:
    dev.init()
    arguments, environ = fake.calls[0]
    assert "-backend-config=bucket=terraform-state-dogbreed-111122223333-us-east-1" in arguments
    assert "-backend-config=key=dogbreed/dev/terraform.tfstate" in arguments
    assert "-reconfigure" in arguments
    assert environ["TF_DATA_DIR"] == str(repository.terraform / ".terraform" / "dev")
    (repository.terraform / "environments" / "dev.tfbackend").write_text('bucket = "elsewhere"\nregion = "eu-west-1"\n')
    dev.init()
    assert (
        "-backend-config=bucket=elsewhere" in fake.calls[1][0]
        and "-backend-config=region=eu-west-1" in fake.calls[1][0]
    )


def test_init_runs_only_when_something_it_reads_has_changed(dev: Terraform, fake: Fake, repository: Repository) -> None:
    dev.init()
    dev.init()
    assert fake.commands == ["init"]
    (repository.terraform / "main.tf").write_text('module "a" {\n  source = "./a"\n}\n')
    dev.init()
    (repository.terraform / ".terraform.lock.hcl").write_text("# another provider\n")
    dev.init()
    assert fake.commands == ["init"] * 3
    (repository.terraform / "other.tf").write_text("locals {}\n")
    dev.init()
    assert fake.commands == ["init"] * 3
    (repository.terraform / "versions.tf").write_text('terraform {\n  backend "s3" {\n    encrypt = true\n  }\n}\n')
    dev.init()
    assert fake.commands == ["init"] * 4


@pytest.mark.parametrize("command", ["plan", "show"])
def test_init_runs_again_once_where_terraform_asks_for_it(command: str, dev: Terraform, fake: Fake) -> None:
    asks = 'Error: Backend initialization required, please run "terraform\n│ init"'
    fake.set(exits={command: [1, 0]}, errs={command: [asks, ""]}, says={"show": "{}"})
    assert dev.plan() is False if command == "plan" else dev.output() == {}
    assert fake.commands == ["init", command, "init", command]
    fake.set(exits={command: 1}, errs={command: asks})
    with pytest.raises(DogbreedError):
        dev.plan() if command == "plan" else dev.output()
    assert fake.commands[4:] == [command, "init", command]


def test_what_changes_terraforms_commands_does_not_reach_it(
    dev: Terraform, fake: Fake, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TF_CLI_ARGS", "TF_CLI_ARGS_plan", "TF_WORKSPACE"):
        monkeypatch.setenv(name, "-destroy")
    assert Terraform("dev", repository).plan() is False


def test_a_failed_init_is_shown_and_tried_again(dev: Terraform, fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.set(exits={"init": 1}, errs={"init": "no such provider"})
    with pytest.raises(DogbreedError, match="`terraform init` failed"):
        dev.init()
    assert "no such provider" in capfd.readouterr().err
    fake.set()
    dev.init()
    assert fake.commands == ["init", "init"]


@pytest.mark.parametrize(("status", "changes"), [(0, False), (2, True)])
def test_plan_says_whether_there_are_changes(
    status: int, changes: bool, dev: Terraform, fake: Fake, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.set(exits={"plan": status}, says={"plan": "what would change"})
    assert dev.plan() is changes
    assert "what would change" in capfd.readouterr().out, "Terraform's own words are shown"
    assert "-detailed-exitcode" in fake.calls[-1][0]
    assert f"-var-file={dev.repository.terraform}/environments/dev.tfvars" in fake.calls[-1][0]


def test_a_plan_that_fails_is_an_error(dev: Terraform, fake: Fake) -> None:
    fake.set(exits={"plan": 1})
    with pytest.raises(DogbreedError, match="could not make a plan"):
        dev.plan()


def test_apply_carries_out_the_plan_that_was_shown_and_removes_it(dev: Terraform, fake: Fake) -> None:
    fake.set(exits={"plan": 2})
    dev.plan()
    assert dev.plan_file.exists()
    dev.apply()
    arguments, _ = fake.calls[-1]
    assert arguments[0] == "apply" and arguments[-1] == str(dev.plan_file)
    assert not dev.plan_file.exists(), "it holds secret values"


def test_a_plan_is_its_makers_alone(dev: Terraform, fake: Fake, repository: Repository) -> None:
    fake.set(exits={"plan": 2})
    other = Terraform("dev", repository)
    dev.plan()
    mine = dev.plan_file.read_bytes()
    other.plan()
    assert other.plan_file != dev.plan_file and other.plan_file.parent.stat().st_mode & 0o77 == 0
    other.apply()
    assert dev.plan_file.read_bytes() == mine
    folder = other.plan_file.parent
    del other
    assert not folder.exists()


def test_a_failed_apply_is_an_error(dev: Terraform, fake: Fake) -> None:
    fake.set(exits={"plan": 2, "apply": 1})
    dev.plan()
    with pytest.raises(DogbreedError, match="did not finish in dev"):
        dev.apply()
    assert not dev.plan_file.exists()


BUCKET = 'module.storage.aws_s3_bucket.this["data"]'


def state(*, force_destroy: bool, others: bool = True) -> str:
    """What `terraform show` says of an environment."""
    values = {"bucket": "pictures", "force_destroy": force_destroy}
    bucket = {"mode": "managed", "address": BUCKET, "values": values}
    role = {"mode": "managed", "address": "module.network[0].module.inner.aws_iam_role.this", "values": {"name": "job"}}
    looked_up = {"mode": "data", "values": {"account_id": "123456789012"}}
    modules = [{"address": "module.storage", "resources": [bucket]}]
    if others:
        inner = {"address": "module.network[0].module.inner", "resources": [role]}
        modules += [{"address": "module.network[0]", "child_modules": [inner]}]
    resources = [{**role, "address": "aws_ssm_parameter.deployment"}] if others else []
    data = {"address": "data.aws_partition.current", **looked_up}
    outputs = {"endpoint": {"value": "dogbreed-dev", "type": "string", "sensitive": False}}
    root = {"resources": [*resources, data], "child_modules": modules}
    return json.dumps({"values": {"outputs": outputs, "root_module": root}})


def test_destroy_leaves_the_data_and_all_that_protects_it(dev: Terraform, fake: Fake) -> None:
    fake.set(exits={"plan": 2}, says={"show": state(force_destroy=False), "console": "false"})
    assert dev.plan_destroy()
    arguments, _ = fake.calls[-1]
    assert "-destroy" in arguments
    assert sorted(a for a in arguments if a.startswith("-target=")) == [
        "-target=aws_ssm_parameter.deployment",
        "-target=module.network[0]",
    ]
    assert "buckets stay" in dev.what_stays


def test_destroy_has_nothing_to_do_where_only_data_is_left(dev: Terraform, fake: Fake) -> None:
    fake.set(exits={"plan": 2}, says={"show": state(force_destroy=False, others=False), "console": "false"})
    assert not dev.plan_destroy()
    assert "plan" not in fake.commands


def plan_of(**changes: tuple[dict[str, Any] | None, dict[str, Any] | None]) -> str:
    """What `terraform show` says of a plan: for each kind of resource what was and what is to be."""
    actions = {(True, True): "update", (True, False): "delete", (False, True): "create"}
    return json.dumps({
        "resource_changes": [
            {
                "address": BUCKET if kind == "bucket" else f"aws_{kind}.this",
                "change": {"actions": [actions[bool(was), bool(to_be)]], "before": was, "after": to_be,
                           "after_unknown": {"cors": []}},
            }
            for kind, (was, to_be) in changes.items()
        ]
    })  # fmt: skip


KEPT, FREED = {"name": "data", "force_destroy": False}, {"name": "data", "force_destroy": True}
UNLOCK = plan_of(bucket=(KEPT, FREED))
REMOVAL = plan_of(bucket=(KEPT, None), role=({"name": "job"}, None))


def test_destroy_takes_the_data_only_where_the_environment_says_so(dev: Terraform, fake: Fake) -> None:
    shows = [state(force_destroy=False), REMOVAL, UNLOCK, REMOVAL]
    fake.set(exits={"plan": [2, 0]}, says={"show": shows, "console": "true"})
    assert dev.plan_destroy()
    assert not any(a.startswith("-target=") for a in fake.calls[-1][0])
    assert "apply" not in fake.commands, "nothing changes before the question"
    assert "All data in dev goes too" in dev.what_stays
    asked = len(fake.calls)
    dev.apply()
    assert fake.commands[asked:] == ["show", "plan", "show", "apply", "plan", "show", "apply"]
    calls = [arguments for arguments, _ in fake.calls[asked:]]
    assert f"-target={BUCKET}" in calls[1] and "-destroy" not in calls[1]
    assert "-destroy" in calls[4] and not any(a.startswith("-target=") for a in calls[4])
    for plan in (fake.calls[asked - 1][0], calls[4]):  # of two values the last counts
        of_file = next(i for i, argument in enumerate(plan) if argument.startswith("-var-file="))
        assert any("check_image=false" in argument for argument in plan[of_file + 1 :])
    assert not dev.plan_file.exists()


@pytest.mark.parametrize(
    ("unlock", "removal", "exits", "says", "applied"),
    [
        (plan_of(bucket=(KEPT, {**FREED, "name": "b"})), REMOVAL, {}, "more: name of .*Nothing was changed", 0),
        (plan_of(bucket=(KEPT, FREED), topic=({}, {"name": "a"})), REMOVAL, {}, "create of .*make apply ENV=dev", 0),
        (UNLOCK, plan_of(bucket=(KEPT, None)), {}, "no longer what was shown.*Nothing was removed", 1),
        (UNLOCK, REMOVAL, {"apply": 1}, "`terraform apply` failed.*Nothing was removed, but", 1),
        (UNLOCK, REMOVAL, {"plan": [2, 1]}, "`terraform plan` failed.*nothing was changed", 0),
        (UNLOCK, REMOVAL, {"plan": [2, 0, 1]}, "`terraform plan` failed.*Nothing was removed, but", 1),
    ],
)  # fmt: skip
def test_destroy_removes_what_was_shown_or_says_what_was_done(
    unlock: str, removal: str, exits: dict[str, Any], says: str, applied: int, dev: Terraform, fake: Fake
) -> None:
    shows = [state(force_destroy=False), REMOVAL, unlock, removal]
    fake.set(exits={"plan": [2, 0], **exits}, says={"show": shows, "console": "true"})
    assert dev.plan_destroy()
    with pytest.raises(DogbreedError, match=says):
        dev.apply()
    assert fake.commands.count("apply") == applied
    assert not dev.plan_file.exists()


def test_destroy_changes_nothing_where_the_buckets_know_it_already(dev: Terraform, fake: Fake) -> None:
    fake.set(exits={"plan": 2}, says={"show": state(force_destroy=True), "console": "true"})
    assert dev.plan_destroy()
    dev.apply()
    assert fake.commands == ["init", "show", "console", "plan", "apply"]


def test_outputs_are_values_by_name_whatever_terraform_logs(dev: Terraform, fake: Fake) -> None:
    fake.set(says={"show": state(force_destroy=False)}, errs={"show": "[INFO] Terraform version: 1.11.4"})
    assert dev.output() == {"endpoint": "dogbreed-dev"}
    assert fake.commands == ["init", "show"]


def test_there_are_no_outputs_where_only_data_is_left_or_nothing(dev: Terraform, fake: Fake) -> None:
    fake.set(says={"show": state(force_destroy=False, others=False)})
    assert dev.output() == {}
    fake.set(says={"show": '{"format_version": "1.0"}'})
    assert dev.output() == {}


# ---------------------------------------------------------------------------------------------- asking and stopping


def infra(
    repository: Repository, *arguments: str, through: tuple[str, ...] = (), **options: Any
) -> subprocess.Popen[str]:
    code = textwrap.dedent("""
        import sys
        from dogbreed.aws import terraform as module
        module._account = lambda region: "111122223333"
        module._check_bucket = lambda name, region: None
        module.Terraform.package = lambda self, rebuild: None
        from dogbreed.cli import main
        main(["infra", *sys.argv[1:]])
    """)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*through, sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=repository.root, **{**pipes, **options})


def test_nothing_changes_unasked(fake: Fake, repository: Repository) -> None:
    fake.set(exits={"plan": 2})
    process = infra(repository, "apply", "--env", "dev")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "so nothing was changed. Add --yes" in err and "apply" not in fake.commands
    process = infra(repository, "apply", "--env", "dev", "--yes")
    process.communicate(timeout=60)
    assert process.returncode == 0 and fake.commands[-1] == "apply"


def test_no_changes_means_no_question_and_no_apply(fake: Fake, repository: Repository) -> None:
    process = infra(repository, "apply", "--env", "dev")
    process.communicate(timeout=60)
    assert process.returncode == 0 and fake.commands == ["init", "plan"]


def started(fake: Fake) -> None:
    end = time.monotonic() + 60
    while not (fake.folder / "started").exists() and time.monotonic() < end:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("send", "command", "slow"),
    [
        (signal.SIGINT, "apply", "apply"),
        (signal.SIGTERM, "apply", "apply"),
        (signal.SIGHUP, "apply", "apply"),
        (signal.SIGINT, "apply", "plan"),
        (signal.SIGINT, "destroy", "console"),
    ],
)
def test_being_stopped_reaches_terraform_once_and_waits_for_it(
    send: signal.Signals, command: str, slow: str, fake: Fake, repository: Repository
) -> None:
    fake.set(exits={"plan": 2}, slow=[slow], says={"show": state(force_destroy=False)})
    process = infra(repository, command, "--env", "dev", "--yes", start_new_session=True)
    started(fake)
    os.killpg(process.pid, send)  # as a terminal does: to the whole process group
    time.sleep(0.4)
    os.killpg(process.pid, send)  # an impatient second one
    _, err = process.communicate(timeout=30)
    assert json.loads((fake.folder / "signals.json").read_text()) == ["INT"]
    assert process.returncode == 130 and "saves its state" in err and "Stopped." in err and "Traceback" not in err
    assert not list((repository.terraform / ".terraform" / "dev").glob("plan-*"))


def test_a_closed_terminal_stops_nothing_that_runs_without_one(fake: Fake, repository: Repository) -> None:
    fake.set(exits={"plan": 2}, slow=["apply"])
    code = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    nohup = infra(repository, "apply", "--env", "dev", "--yes", through=(sys.executable, "-c", code))
    started(fake)
    nohup.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    nohup.send_signal(signal.SIGINT)
    assert nohup.communicate(timeout=30)[1].count("saves its state") == 1


# ---------------------------------------------------------------------------------------------- local AWS


def test_the_local_account_has_no_way_to_a_real_one() -> None:
    real = {"AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "t", "AWS_ENDPOINT_URL_S3": "https://real", "PATH": "/bin"}
    environ = local_environ(real)
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"} & set(environ)
    assert environ["PATH"] == "/bin" and environ["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull


def test_the_local_environment_does_not_depend_on_settings_of_aws(
    fake: Fake, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from localaws import server

    monkeypatch.setattr(server, "status", lambda state: None)
    monkeypatch.setattr(server, "up", lambda *_: SimpleNamespace(environment={"AWS_ENDPOINT_URL": "http://local"}))
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_USE_FIPS_ENDPOINT", "AWS_STS_REGIONAL_ENDPOINTS"):
        monkeypatch.setenv(name, "nowhere")
    environ = Terraform("local", repository).environ
    assert {name for name in environ if name.startswith("AWS_")} == {
        "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE",
    }  # fmt: skip


def test_a_taken_port_says_what_to_run(repository: Repository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(DogbreedError, match=r"cannot be used .*`dogbreed local up --port 0` first") as error:
            module.local_up(repository, port=taken.getsockname()[1])
        assert "\n" not in str(error.value)
    running = module.local_up(repository, port=0)
    with pytest.raises(DogbreedError, match=rf"runs already, at {running.url}\. Run `dogbreed local down` first"):
        module.local_up(repository, port=running.port - 1)
    assert module.local_up(repository).port == running.port


@pytest.mark.slow
def test_the_local_environment_applies_and_replans_clean_with_the_real_terraform(repository: Repository) -> None:
    versions = (ROOT / "terraform" / "versions.tf").read_text()
    assert 'backend "s3"' in versions
    (repository.terraform / "versions.tf").write_text(versions)
    (repository.terraform / "modules" / "storage").mkdir(parents=True)
    (repository.terraform / "modules" / "storage" / "main.tf").write_text(
        'variable "delete" { type = bool }\n'
        'resource "aws_s3_bucket" "this" {\n  bucket = "pictures"\n  force_destroy = var.delete\n}\n'
    )
    (repository.terraform / "main.tf").write_text(
        'variable "environment" { type = string }\n'
        'module "storage" {\n  source = "./modules/storage"\n'
        "  delete = coalesce(var.data.delete_on_destroy, false)\n}\n"
        'variable "data" {\n  type = object({ delete_on_destroy = optional(bool) })\n  default = {}\n}\n'
        'variable "check_image" {\n  default = true\n}\n'
        'resource "aws_sns_topic" "this" { name = "of-${var.environment}" }\n'
        'output "arn" { value = aws_sns_topic.this.arn }\n'
    )
    terraform = Terraform("local", repository)
    terraform.package = lambda rebuild: None  # type: ignore[method-assign]
    module.local_up(repository, port=0)  # beside one that may run on the usual port
    assert terraform.plan()
    terraform.apply()
    assert terraform.output() == {"arn": "arn:aws:sns:us-east-1:123456789012:of-local"}
    assert not terraform.plan()
    from localaws import server

    server.down(
        repository.root / ".local-aws"
    )  # the account and its state go together: it begins anew, without an error
    running = module.local_up(repository, port=0)
    again = Terraform("local", repository)
    again.package = terraform.package  # type: ignore[method-assign]
    assert again.plan()
    again.apply()
    assert again.plan_destroy()
    again.apply()
    assert again.output() == {}, "the bucket stays, and with it the outputs in the state"
    s3 = boto3.client(
        "s3", endpoint_url=running.url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
    )
    s3.put_object(Bucket="pictures", Key="a.jpg", Body=b"a picture")
    with (repository.terraform / "environments" / "local.tfvars").open("a") as file:
        file.write("data = { delete_on_destroy = true }\n")
    told = Terraform("local", repository)
    told.package = terraform.package  # type: ignore[method-assign]
    assert told.plan_destroy()
    told.apply()
    assert "pictures" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
