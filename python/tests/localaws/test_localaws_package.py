"""What the package promises of itself."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from moto.core.base_backend import BaseBackend

import localaws
from localaws.patching import extend, wrap

PACKAGE = Path(localaws.__file__).parent
GAPS = Path(__file__).parent / "gaps"


def test_it_imports_nothing_of_the_project_it_lives_in():
    allowed = {*sys.stdlib_module_names, "localaws", "moto", "werkzeug", "flask", "boto3", "botocore"}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, file
                names = [node.module]
            else:
                continue
            assert {name.split(".")[0] for name in names} <= allowed, file


def test_another_version_of_moto_is_refused_at_import(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "5.2.6")
    with pytest.raises(ImportError, match=r"moto 5\.2\.6 is installed: pip install 'moto\[server,all\]==5\.2\.5'"):
        exec((PACKAGE / "__init__.py").read_text(), {"__name__": "copy"})


def test_a_patch_fails_when_moto_has_caught_up_or_changed():
    with pytest.raises(TypeError, match="now has"):

        @extend(BaseBackend)
        def reset(self):
            """moto has no reset."""

    with pytest.raises(TypeError, match="no longer has"):

        @wrap(BaseBackend, "no_such_method")
        def patch(original, self):
            """moto does it wrong."""


def test_a_patch_says_its_reason():
    with pytest.raises(TypeError, match="no docstring"):

        @wrap(BaseBackend, "reset")
        def patch(original, self):
            return original(self)


def test_every_module_of_patches_is_installed():
    others = {"__init__", "__main__", "patching", "server", "wsgi", "missing"}
    found = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert found - others == {*localaws.PATCHES}


@pytest.mark.slow
def test_every_gap_is_one_of_plain_moto():
    result = subprocess.run(
        [sys.executable, "-m", "pytest", str(GAPS), "-q", "-p", "no:cacheprovider", "-rpP"],
        env={**os.environ, "LOCALAWS_PLAIN": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert " failed" in result.stdout
    assert [line for line in result.stdout.splitlines() if line.startswith("PASSED")] == []
