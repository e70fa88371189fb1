"""``taskbus new worker``: a starter folder for a worker."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path

import click

from apps.cli.errors import say
from bus import check_topic
from task.errors import SettingsError

__all__ = ["command"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([._-][A-Za-z0-9]+)*")
#: File in the folder → its text in the package ``apps.cli.starter``.
_FILES = {
    "README.md": "README.md.txt",
    "rules.toml": "rules.toml.txt",
    "test_worker.py": "test_worker.py.txt",
    "worker.py": "worker.py.txt",
}
#: What the starter imports or defines itself.
_TAKEN = {"Context", "Outcome", "Params", "Worker"}


@click.command()
@click.argument("name")
def command(name: str) -> None:
    """Write a folder NAME with a worker for tasks of type NAME, a test of it, an example rule file and a README."""
    check_topic(name)
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} must begin with a letter and be words joined by - or _, as in resize-image")
    texts = {file: files("apps.cli.starter").joinpath(source).read_text("utf-8") for file, source in _FILES.items()}
    folder = Path(name)
    try:
        folder.mkdir()
        for file, text in texts.items():
            (folder / file).write_text(text.replace("{{name}}", name).replace("{{class}}", _class(name)), "utf-8")
            click.echo(str(folder / file))
    except FileExistsError:
        raise SettingsError(f"{name} exists already and is left as it is; choose another name") from None
    except OSError as error:
        raise SettingsError(f"cannot write {name}: {error.strerror}") from error
    say(f"read on in {name}/README.md")


def _class(name: str) -> str:
    made = "".join(word[0].upper() + word[1:] for word in re.split(r"[._-]", name))
    return made + "Worker" if made in _TAKEN or keyword.iskeyword(made) else made
