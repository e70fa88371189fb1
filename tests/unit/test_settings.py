from __future__ import annotations

import dataclasses
import logging
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from task.app import invoke
from task.errors import SettingsError
from task.options import WorkerOptions
from task.setting import choice, count, duration, setting, size
from task.settings import Resolved, click_options, example, resolve, show

DOCS = Path(__file__).parents[2] / "docs"


def _read_rate(text: str) -> float:
    return float(text.removesuffix("/s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One setting of every sort."""

    bus: str = setting("memory:", "Bus.", metavar="URL")
    in_: str | None = setting(None, "Input.", metavar="PATH")
    retries: int = count(2, "Retries.")
    limit: int | None = count(None, "Limit.", least=1)
    kill_time: float = duration(10.0, "Kill time.")
    max_size: int = size(1024, "Largest.")
    level: str = choice("info", ("debug", "info"), "Level.")
    drain: bool = setting(False, "Drain.")
    progress: bool = setting(True, "Progress.")
    token: str | None = setting(None, "Token.", secret=True)
    pin: int | None = setting(None, "Number.", read=int, secret=True)
    rate: float = setting(1.5, "Rate.", read=_read_rate)


def given(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, config: Path | None = None
) -> Resolved[Options]:
    return resolve(Options, flags, environ=environ or {}, config=config)


def refusal(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, config: Path | None = None
) -> str:
    with pytest.raises(SettingsError) as caught:
        given(flags, environ, config)
    return str(caught.value)


def write(folder: Path, text: str, name: str = "c.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_defaults() -> None:
    """Without any source every setting has its default and says so."""
    resolved = given()

    assert resolved.settings == Options()
    assert set(resolved.sources.values()) == {"default"}
    assert list(resolved.sources) == [field.name for field in dataclasses.fields(Options)]


@pytest.mark.parametrize("sources", range(16))
def test_precedence(sources: int, tmp_path: Path) -> None:
    """A flag wins over the environment, that over the file, that over the default, in every combination."""
    config = write(tmp_path, "# first\nretries = 3\n" if sources & 1 else "bus = 'null:'\n")
    environ = {"TASKBUS_RETRIES": "4"} if sources & 2 else {}
    flags = {"retries": "5" if sources & 4 else None}
    if sources & 8:
        environ["TASKBUS_CONFIG"] = str(config)
    resolved = given(flags, environ, None if sources & 8 else config)

    expected = [(2, "default"), (3, f"{config}:2"), (4, "TASKBUS_RETRIES"), (5, "--retries")]
    assert (resolved.settings.retries, resolved.sources["retries"]) == expected[(sources & 7).bit_length()]


def test_every_sort_as_text() -> None:
    """Every sort of setting is read from the text of an environment variable."""
    environ = {
        "TASKBUS_BUS": "null:",
        "TASKBUS_IN": "a.jsonl",
        "TASKBUS_LIMIT": "7",
        "TASKBUS_KILL_TIME": "1m30s",
        "TASKBUS_MAX_SIZE": "2KiB",
        "TASKBUS_LEVEL": "debug",
        "TASKBUS_DRAIN": "Yes",
        "TASKBUS_PROGRESS": "off",
        "TASKBUS_TOKEN": "t",
        "TASKBUS_RATE": "3/s",
    }

    assert given(environ=environ).settings == Options(
        bus="null:",
        in_="a.jsonl",
        limit=7,
        kill_time=90.0,
        max_size=2048,
        level="debug",
        drain=True,
        progress=False,
        token="t",
        rate=3.0,
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "c.toml",
            'bus = "null:"\nin = "-"\nlimit = 7\nkill_time = 2.5\nmax_size = "2KiB"\ndrain = true\nprogress = "no"\n',
        ),
        ("c.yaml", "bus: 'null:'\nin: '-'\nlimit: 7\nkill_time: 2.5\nmax_size: 2KiB\ndrain: yes\nprogress: 0\n"),
    ],
)
def test_every_sort_in_a_file(name: str, text: str, tmp_path: Path) -> None:
    """TOML and YAML give the same settings, as text or in the format's own types."""
    settings = given(config=write(tmp_path, text, name)).settings

    assert settings == Options(bus="null:", in_="-", limit=7, kill_time=2.5, max_size=2048, drain=True, progress=False)


def test_empty_text_is_none(tmp_path: Path) -> None:
    """An empty text takes a setting without a default back to none; an empty variable is as good as no variable."""
    config = write(tmp_path, "limit = 3\nin = 'a'\n")

    assert given({"in_": "", "limit": ""}, config=config).settings == Options()
    assert given(environ={"TASKBUS_LIMIT": "", "TASKBUS_RETRIES": "", "TASKBUS_CONFIG": ""}).settings == Options()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retrys = 1", "2: retrys: there is no such setting; did you mean 'retries'?"),
        ("max-size = 1", "2: max-size: there is no such setting; did you mean 'max_size'?"),
        ("in_ = 'a'", "2: in_: there is no such setting; did you mean 'in'?"),
        ("[worker]\nretries = 1", "2: worker: there is no such setting; known: bus, drain,"),
        ("retries = -1", "2: retries: '-1' is not a whole number of at least 0"),
        ("retries = 1.5", "2: retries: '1.5' is not a whole number of at least 0"),
        ("retries = true", "2: retries: True is not text; write it in quotes"),
        ("retries = [1]", "2: retries: it must be a single value"),
        ("[retries]\na = 1", "2: retries: it must be a single value"),
        ("bus = 5", "2: bus: 5 is not text; write it in quotes"),
        ("bus = 2017-01-01", "2: bus: 2017-01-01 is not text; write it in quotes"),
        ("drain = 'perhaps'", "2: drain: 'perhaps' is neither true nor false"),
        ("level = 'loud'", "2: level: 'loud' is none of debug, info"),
        ("kill_time = '5 parsecs'", "2: kill_time: '5 parsecs' is not a duration; write seconds or like 250ms"),
        ("kill_time = inf", "2: kill_time: 'inf' is not a duration"),
        ("kill_time = nan", "2: kill_time: 'nan' is not a duration"),
        ("kill_time = '" + "9" * 400 + "'", "2: kill_time: "),
        ("max_size = 'much'", "2: max_size: 'much' is not a size; write bytes or like 64KB, 1MiB"),
        ("max_size = '" + "9" * 400 + "MB'", "2: max_size: "),
        ("rate = inf", "2: rate: it is too large"),
        ("retries = ", "2: Invalid value"),
    ],
)
def test_mistakes_in_a_file(text: str, message: str, tmp_path: Path) -> None:
    """A mistake in a file is told with file, line, key, what is accepted and the nearest key."""
    config = write(tmp_path, f"\n{text}\n")

    assert refusal(config=config).startswith(f"{config}:{message}")


def test_a_yaml_key_without_value(tmp_path: Path) -> None:
    """A key without a value in YAML is a mistake, not a silent default."""
    config = write(tmp_path, "in:\n", "c.yml")

    assert refusal(config=config) == f'{config}:1: in: it has no value; write one, or "" for none'


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """The mistakes of all sources are told together, also where another source covers them."""
    config = write(tmp_path, "retries = 'x'\nbusy = 1\n")
    text = refusal({"retries": "1", "level": "loud"}, {"TASKBUS_LIMIT": "0"}, config)

    assert [line.removeprefix(str(config)) for line in text.split("\n")] == [
        "4 mistakes:",
        ":1: retries: 'x' is not a whole number of at least 0",
        ":2: busy: there is no such setting; did you mean 'bus'?",
        "TASKBUS_LIMIT: '0' is not a whole number of at least 1",
        "--level: 'loud' is none of debug, info",
    ]


def test_a_value_from_a_file(tmp_path: Path) -> None:
    """A variable with _FILE at its end names a file that holds the value, but for the newline at its end."""
    path = write(tmp_path, "amqp://u:p@h/\r\n", "secret")
    resolved = given(environ={"TASKBUS_BUS_FILE": str(path)})

    assert resolved.settings.bus == "amqp://u:p@h/"
    assert resolved.sources["bus"] == "TASKBUS_BUS_FILE"


def test_mistakes_with_value_files(tmp_path: Path) -> None:
    """A value file that cannot be read, is too long, no text, or stands beside its variable is a mistake."""
    write(tmp_path, "a" * 70_000, "long")
    (tmp_path / "latin").write_bytes(b"\xe9")

    def told(name: str, **more: str) -> str:
        return refusal(environ={"TASKBUS_TOKEN_FILE": str(tmp_path / name), **more}).replace(f"{tmp_path}{os.sep}", "")

    assert told("none") == "TASKBUS_TOKEN_FILE: cannot read none: No such file or directory"
    assert told(".").startswith("TASKBUS_TOKEN_FILE: cannot read ")
    assert told("long") == "TASKBUS_TOKEN_FILE: long is longer than 65536 bytes"
    assert told("latin") == "TASKBUS_TOKEN_FILE: latin is not UTF-8 text"
    assert told("none", TASKBUS_TOKEN="x") == "TASKBUS_TOKEN_FILE: TASKBUS_TOKEN is set as well; set one of the two"


def test_a_setting_that_ends_in_file() -> None:
    """A setting whose own name ends in _file is itself, not the file of another."""

    @dataclass(frozen=True)
    class Two:
        key: str | None = setting(None, "Key.")
        key_file: str | None = setting(None, "Key file.")

    assert resolve(Two, environ={"TASKBUS_KEY_FILE": "/nowhere"}).settings == Two(key_file="/nowhere")


def test_unknown_variables(caplog: pytest.LogCaptureFixture) -> None:
    """A variable that is nearly one of ours is warned of; others may belong to another application."""
    with caplog.at_level(logging.WARNING, "taskbus.settings"):
        given(environ={"TASKBUS_RETRYS": "1", "TASKBUS_WORKFLOW": "x", "RETRYS": "1", "TASKBUS_": "y"})

    assert caplog.messages == ["TASKBUS_RETRYS is no setting and is ignored; did you mean TASKBUS_RETRIES?"]


def test_secrets_are_in_no_error(tmp_path: Path) -> None:
    """A wrong value that is secret, or holds a password, is not repeated."""
    config = write(tmp_path, "pin = 'hunter2'\nretries = 'x://u:hunter2@h'\n")
    text = refusal({"pin": "hunter2"}, {"TASKBUS_PIN": "hunter2"}, config)

    assert "hunter2" not in text
    assert text.count("this value is not accepted") == 3


def test_show_masks_secrets_and_names_sources(tmp_path: Path) -> None:
    """What is shown is TOML with the source of each value, and without any secret."""
    config = write(tmp_path, "in = 'nats://me:hunter2@h?token=hunter2&x=1'\n")
    text = show(given({"token": "hunter2", "kill_time": 90}, {"TASKBUS_BUS": "amqp://a?x=1&x=hunter2"}, config))

    assert "hunter2" not in text
    assert text.splitlines() == [
        'bus = "amqp:***"  # TASKBUS_BUS',
        f'in = "nats://me:***@h?token=***&x=1"  # {config}:1',
        "retries = 2  # default",
        'limit = ""  # default',
        'kill_time = "1m30s"  # --kill-time',
        "max_size = 1024  # default",
        'level = "info"  # default',
        "drain = false  # default",
        "progress = true  # default",
        'token = "***"  # --token',
        'pin = ""  # default',
        'rate = "1.5"  # default',
    ]


@pytest.mark.parametrize("value", ['a"b\\c\nd\x7f\x00', "é ☃", "#", "sqlite:%41?a=b", "12345.678", "0.001", "90"])
def test_what_is_shown_reads_back(value: str, tmp_path: Path) -> None:
    """The shown settings are a configuration file that gives the same settings."""
    settings = given({"in_": value, "kill_time": value} if value[0].isdigit() else {"in_": value}).settings
    config = write(tmp_path, show(Resolved(settings, {field.name: "a\nb" for field in dataclasses.fields(settings)})))

    assert given(config=config).settings == settings


def test_a_value_that_is_no_text_can_be_shown() -> None:
    """A value with bytes that are no UTF-8 is shown with a mark in their place."""
    assert 'in = "\ufffd"' in show(given({"in_": "\udce9"}))


@pytest.mark.parametrize("cls", [Options, WorkerOptions])
def test_example_reads_back_as_the_defaults(cls: type[Any], tmp_path: Path) -> None:
    """The example file says nothing as it is; with every # before a name taken away it gives the defaults."""
    text = example(cls)
    bare = re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)

    assert tomllib.loads(text) == {}
    assert len(tomllib.loads(bare)) == len(dataclasses.fields(cls))
    assert resolve(cls, environ={}, config=write(tmp_path, bare)).settings == cls()


def test_example_explains() -> None:
    """The example file has the help of every setting, and what a choice accepts."""
    assert '\n\n# Level. One of debug, info.\n#level = "info"\n' in example(Options)


@click.command()
@click.argument("name", default="x")
@click_options(Options)
def command(name: str, config: Path | None, **flags: object) -> None:
    """A command."""
    click.echo(f"{name} {config} { {key: value for key, value in flags.items() if value is not None} }")


def run(*args: str, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(command, args, env=env)


def test_flags() -> None:
    """Each setting has a flag; the command gets what was given, by field name, and None for the rest."""
    assert run().output == "x None {}\n"
    assert run("--in", "-", "--kill-time", "3s", "--drain", "--no-progress", "y", "--config", "f").output == (
        "y f {'in_': '-', 'kill_time': '3s', 'drain': True, 'progress': False}\n"
    )
    assert run("--in_", "-").exit_code == 2


def test_help() -> None:
    """The help of each flag shows its default as it is written, its choices and its unit."""
    text = " ".join(run("--help").output.split())

    assert "--kill-time TIME Kill time. [default: 10s]" in text
    assert "--level debug|info Level. [default: info]" in text
    assert "--drain / --no-drain Drain." in text
    assert "--in PATH Input. --" in text
    assert "--config FILE" in text


def test_show_config(tmp_path: Path) -> None:
    """--show-config prints the settings in force instead of running."""
    config = write(tmp_path, "retries = 3\n")
    result = run("--show-config", "--config", str(config), "--limit", "4", env={"TASKBUS_LEVEL": "debug"})

    assert result.exit_code == 0
    assert f"retries = 3  # {config}:1\nlimit = 4  # --limit\n" in result.output
    assert 'level = "debug"  # TASKBUS_LEVEL\n' in result.output
    assert result.output.count("\n") == len(dataclasses.fields(Options))


def test_example_config() -> None:
    """--example-config prints the example instead of running, whatever else is wrong."""
    result = run("--config", "nowhere.toml", "--example-config")

    assert (result.exit_code, result.output) == (0, example(Options))


def test_a_mistake_ends_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong setting ends an application with exit code 2 and a sentence."""
    code = invoke(command, ["--show-config", "--retries", "x"])

    assert code == 2
    assert capsys.readouterr().err == "taskbus: error: --retries: 'x' is not a whole number of at least 0\n"


def test_importing_task_loads_none_of_this() -> None:
    """`import task` loads neither click nor YAML nor an HTTP server."""
    code = "import sys, task; print(sorted({'click', 'yaml', 'tomllib', 'http.server'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_the_documented_settings_are_the_settings() -> None:
    """The table of docs/configuration.md has each setting of a worker, in order, with its default and its help."""
    text = (DOCS / "configuration.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    shown = tomllib.loads(re.sub(r"^#(?=\S)", "", example(WorkerOptions), flags=re.MULTILINE))
    expected = []
    for field in dataclasses.fields(WorkerOptions):
        key = field.name.rstrip("_")
        default = shown[key]
        choices = field.metadata["choices"]
        written = str(default).lower() if isinstance(default, bool) else str(default)
        accepted = f" One of {', '.join(f'`{word}`' for word in choices)}." if choices else ""
        expected.append(
            (key, f"`{written}`" if written else "none", field.metadata["help"].replace("|", "\\|") + accepted)
        )

    assert rows == expected
