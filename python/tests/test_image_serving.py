"""The image that answers requests, as far as it can be tried without Docker: its files, put together as its Dockerfile
says, run as processes of the Python that it has, by nobody in particular, with no network to call out to."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_package import find_python

from dogbreed.aws.package import SERVING, fetch_wheels, package, read_lock
from dogbreed.aws.repository import Repository
from dogbreed.train import Trained

ROOT = Path(__file__).parents[2]
REPOSITORY = Repository(ROOT)
FOLDER = ROOT / "docker" / "serving"
NOBODY = 65534

# Imported by every Python that has it on its path: writes down and refuses whatever leaves the machine.
NO_NETWORK = """
import os, socket
def refuse(what):
    with open(os.environ["CALLS_OUT"], "a") as file:
        print(what, file=file)
    raise OSError("the network is cut off")
connect, look_up = socket.socket.connect, socket.getaddrinfo
def local(host):
    return host in (None, "", "localhost", "0.0.0.0", "::1") or str(host).startswith("127.")
def guarded_connect(self, address):
    if self.family != socket.AF_UNIX and not local(address[0]):
        refuse(address)
    return connect(self, address)
def guarded_look_up(host, *arguments, **options):
    return look_up(host, *arguments, **options) if local(host) else refuse(host)
socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_look_up
"""


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with what they say, comments and line breaks aside."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def said(instruction: str) -> list[str]:
    return [what for name, what in instructions() if name == instruction]


def variables() -> dict[str, str]:
    return dict(part.split("=", 1) for what in said("ENV") for part in what.split())


# ------------------------------------------------------------------------------------------------ what it says


def test_runs_as_nobody_on_a_port_of_its_own_and_says_how_it_is() -> None:
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("CMD")
    assert said("USER") == ["10001"] and said("EXPOSE") == ["8080"] and said("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(said("CMD")[0]) == ["serve"], "SageMaker runs `docker run IMAGE serve`"
    assert said("ENTRYPOINT") == [], "`serve` would become the argument of something else"
    assert json.loads(said("HEALTHCHECK")[0].partition("CMD ")[2]) == ["healthcheck"]
    labels = said("LABEL")[0]
    assert "com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true" in labels
    assert labels.count("org.opencontainers.image.") >= 4


def test_is_built_from_the_python_that_its_wheels_are_for() -> None:
    (base,) = said("FROM")
    assert re.search(rf"/python:{re.escape(SERVING.python)}-slim-\w+$", base), base
    assert f'org.opencontainers.image.base.name="{base}"' in said("LABEL")[0]


def test_has_no_library_for_training() -> None:
    names = {wheel.requirement.partition("==")[0] for wheel in read_lock(SERVING.lock(REPOSITORY))}
    assert {"numpy", "openvino", "pillow", "prometheus-client", "starlette", "uvicorn"} <= names
    assert not names & {"torch", "torchvision", "timm", "scipy", "scikit-learn", "matplotlib", "optuna", "boto3"}


def imports(path: Path, *, lazy: bool) -> Iterator[str]:
    """The modules that a file imports, or with `lazy` may import later."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def test_all_that_the_server_may_import_is_in_the_image() -> None:
    package(REPOSITORY)
    with zipfile.ZipFile(REPOSITORY.build / "serving-image.zip") as archive:
        there = set(archive.namelist())
    queue = [("dogbreed/serve.py", True), ("dogbreed/cli.py", False), ("dogbreed/__main__.py", False)]
    seen: set[tuple[str, bool]] = set()
    while queue:
        seen.add(here := queue.pop())
        for module in imports(REPOSITORY.python / here[0], lazy=here[1]):
            files = (f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py")
            new = {(name, here[1]) for name in files if (REPOSITORY.python / name).is_file()}
            queue += new - seen
    needed = {name for name, _ in seen}
    assert {"dogbreed/serve.py", "dogbreed/model.py", "dogbreed/extractor.py"} <= needed
    assert needed <= there, f"take {sorted(needed - there)} out of NOT_SERVED"
    assert "dogbreed/page.html" in there
    assert not [name for name in there if name.startswith(("dogbreed/aws/", "dogbreed/train", "dogbreed/hpo"))]


@pytest.mark.parametrize("image", ["serving", "training"])
def test_the_dockerfile_has_no_finding_of_hadolint(image: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert hadolint, "pip install './python[test]' brings it"
    text = (ROOT / "docker" / image / "Dockerfile").read_text()
    assert "hadolint ignore" not in text
    done = subprocess.run([hadolint, "--no-color", "-"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_what_is_wrong() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    text = "FROM python:latest\nRUN pip install torch\nCMD serve\n"
    done = subprocess.run([hadolint, "--no-color", "-"], input=text, capture_output=True, text=True)
    assert done.returncode == 1
    assert all(rule in done.stdout for rule in ("DL3007", "DL3013", "DL3025")), done.stdout


# ------------------------------------------------------------------------------------------------ what it does


@dataclass
class Container:
    """The image's files in a folder, and the way to run a command in it."""

    base: Path

    @property
    def environ(self) -> dict[str, str]:
        """The image's own variables and nothing of ours, with its places moved into the folder."""
        ours = variables()
        assert ours.pop("PYTHONPATH") == "/opt/dogbreed" and ours.pop("HOME") == "/tmp"
        temporary = str(self.base / "tmp")
        return {
            **ours,
            "PYTHONPATH": f"{self.base / 'guard'}:{self.base / 'opt' / 'dogbreed'}",
            "PATH": f"{self.base / 'bin'}:{self.base / 'venv' / 'bin'}:/usr/bin:/bin",
            "SAGEMAKER_BASE_DIR": str(self.base / "ml"),
            "HOME": temporary,
            "TMPDIR": temporary,
            "CALLS_OUT": str(self.base / "tmp" / "calls-out"),
        }

    def start(self, *command: str | Path, **environ: str) -> subprocess.Popen[str]:
        """Runs a command as nobody, who may also read a Python that lies in root's home, and write nothing."""
        may_read = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        may_read += [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
        return subprocess.Popen(
            [*(may_read if os.geteuid() == 0 else []), *map(str, command)],
            cwd=self.base / "ml",
            env={**self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str | Path, **environ: str) -> tuple[int, str]:
        process = self.start(*command, **environ)
        out, _ = process.communicate(timeout=120)
        return process.returncode, out

    def files(self) -> set[Path]:
        """All but what its Python is made of."""
        return {path for path in self.base.rglob("*") if "venv" not in path.parts}


def may_grant_reading() -> bool:
    """Whether CAP_DAC_READ_SEARCH, number 2, is among what this process may have at all."""
    bounding = re.search(r"^CapBnd:\s*(\w+)", Path("/proc/self/status").read_text(), re.M)
    return bounding is not None and bool(int(bounding[1], 16) & 1 << 2)


@pytest.fixture(scope="module")
def container(trained: Trained) -> Iterator[Container]:
    interpreter = find_python(SERVING.python)
    if sys.platform != "linux" or interpreter is None:
        pytest.skip(f"the image's wheels are for Python {SERVING.python} on Linux, which is not here")
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("there is no setpriv to give up root's rights with")
    if os.geteuid() == 0 and not may_grant_reading():
        pytest.skip("root may not pass CAP_DAC_READ_SEARCH on here, so nobody could read a Python in root's home")
    with tempfile.TemporaryDirectory(prefix="container-") as folder:
        Path(folder).chmod(0o755)  # pytest's own folders are closed to others
        yield put_together(Path(folder), interpreter, trained.folder)


def put_together(base: Path, interpreter: str, model: Path) -> Container:
    package(REPOSITORY)
    with zipfile.ZipFile(REPOSITORY.build / "serving-image.zip") as archive:
        archive.extractall(base / "context")
    context, python = base / "context", base / "venv" / "bin" / "python"

    # As the Dockerfile installs them, but from what was downloaded once.
    wheels = fetch_wheels(REPOSITORY, SERVING)[0].parent
    (install,) = (what for what in said("RUN") if what.startswith("pip install"))
    options = re.split(r"\s+", install.partition("&&")[0].strip())[2:]
    assert {"--require-hashes", "--no-deps", "--no-cache-dir"} <= set(options)
    options = [option.replace("/tmp/requirements.txt", str(context / "requirements.txt")) for option in options]
    subprocess.run([interpreter, "-m", "venv", base / "venv"], check=True)
    pip = [python, "-m", "pip", "--isolated"]
    run: dict[str, Any] = {"check": True, "cwd": base, "stdout": subprocess.DEVNULL}
    subprocess.run([*pip, "install", "--no-index", "--find-links", wheels, *options], **run)
    subprocess.run([*pip, "check"], **run)
    subprocess.run([python, context / "slim.py"], **run)

    shutil.copytree(context / "dogbreed", base / "opt" / "dogbreed" / "dogbreed")
    (base / "bin").mkdir()
    shutil.copy(context / "serve", base / "bin" / "serve")
    (base / "bin" / "serve").chmod(0o755)
    (base / "guard").mkdir()
    (base / "guard" / "sitecustomize.py").write_text(NO_NETWORK)
    shutil.copytree(model, base / "ml" / "model")
    (base / "tmp").mkdir()
    if os.geteuid() == 0:
        os.chown(base / "tmp", NOBODY, NOBODY)
    return Container(base)


@pytest.mark.slow
def test_what_the_build_checks_is_true(container: Container) -> None:
    (checks,) = (what for what in said("RUN") if "import sys" in what)
    code, out = container.run("sh", "-c", checks)
    assert (code, out) == (0, "") and not (container.base / "tmp" / "calls-out").exists()


def ask(url: str, body: bytes | None = None, kind: str = "") -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": kind} if kind else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
def test_serves_what_sagemaker_lays_out_until_it_is_told_to_stop(container: Container, photos: Path) -> None:
    picture = next((photos / "test").rglob("*.jpg")).read_bytes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    url, health = f"http://127.0.0.1:{port}", container.base / "context" / "healthcheck.py"
    before = container.files()

    code, out = container.run("python", health, SAGEMAKER_BIND_TO_PORT=port)
    assert code == 1 and out.startswith("error: the server does not answer"), out

    server = container.start("serve", SAGEMAKER_BIND_TO_PORT=port)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                status, _ = ask(f"{url}/ping")
            except OSError:
                status = 0
            if status == 200:
                break
            assert server.poll() is None, server.communicate()[0]
            assert time.monotonic() < deadline, "it is not ready after a minute"
            time.sleep(0.1)
        assert container.run("python", health, SAGEMAKER_BIND_TO_PORT=port) == (0, "")

        status, answer = ask(f"{url}/invocations", picture, "image/jpeg")
        assert status == 200 and len(answer["predictions"]) == 4, answer
        assert abs(sum(p["probability"] for p in answer["predictions"]) - 1) < 1e-3
        as_json = json.dumps({"image": base64.b64encode(picture).decode(), "top_k": 1}).encode()
        assert ask(f"{url}/invocations", as_json, "application/json")[1]["predictions"] == answer["predictions"][:1]
        assert ask(f"{url}/invocations", b"no picture", "image/jpeg")[0] == 422

        for process in Path("/proc").glob("[0-9]*"):
            if process.name in {str(server.pid), *children(server.pid)}:
                assert os.geteuid() != 0 or process.stat().st_uid == NOBODY, "it runs as root"
                assert "torch" not in (process / "maps").read_text()

        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=30)
        assert server.returncode == 0, out
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    assert not (container.base / "tmp" / "calls-out").exists(), (container.base / "tmp" / "calls-out").read_text()
    assert container.files() == before, "it leaves something behind"


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.slow
def test_without_a_model_it_ends_with_one_line_that_says_so(container: Container, tmp_path: Path) -> None:
    code, out = container.run("serve", SAGEMAKER_BASE_DIR=str(tmp_path), SAGEMAKER_BIND_TO_PORT="1")
    assert code == 1
    assert out.startswith("error: ") and "Traceback" not in out and str(tmp_path / "model") in out, out
