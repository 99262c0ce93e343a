"""Where Terraform takes its provider from: a copy on this machine, the user's own settings, or the registry."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from dogbreed.aws import provider_mirror
from dogbreed.aws.provider_mirror import PROVIDER, VARIABLE, cli_configuration, find_mirror
from dogbreed.aws.repository import Repository
from dogbreed.errors import DogbreedError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An empty repository on a machine with nothing on it; `tmp_path / "disk"` is its root folder."""
    for name in ("TF_CLI_CONFIG_FILE", VARIABLE, "XDG_DATA_HOME", "XDG_DATA_DIRS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(provider_mirror, "_system", lambda: "linux_amd64")
    return Repository(tmp_path / "repository")


def unpacked(mirror: Path, version: str = "5.100.0", system: str = "linux_amd64") -> Path:
    (mirror / PROVIDER / version / system).mkdir(parents=True)
    return mirror


def packed(mirror: Path, version: str = "5.100.0", system: str = "linux_amd64") -> Path:
    (mirror / PROVIDER).mkdir(parents=True)
    (mirror / PROVIDER / f"terraform-provider-aws_{version}_{system}.zip").touch()
    return mirror


@pytest.mark.parametrize("make", [unpacked, packed])
@pytest.mark.parametrize(
    "place",
    ["disk/opt", "disk/opt/mirror", "disk/opt/vendor/plugins", "disk/srv/terraform", "disk/usr/local/lib/terraform",
     "disk/usr/local/share/terraform/plugins", "disk/usr/share/providers", "disk/usr/lib/terraform",
     "home/.terraform.d/plugins", "home/.local/share/terraform/plugins", "repository/terraform/terraform.d/plugins"],
)  # fmt: skip
def test_a_mirror_in_a_usual_place_is_found(place: str, make, repository: Repository, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mirror = make(tmp_path / place)
    assert find_mirror(repository, root=tmp_path / "disk") == mirror
    text = cli_configuration(repository, root=tmp_path / "disk").read_text()
    assert f'path    = "{mirror}"' in text and "exclude" in text


@pytest.mark.parametrize(
    ("version", "system"), [("5.99.1", "linux_amd64"), ("6.0.0", "linux_amd64"), ("5.100.0", "darwin_arm64")]
)
def test_a_mirror_without_a_provider_for_us_is_passed_over(
    version: str, system: str, repository: Repository, tmp_path: Path
) -> None:
    unpacked(tmp_path / "disk" / "opt" / "a", version, system)
    assert find_mirror(repository, root=tmp_path / "disk") is None
    packed(tmp_path / "disk" / "opt" / "b")
    assert find_mirror(repository, root=tmp_path / "disk") == tmp_path / "disk" / "opt" / "b"


def test_without_a_mirror_it_is_the_registry_with_one_cache_for_all(repository: Repository, tmp_path: Path) -> None:
    text = cli_configuration(repository, root=tmp_path / "disk").read_text()
    assert "provider_installation" not in text
    cache = Path(text.split('plugin_cache_dir = "')[1].split('"')[0])
    assert cache.is_dir(), "Terraform refuses one that is not there"


def test_the_environment_variable_comes_first(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked(tmp_path / "disk" / "opt" / "found")
    chosen = unpacked(tmp_path / "anywhere" / "chosen")
    monkeypatch.setenv(VARIABLE, str(chosen))
    assert find_mirror(repository, root=tmp_path / "disk") == chosen
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    with pytest.raises(DogbreedError, match=r"there is no registry\.terraform\.io.* unset the variable"):
        find_mirror(repository, root=tmp_path / "disk")


def test_the_users_own_configuration_is_left_alone(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked(tmp_path / "disk" / "opt" / "found")
    own = tmp_path / "home" / ".terraformrc"
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(own))  # named, but not there: Terraform would warn on every run
    assert cli_configuration(repository, root=tmp_path / "disk") == repository.build / "terraform.rc"
    own.parent.mkdir()
    own.write_text("# mine\n")
    monkeypatch.delenv("TF_CLI_CONFIG_FILE")
    assert cli_configuration(repository, root=tmp_path / "disk") == own
    named = tmp_path / "named.rc"
    named.write_text("# mine too\n")
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(named))
    assert cli_configuration(repository, root=tmp_path / "disk") == named


def test_a_relative_path_of_the_users_configuration_is_meant_from_here(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named.rc").write_text("# mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", "named.rc")
    assert cli_configuration(repository, root=tmp_path / "disk") == tmp_path / "named.rc"


def test_a_mirrors_path_may_hold_any_character(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = unpacked(tmp_path / 'a "copy" of \\ ${mine} for ${ é')
    monkeypatch.setenv(VARIABLE, str(mirror))
    text = cli_configuration(repository, root=tmp_path / "disk").read_text()
    (path,) = re.findall(r'path    = (".*")', text)
    assert json.loads(path) == str(mirror)
    assert "$" not in text, "HCL would look for the end of an expression"


def test_the_search_of_this_machine_is_quick(tmp_path: Path, repository: Repository) -> None:
    find_mirror(repository)
    began = time.perf_counter()
    find_mirror(repository)
    assert time.perf_counter() - began < 0.2
