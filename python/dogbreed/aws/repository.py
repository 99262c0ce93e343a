"""Where things lie in the repository."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dogbreed.errors import DogbreedError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Repository:
    """The checkout that holds `terraform/` and `python/`."""

    root: Path

    @classmethod
    def find(cls, root: Path | None = None) -> Repository:
        """The repository at `root`, else the one that the working directory lies in."""
        for folder in (root.resolve(),) if root else (Path.cwd(), *Path.cwd().parents):
            if (folder / "terraform" / "versions.tf").is_file() and (folder / "python" / "pyproject.toml").is_file():
                return cls(folder)
        raise DogbreedError(
            f"There is no terraform/ of this project at {root}" if root else "This is not a checkout of the project",
            "Change to the repository, or name it with --root.",
        )

    @property
    def terraform(self) -> Path:
        return self.root / "terraform"

    @property
    def python(self) -> Path:
        return self.root / "python"

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def environments(self) -> list[str]:
        return sorted(path.stem for path in (self.terraform / "environments").glob("*.tfvars"))

    def dependencies(self, *extras: str) -> list[str]:
        """The declared dependencies of the package `dogbreed`, with those of some of its extras."""
        project: dict[str, Any] = tomllib.loads((self.python / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *(d for e in extras for d in project["optional-dependencies"][e])]
