"""The notebook's bundle becomes a Jupyter kernel, with no internet and no package index."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "terraform" / "modules" / "notebook" / "scripts" / "install.sh"
ADDRESS = "s3://bucket/code/notebook.tar.gz"

# Says where it was asked to put a kernel, like ipykernel does.
IPYKERNEL = "import pathlib, sys\npathlib.Path(sys.prefix, 'kernel').write_text(' '.join(sys.argv[1:]))\n"


def wheel(name: str, code: str) -> bytes:
    buffer = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(f"{name}/__main__.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


class Machine:
    """A notebook whose `aws s3 cp` copies a bundle that lies here."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bundle, self.commands = folder / "home" / "dogbreed", folder / "bundle.tar.gz", folder / "bin"
        with tarfile.open(self.bundle, "w:gz") as archive:
            for name, content in {
                "dogbreed/__init__.py": b"__version__ = 'of the bundle'\n",
                "requirements.txt": b"--no-index\n--find-links wheels\nipykernel\n",
                "wheels/ipykernel-1.0-py3-none-any.whl": wheel("ipykernel", IPYKERNEL),
            }.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        self.sha256 = hashlib.sha256(self.bundle.read_bytes()).hexdigest()
        self.commands.mkdir()
        aws = self.commands / "aws"
        aws.write_text(
            f'#!/bin/bash\n[ "$1 $2 $4" = "s3 cp s3://bucket/code/notebook.tar.gz" ] && cp {self.bundle} "$5"\n'
        )
        aws.chmod(0o755)

    def install(self, sha256: str | None = None) -> tuple[int, str]:
        command = [
            "bash",
            SCRIPT,
            "s3://bucket/code/notebook.tar.gz",
            sha256 or self.sha256,
            sys.executable,
            self.folder,
        ]
        environment = {"PATH": f"{self.commands}:/usr/bin:/bin", "HOME": str(self.folder.parent)}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        return result.returncode, result.stdout + result.stderr


@pytest.mark.slow
def test_bundle_becomes_a_kernel_and_is_installed_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    status, said = machine.install()

    assert status == 0, said
    python = machine.folder / "venv" / "bin" / "python"
    assert (machine.folder / "venv" / "kernel").read_text() == "install --user --name dogbreed --display-name dogbreed"
    version = subprocess.run(
        [python, "-c", "import dogbreed; print(dogbreed.__version__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert version.stdout == "of the bundle\n", version.stderr

    status, said = machine.install()

    assert status == 0 and "Already installed" in said


def test_a_bundle_that_is_not_the_one_terraform_saw_is_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    status, said = machine.install(sha256="0" * 64)

    assert status != 0
    assert "did NOT match" in said
    assert not (machine.folder / "venv").exists()
