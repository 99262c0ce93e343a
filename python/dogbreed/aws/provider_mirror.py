"""Where Terraform takes its provider from: a copy that lies on this machine, or else the public registry.

Terraform looks for copies only where it was told to, or in its own few folders. Machines without internet have one
where add-on software goes, so those places are looked through; nothing deeper.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from dogbreed.aws.repository import Repository
from dogbreed.errors import DogbreedError
from dogbreed.files import cache_dir, write_text

VARIABLE = "DOGBREED_PROVIDER_MIRROR"
PROVIDER = "registry.terraform.io/hashicorp/aws"
OLDEST, BELOW = (5, 100), (6, 0)  # as in terraform/versions.tf

# The filesystem hierarchy standard's places for add-on software.
PLACES = (
    "opt", "opt/*", "opt/*/*", "srv", "srv/*", "usr/local/lib", "usr/local/lib/*",
    "usr/local/share", "usr/local/share/*", "usr/lib/*", "usr/share/*",
)  # fmt: skip


def cli_configuration(repository: Repository, *, root: Path = Path("/")) -> Path:
    """The CLI configuration that Terraform is to run with: the user's own, else build/terraform.rc, written here."""
    own = (os.environ.get("TF_CLI_CONFIG_FILE"), Path.home() / ".terraformrc")
    for path in own:
        if path and Path(path).is_file():
            return Path(path).absolute()  # Terraform runs in another folder
    target = repository.build / "terraform.rc"
    text = _from_mirror(mirror) if (mirror := find_mirror(repository, root=root)) else _from_registry()
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        write_text(target, text)
    return target


def find_mirror(repository: Repository, *, root: Path = Path("/")) -> Path | None:
    """A folder that holds the provider for this machine, unpacked or as an archive; None if there is none."""
    if chosen := os.environ.get(VARIABLE):
        mirror = Path(chosen).expanduser().absolute()
        if not _holds_provider(mirror):
            raise DogbreedError(
                f"{VARIABLE} is {chosen}, where there is no {PROVIDER} 5.100 or newer for {_system()}",
                "Name a folder made by `terraform providers mirror`, or unset the variable.",
            )
        return mirror
    return next(filter(_holds_provider, _places(repository, root)), None)


def _places(repository: Repository, root: Path) -> Iterator[Path]:
    """Terraform's implied mirrors, then the usual places."""
    home = Path.home()
    shared = os.environ.get("XDG_DATA_DIRS") or f"{root / 'usr/local/share'}:{root / 'usr/share'}"
    yield repository.terraform / "terraform.d" / "plugins"
    yield home / ".terraform.d" / "plugins"
    yield home / "Library" / "Application Support" / "io.terraform" / "plugins"
    for folder in (os.environ.get("XDG_DATA_HOME") or home / ".local" / "share", *shared.split(":")):
        yield Path(folder) / "terraform" / "plugins"
    for place in PLACES:
        for provider in root.glob(f"{place}/{PROVIDER}"):
            yield provider.parents[2]


def _holds_provider(mirror: Path) -> bool:
    folder = mirror / PROVIDER
    unpacked = (path.parent.name for path in folder.glob(f"*/{_system()}"))
    packed = (path.name.split("_")[1] for path in folder.glob(f"terraform-provider-aws_*_{_system()}.zip"))
    return any(OLDEST <= _version(found) < BELOW for found in (*unpacked, *packed))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _system() -> str:
    """This machine in the registry's words, as in linux_amd64."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()).lower()
    return f"{'windows' if sys.platform == 'win32' else sys.platform}_{machine}"


def _from_mirror(mirror: Path) -> str:
    return f"""\
# Written by `make setup`: the AWS provider comes from a copy on this machine, every other one from the registry.
provider_installation {{
  filesystem_mirror {{
    path    = {_quoted(mirror)}
    include = ["{PROVIDER}"]
  }}
  direct {{
    exclude = ["{PROVIDER}"]
  }}
}}
"""


def _from_registry() -> str:
    folder = cache_dir() / "terraform-plugins"
    folder.mkdir(parents=True, exist_ok=True)  # Terraform refuses one that is not there
    return f"""\
# Written by `make setup`: providers come from the registry, once for all environments (one takes 700 MB unpacked).
plugin_cache_dir = {_quoted(folder)}
"""


def _quoted(path: Path) -> str:
    """A path as a string of the CLI configuration, which is HCL 1: there `$${` is no escape for `${`."""
    return json.dumps(str(path), ensure_ascii=False).replace("$", "\\u0024")
