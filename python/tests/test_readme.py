"""The README: what it shows is there, and what it says to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from dogbreed.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / folder / "README.md" for folder in (".", "python", "terraform/bootstrap", "ec2")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def test_every_command_exists() -> None:
    root = typer.main.get_command(app)
    shown = re.findall(r"^ {4}dogbreed ((?:(?:data|infra|local) )?[a-z-]+)", README, re.M)
    assert len(shown) >= 10
    for words in shown:
        command = root
        for word in words.split():
            command = command.commands[word]  # type: ignore[attr-defined]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z-]+)\b", README)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    assert not re.search(r"@[A-Z]+@", text), "a place that was left to fill in"
