"""Every `geoseg` command of the README and the docs is one that the command line takes, with its options and values."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from geoseg.cli import app

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(REPOSITORY)
    for folder in ("docs", "pipelines", "sample_data", ".")
    for path in (REPOSITORY / folder).glob("*.md" if folder == "." else "**/*.md")
)
BLOCK = re.compile(r"^```(?:bash|console|sh)\n(.*?)^```", re.M | re.S)
STOPS = ("|", ">", ">>", "&&", ";", "2>")


def commands_of(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of every `geoseg` command in the blocks of a page."""
    for block in BLOCK.findall((REPOSITORY / page).read_text()):
        variables = dict(re.findall(r'^([A-Z0-9_]+)="?(.*?)"?$', block, re.M))
        for line in block.replace("\\\n", " ").splitlines():
            text = line.removeprefix("$ ")
            for name, value in variables.items():
                text = re.sub(rf"\$\{{?{name}\b\}}?", value, text)
            words = [word for word in shlex.split(text, comments=True) if word != "..."]
            starts = [
                n for n, word in enumerate(words) if word == "geoseg" and (n == 0 or words[n - 1] in ("&&", "-m"))
            ]
            for start in starts:
                rest = words[start + 1 :]
                yield rest[: min((rest.index(each) for each in STOPS if each in rest), default=len(rest))]


def leaf_of(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that some words name, and its arguments."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


ALL = [(str(page), words) for page in PAGES for words in commands_of(page)]


def test_the_pages_have_commands_of_every_kind() -> None:
    assert len(ALL) > 80
    named = {leaf_of(words)[0].name for _, words in ALL}
    assert {"run", "status", "vectorize", "evaluate", "compare", "finetune", "train", "export", "search"} <= named


@pytest.mark.parametrize(("page", "words"), ALL, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_a_command_of_the_docs_is_one(page: str, words: list[str]) -> None:
    command, args = leaf_of(list(words))
    assert not hasattr(command, "commands") or not args or args[0].startswith("-"), f"{page}: there is no {words}"
    command.make_context(command.name, args)  # parses, and raises what a user would see
