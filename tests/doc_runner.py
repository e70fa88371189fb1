"""Runs the examples of a Markdown file and compares what they print with what the file says they print.

In a fenced block marked ``console`` each line that begins with ``$ `` is a command; lines that begin with ``> `` go on
with it. The lines below, up to the next command, are its output, standard error included. A ``…`` stands for anything
within a line, a line of only ``…`` for any number of lines. A command must exit with 0, unless the next one is
``echo $?``.

The commands of a document run one after another in one bash in one empty folder, with ``taskbus`` and ``python`` those
of the running interpreter: ``cd``, variables and background jobs last to the end of the document, and what then still
runs is killed.

A block below ``<!-- file: NAME -->`` is first written to that file. A block below ``<!-- not run -->`` is left alone.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Command", "File", "check_document", "matches", "read_document"]

#: Seconds a command may take.
LIMIT = 60.0

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>```+|~~~+)(?P<info>.*)")
_MARK = re.compile(r"<!--\s*(?:file:\s*(?P<file>\S+)|(?P<skip>not run))\s*-->")


@dataclass(frozen=True)
class Command:
    """A command and the output it should have. ``line`` is its line in the document."""

    line: int
    text: str
    output: str
    checked: bool


@dataclass(frozen=True)
class File:
    """A file that an example shows."""

    line: int
    name: str
    text: str


def read_document(text: str) -> list[Command | File]:
    """The files and commands of a Markdown text, in order."""
    found: list[Command | File] = []
    lines = text.splitlines()
    number = 0
    mark: re.Match[str] | None = None
    while number < len(lines):
        line = lines[number]
        number += 1
        fence = _FENCE.fullmatch(line)
        if not fence:
            if line.strip():
                mark = _MARK.fullmatch(line.strip())
            continue
        begin = number
        while number < len(lines) and lines[number].strip() != fence["fence"]:
            number += 1
        indent = len(fence["indent"])
        block = [line[indent:] if not line[:indent].strip() else line for line in lines[begin:number]]
        number += 1
        if mark is not None and mark["file"]:
            found.append(File(begin, mark["file"], "\n".join(block) + "\n"))
        elif mark is None and fence["info"].split()[:1] == ["console"]:
            found += _commands(block, begin + 1)
        mark = None
    return found


def _commands(block: list[str], first: int) -> list[Command]:
    begun: list[tuple[int, list[str], list[str]]] = []
    for number, line in enumerate(block, first):
        if line.startswith("$ "):
            begun.append((number, [line[2:]], []))
        elif not begun:
            raise ValueError(f"line {number}: a console block begins with a command, '$ …', not with {line!r}")
        elif line.startswith("> ") and not begun[-1][2]:
            begun[-1][1].append(line[2:])
        else:
            begun[-1][2].append(line)
    commands = []
    for at, (number, text, output) in enumerate(begun):
        checked = at + 1 < len(begun) and begun[at + 1][1] == ["echo $?"]
        commands.append(Command(number, "\n".join(text), "\n".join(output).strip("\n"), checked))
    return commands


def matches(expected: str, actual: str) -> bool:
    """Whether ``actual`` is what ``expected`` says, with ``…`` for anything."""
    pattern = ""
    for line in expected.split("\n"):
        if line.strip() == "…":
            pattern += r"(?:.*\n)*"
        else:
            pattern += ".*".join(re.escape(piece) for piece in line.rstrip().split("…")) + r"[ \t]*\n"
    return re.fullmatch(pattern, actual.strip("\n") + "\n") is not None


def check_document(path: Path, folder: Path) -> int:
    """Run the examples of ``path`` in ``folder``; return how many commands that were.

    Raises:
        AssertionError: for the first command that does or prints something else, with both outputs.
    """
    steps = read_document(path.read_text())
    with _Shell(folder) as shell:
        for step in steps:
            if isinstance(step, File):
                place = folder / step.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(step.text)
                continue
            code, output = shell.run(step.text)
            where = f"{path}:{step.line}: $ {step.text}\n"
            assert matches(step.output, output), f"{where}should print\n{step.output}\nbut printed\n{output}"
            assert code == 0 or step.checked, f"{where}exited with {code} and printed\n{output}"
    return sum(isinstance(step, Command) for step in steps)


class _Shell:
    """One bash that reads commands from a pipe of their own, so that their standard input is empty."""

    def __init__(self, folder: Path) -> None:
        script, self._commands = os.pipe()
        here = Path(sys.executable).parent
        env = {name: value for name, value in os.environ.items() if not name.startswith("TASKBUS_")}
        env["PATH"] = f"{here}:{env.get('PATH', os.defpath)}"
        self._bash = subprocess.Popen(
            ["bash", "--norc", f"/dev/fd/{script}"],
            cwd=folder,
            env=env,
            pass_fds=[script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
        os.close(script)
        self._number = 0

    def __enter__(self) -> _Shell:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._commands)
        # The whole session, background jobs included; bash itself is not reaped yet, so the group is still ours.
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        if self._bash.stdout is not None:
            self._bash.stdout.close()

    def run(self, command: str) -> tuple[int, str]:
        """Run one command; its exit code and everything printed until it ended."""
        self._number += 1
        end = f"end-of-command-{self._number}"
        # The status is kept for a following `echo $?`.
        text = f"{command}\nstatus=$?; printf '\\n%s %d\\n' {end} $status; (exit $status)\n"
        os.write(self._commands, text.encode())
        output = b""
        deadline = time.monotonic() + LIMIT
        with selectors.DefaultSelector() as selector:
            assert self._bash.stdout is not None
            selector.register(self._bash.stdout, selectors.EVENT_READ)
            while not (found := re.search(rb"\n" + end.encode() + rb" (\d+)\n", output)):
                assert selector.select(max(0.0, deadline - time.monotonic())), f"no end within {LIMIT:g} s: {command}"
                block = os.read(self._bash.stdout.fileno(), 65536)
                assert block, f"the shell ended at: {command}\n{output.decode(errors='replace')}"
                output += block
        return int(found[1]), output[: found.start()].decode(errors="replace")
