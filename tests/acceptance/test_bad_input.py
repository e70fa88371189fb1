"""Whatever comes in, as real processes: no traceback, and every line ends as a done task or a dead letter."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from task.dead import original
from tests.acceptance.support import Odd, as_lines, pending, publish, taken, task_line, tmpfs
from tests.helpers import is_running, wait_until
from tests.taskbus_command import command_line, environment, taskbus

ROOT = Path(__file__).parents[2]
GOOD = task_line("", "good")
#: Each line and the code of its dead letter.
BAD = {
    "not-json": (b"this is not JSON", "not-json"),
    "torn": (b'{"type":"odd","ta', "not-json"),
    "a-list": (b'["type","odd"]', "not-object"),
    "a-number": (b"12", "not-object"),
    "null": (b"null", "not-object"),
    "invalid-utf-8": (b'{"type":"odd","task":"\xff\xfe"}', "not-json"),
    "deep-lists": (b"[" * 100_000, "not-json"),
    "deep-task": (b'{"type":"odd","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "not-json"),
    "nan": (b'{"type":"odd","task":"","n":NaN}', "not-json"),
    "infinity": (b'{"type":"odd","task":"","n":-Infinity}', "not-json"),
    "lone-surrogate": (b'{"type":"odd","task":"\\ud800"}', "not-json"),
    "20-MB": (b'{"type":"odd","task":"' + b"x" * 20_000_000 + b'"}', "too-large"),
    "20-MB-of-no-text": (b"\xff" * 20_000_000, "too-large"),
    "no-type": (b'{"task":"nothing"}', "no-type"),
    "empty-type": (b'{"type":"","task":"nothing"}', "no-type"),
    "wrong-type": (b'{"type":"even","task":"nothing"}', "wrong-type"),
    "bad-value": (b'{"type":"odd","task":{"deep":1}}', "bad-field"),
    "bad-meta": (b'{"type":"odd","meta":[1]}', "bad-field"),
    "bad-time": (b'{"type":"odd","created":"the day before yesterday"}', "bad-time"),
    "impossible-time": (b'{"type":"odd","created":"2023-02-30T00:00:00Z"}', "bad-time"),
    "a-nul-byte": (b'{"type":"odd","task":"\0"}', "not-json"),
    "expired": (b'{"type":"odd","meta":{"expires":"2020-01-01T00:00:00Z"}}', "expired"),
}
cases = pytest.mark.parametrize(("line", "code"), BAD.values(), ids=BAD)


@cases
def test_a_line_that_is_no_task(tmp_path: Path, line: bytes, code: str) -> None:
    """It lies in the .dead file with the reason and its bytes; the tasks before and after it are done; exit code 0."""
    odd = Odd(tmp_path).files(as_lines(GOOD, line, GOOD))

    assert odd.code == 0
    assert odd.dead() == [(code, line)]
    assert [(task["id"], task["result"]) for task in odd.done] == [("good", "complete")] * 2
    assert odd.letters[0]["reason"]
    assert odd.letters[0]["topic"] == "odd"
    assert odd.letters[0]["message_id"] == "line-2"
    assert '"event":"task-dead"' in odd.err


def test_all_of_them_through_a_pipe(tmp_path: Path) -> None:
    """Done tasks go to stdout and nothing else does; dead letters go to TYPE.dead in the current folder."""
    lines = [line for line, _ in BAD.values()]
    odd = Odd(tmp_path).run("--in", "-", stdin=as_lines(*lines, GOOD))

    letters = [json.loads(line) for line in (tmp_path / "odd.dead").read_bytes().splitlines()]
    assert odd.code == 0
    assert [original(letter) for letter in letters] == lines
    assert [json.loads(line)["id"] for line in odd.out.splitlines()] == ["good"]


def test_all_of_them_on_a_bus(tmp_path: Path) -> None:
    """On sqlite, whose largest message is 1 MiB, the letter of a message near that limit comes in parts."""
    bodies = [line for line, _ in BAD.values() if len(line) < 1_000_000] + [b"\xff" * 1_000_000]
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, *bodies, GOOD)
    odd = Odd(tmp_path).run("--bus", "sqlite:work.db", "--drain")

    letters = taken(url, "odd.dead")
    parts = [original(letter) for letter in letters if "parts" in letter]
    assert odd.code == 0
    assert len(parts) == next(letter["parts"] for letter in letters if "parts" in letter)
    assert [original(letter) for letter in letters if "parts" not in letter] + [b"".join(parts)] == bodies
    assert [task["id"] for task in taken(url, "done")] == ["good"]
    assert pending(url).total == 0


def test_a_raised_limit(tmp_path: Path) -> None:
    """With --max-task-size a line of 20 MB is a task like any other."""
    odd = Odd(tmp_path).files(as_lines(task_line("nothing:" + "x" * 20_000_000)), "--max-task-size", "32MiB")

    assert odd.code == 0
    assert [(len(task["task"]), task["result"]) for task in odd.done] == [(20_000_008, "complete")]
    assert odd.letters == []


def test_a_line_longer_than_any_limit(tmp_path: Path) -> None:
    """A line over the bus's limit comes in pieces, each dead-lettered; together they are the line."""
    line = b'{"type":"odd","task":"' + b"0123456789" * 20_000 + b'"}'
    (tmp_path / "in.jsonl").write_bytes(as_lines(GOOD, line, GOOD))
    odd = Odd(tmp_path).run("--in", "lines:in.jsonl?max_line=64KiB", "--out", "done.jsonl")

    assert odd.code == 0
    assert b"".join(body for _, body in odd.dead()) == line
    assert len(odd.done) == 2


def test_a_torn_last_line(tmp_path: Path) -> None:
    """A last line without its end is a task if it is whole, and a dead letter if it is not."""
    odd = Odd(tmp_path).files(as_lines(GOOD) + GOOD)
    assert (odd.code, len(odd.done), odd.letters) == (0, 2, [])

    odd = odd.files(as_lines(GOOD) + GOOD[:-5])
    assert odd.code == 0
    assert len(odd.done) == 3
    assert odd.dead() == [("not-json", GOOD[:-5])]


def test_a_file_of_another_system(tmp_path: Path) -> None:
    """A byte order mark, CRLF and empty lines mean nothing."""
    odd = Odd(tmp_path).files(b"\xef\xbb\xbf" + b"\r\n".join([GOOD, b"", b"  \t", GOOD]) + b"\r\n\n\n\r\n")

    assert odd.code == 0
    assert (len(odd.done), odd.letters) == (2, [])


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"\r\n"])
def test_an_input_of_nothing(tmp_path: Path, data: bytes) -> None:
    """An input without a task ends at once, with nothing done."""
    odd = Odd(tmp_path).files(data)

    assert (odd.code, odd.done, odd.letters) == (0, [], [])


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_worker_that_misbehaves(tmp_path: Path, isolation: str) -> None:
    """One that raises, returns nonsense or exits ends that task with error and a message; the next one is done."""
    nonsense = {
        "5": "the worker returned int, not an outcome",
        "None": "the worker returned None, not an outcome",
        "'complete'": "the worker returned str, not an outcome",
        "Odd": "the worker returned type, not an outcome",
        "Outcome('fine')": "the worker returned an outcome that cannot be used: ValueError: 'fine' is not a valid",
        "complete('', n=Odd(None))": "the worker returned an outcome that cannot be used: RuntimeError: no",
    }
    expected = {f"nonsense:{value}": text for value, text in nonsense.items()}
    expected |= {"raise": "ValueError: a value that is wrong", "exit": "SystemExit: 3", "odd": "AttributeError: "}
    lines = [task_line(value) for value in expected]
    odd = Odd(tmp_path).files(as_lines(*lines, GOOD), "--isolation", isolation)

    assert odd.code == 0
    assert odd.letters == []
    assert [task["result"] for task in odd.done] == ["error"] * len(lines) + ["complete"]
    for task in odd.done[:-1]:
        assert task["msg"].startswith(expected[task["task"]]), task


@pytest.mark.parametrize("deed", ["quit", "kill", "segfault"])
def test_a_worker_that_kills_its_application(tmp_path: Path, deed: str) -> None:
    """Started again it goes on; each death is an attempt, and after --max-attempts the task is dead-lettered."""
    url = f"sqlite:{tmp_path}/work.db?lease=200ms"
    publish(url, GOOD, task_line(deed, "bad"), GOOD)
    codes = []
    for _ in range(3):
        odd = Odd(tmp_path).run("--bus", url, "--drain", "--max-attempts", "2")
        codes.append(odd.code)

    died = {"quit": 7, "kill": -signal.SIGKILL, "segfault": -signal.SIGSEGV}[deed]
    assert codes == [died, died, 0]
    assert [task["id"] for task in taken(url, "done")] == ["good"] * 2
    (letter,) = taken(url, "odd.dead")
    assert (letter["code"], letter["id"], letter["attempts"]) == ("too-many-attempts", "bad", 3)
    # Of the first attempt nothing is known but its number.
    ((number, host),) = [(each["attempt"], each["host"]) for each in letter["tries"]]
    assert (number, host) == (2, platform.node())
    assert original(letter) == task_line(deed, "bad")


def test_a_worker_process_that_dies(tmp_path: Path) -> None:
    """With --isolation process a death is contained: tried again, then dead-lettered; the application goes on."""
    lines = [task_line(deed) for deed in ("quit", "kill", "segfault")]
    args = ("--isolation", "process", "--max-attempts", "2", "--retry-delay", "1ms")
    odd = Odd(tmp_path).files(as_lines(GOOD, *lines, GOOD), *args)

    assert odd.code == 0
    assert [task["result"] for task in odd.done] == ["complete"] * 2
    assert sorted(odd.dead()) == sorted(("crashed", line) for line in lines)
    reasons = {original(letter): letter["reason"] for letter in odd.letters}
    assert [reasons[line].partition(";")[0] for line in lines] == [
        "the worker's process ended with exit code 7",
        "the worker's process was killed by SIGKILL",
        "the worker's process was killed by SIGSEGV",
    ]
    assert [letter["attempts"] for letter in odd.letters] == [2, 2, 2]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_worker_that_hangs(tmp_path: Path, isolation: str) -> None:
    """Past its hard time limit a task is given up with error. A process is killed, and what it started with it."""
    args = ("--isolation", isolation, "--timeout", "50ms", "--hard-timeout", "100ms")
    odd = Odd(tmp_path).files(as_lines(task_line("hang"), GOOD), *args)

    assert odd.code == 0
    done = {task["task"]: task for task in odd.done}
    assert {value: task["result"] for value, task in done.items()} == {"hang": "error", "": "complete"}
    assert done["hang"]["msg"].startswith("timed out after")
    grandchild = int((tmp_path / "grandchild").read_text())
    if isolation == "process":
        wait_until(lambda: not is_running(grandchild))
    else:
        os.kill(grandchild, signal.SIGKILL)


def test_a_worker_that_hangs_again_and_again(tmp_path: Path) -> None:
    """When eight threads are left behind the application ends with exit code 5, and what it held is handed back."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, *[task_line("ignore:never")] * 9)
    odd = Odd(tmp_path).run("--bus", url, "--timeout", "10ms", "--hard-timeout", "20ms", "--max-in-progress", "4")

    assert odd.code == 5
    assert "use --isolation process" in odd.err
    done = taken(url, "done")
    assert {task["result"] for task in done} == {"error"}
    assert len(done) + pending(url).ready == 9


def test_killed_from_outside(tmp_path: Path) -> None:
    """kill -9 in the middle of a task: the next instance does it, as attempt 2."""
    url = f"sqlite:{tmp_path}/work.db?lease=300ms"
    publish(url, task_line("wait:go", "1"), GOOD)
    odd = Odd(tmp_path)
    with odd.running("--bus", url) as process:
        odd.begun("wait")
        process.kill()
    (tmp_path / "go").touch()
    odd.run("--bus", url, "--drain")

    assert odd.code == 0
    assert {task["id"]: task["msg"] for task in taken(url, "done")} == {"1": "2", "good": "1"}


@pytest.mark.parametrize(
    ("out", "told"),
    [
        (".", "it is a directory; name a file"),
        ("missing/done.jsonl", "it, or a directory on the way to it, does not exist"),
        ("in.jsonl/done.jsonl", "a part of the path is not a directory"),
        ("/proc/done.jsonl", "does not exist"),
        ("/dev/full", "it is a device or a socket"),
        ("in.jsonl", "is the file the tasks are read from"),
    ],
)
def test_an_output_that_cannot_be_written(tmp_path: Path, out: str, told: str) -> None:
    """It is told in one sentence, with exit code 2, and nothing is done."""
    (tmp_path / "in.jsonl").write_bytes(as_lines(task_line("wait:never")))
    odd = Odd(tmp_path).run("--in", "in.jsonl", "--out", out)

    assert odd.code == 2
    assert told in odd.err
    assert not (tmp_path / "begun-wait").exists()


def test_an_output_on_a_disk_that_is_read_only(tmp_path: Path) -> None:
    """No permission is exit code 3, and nothing is done."""
    with tmpfs(tmp_path / "disk", "ro"):
        odd = Odd(tmp_path).run("--in", "-", "--out", "disk/done.jsonl", stdin=as_lines(task_line("wait:never")))

    assert odd.code == 3
    assert "read-only file system" in odd.err


def test_dead_letters_that_cannot_be_written(tmp_path: Path) -> None:
    """The worker waits and says so; when they can be written it goes on, and nothing is there twice."""
    (tmp_path / "done.jsonl.dead").mkdir()
    odd = Odd(tmp_path)
    (tmp_path / "in.jsonl").write_bytes(as_lines(GOOD, b"bad", GOOD))
    with odd.running("--in", "in.jsonl", "--out", "done.jsonl", "--log-format", "text"):
        wait_until(lambda: "cannot deliver results, trying again" in odd.log)
        (tmp_path / "done.jsonl.dead").rmdir()

    assert odd.code == 0
    assert odd.dead() == [("not-json", b"bad")]
    assert len(odd.done) == 2


def test_a_full_disk(tmp_path: Path) -> None:
    """The worker waits, says so once, goes on when there is room, and no line is torn or there twice."""
    odd = Odd(tmp_path)
    lines = [task_line("", f"{number:04d}") for number in range(2000)] + [b"bad"]
    (tmp_path / "in.jsonl").write_bytes(as_lines(*lines))
    with tmpfs(tmp_path / "disk", "size=1m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 900_000)
        with odd.running("--in", "in.jsonl", "--out", "disk/done.jsonl", "--log-format", "text") as process:
            wait_until(lambda: "cannot deliver results, trying again" in odd.log)
            assert process.poll() is None
            before = (disk / "done.jsonl").read_bytes()
            assert before == b"" or before.endswith(b"\n")
            ballast.unlink()
        done = [json.loads(line) for line in (disk / "done.jsonl").read_bytes().splitlines()]
        dead = [json.loads(line) for line in (disk / "done.jsonl.dead").read_bytes().splitlines()]

    assert odd.code == 0
    assert [task["id"] for task in done] == [f"{number:04d}" for number in range(2000)]
    assert [original(letter) for letter in dead] == [b"bad"]
    assert odd.log.count("cannot deliver results") == 1
    assert "no space left on device" in odd.log
    assert "results are delivered again" in odd.log


def test_stopped_while_the_disk_is_full(tmp_path: Path) -> None:
    """A result that could not be written before the stop is told by the exit code, 3; the bus has the task again."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, GOOD)
    odd = Odd(tmp_path)
    with tmpfs(tmp_path / "disk", "size=64k") as disk:
        (disk / "ballast").write_bytes(b"x" * 65536)
        (disk / "done.jsonl").touch()
        args = ("--bus", url, "--out", "disk/done.jsonl", "--kill-time", "50ms", "--log-format", "text")
        with odd.running(*args) as process:
            wait_until(lambda: "cannot deliver results, trying again" in odd.log)
            process.terminate()

    assert odd.code == 3
    assert pending(url).ready == 1


def test_an_output_that_is_closed(tmp_path: Path) -> None:
    """``| head -1`` ends the worker with exit code 3 and one sentence."""
    odd = Odd(tmp_path)
    (tmp_path / "in.jsonl").write_bytes(as_lines(GOOD) * 5000)
    with odd.running("--in", "in.jsonl", "--log-format", "text") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["id"] == "good"
        process.stdout.close()

    assert odd.code == 3
    assert "its reader has gone" in odd.log


def test_head_in_a_shell(tmp_path: Path) -> None:
    """The same, as it is typed."""
    (tmp_path / "in.jsonl").write_bytes(b'{"type":"noop"}\n' * 5000)
    shell = 'set -o pipefail; "$0" worker noop --in in.jsonl | head -1'
    done = subprocess.run(
        ["bash", "-c", shell, command_line()[0]], cwd=tmp_path, env=environment(), capture_output=True, timeout=30
    )

    assert done.returncode == 3
    assert json.loads(done.stdout)["result"] == "complete"
    assert b"Traceback" not in done.stderr


def test_what_user_code_prints(tmp_path: Path) -> None:
    """It is on stderr, by whatever way it was written; on stdout are done tasks only."""
    for isolation in ("thread", "process"):
        odd = Odd(tmp_path).run("--in", "-", "--isolation", isolation, stdin=as_lines(task_line("print"), GOOD))
        tasks = [json.loads(line) for line in odd.out.splitlines()]

        assert odd.code == 0
        assert [task["result"] for task in tasks] == ["complete"] * 2
        for text in ("printed while it was imported", "printed{", "written", "echoed"):
            assert text in odd.err, (isolation, odd.err)


def test_what_a_program_of_the_user_prints(tmp_path: Path) -> None:
    """``python odd.py`` with run() keeps stdout for done tasks too, what it had printed before included."""
    Odd(tmp_path)
    (tmp_path / "program.py").write_text("from odd import Odd\nfrom task import run\nprint('before')\nrun(Odd)\n")
    done = subprocess.run(
        [sys.executable, "program.py", "--in", "-"],
        cwd=tmp_path,
        env={name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"},
        input=as_lines(task_line("print")),
        capture_output=True,
        timeout=30,
    )

    assert done.returncode == 0
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == ["complete"]
    assert b"before" in done.stderr


@pytest.mark.parametrize("command", ["{taskbus} worker noop", "{taskbus} worker ./noop.py", "{python} noop.py"])
def test_standard_streams_that_are_closed(tmp_path: Path, command: str) -> None:
    """One that is needed is told, exit code 2; the others are not missed, and no file is written into instead."""
    text = "from task import run\nfrom workers.noop import Noop\nclass Mine(Noop):\n    pass\n"
    (tmp_path / "noop.py").write_text(text + "if __name__ == '__main__':\n    run(Mine)\n")
    (tmp_path / "in").write_bytes(b'{"type":"noop"}\n')
    command = command.format(taskbus=command_line()[0], python=sys.executable)
    expected = {
        "--in in --out done <&- >&- 2>&-": (0, 1, ""),
        "--in in --out done --bogus 2>&-": (2, 0, ""),
        "--in in >&-": (2, 0, "cannot write to the standard streams: it is closed"),
        "--in - --out done <&-": (2, 0, "cannot read the standard streams: it is closed"),
    }
    for redirections, (code, count, told) in expected.items():
        (tmp_path / "done").unlink(missing_ok=True)
        done = subprocess.run(
            ["sh", "-c", f"{command} {redirections}"],
            cwd=tmp_path,
            env=environment({"PYTHONPATH": str(ROOT)}),
            capture_output=True,
            timeout=30,
        )
        written = (tmp_path / "done").read_bytes() if (tmp_path / "done").exists() else b""

        assert (done.returncode, written.count(b'"complete"')) == (code, count), (redirections, done)
        assert told in done.stderr.decode()
        assert b"Traceback" not in done.stderr


CONFIG = 'max_in_porgress = 2\nretries = "many"\n'


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--bus", "sqllite:work.db"], "no bus has the scheme 'sqllite'; did you mean 'sqlite'?"),
        (["--bus", "work.db"], "is not a bus URL"),
        (["--bus", "sqlite:work.db?leese=1s"], "the sqlite bus has no option 'leese'; did you mean 'lease'?"),
        (["--bus", "sqlite:work.db?lease=soon"], "option lease='soon'"),
        (["--max-in-porgress", "2"], "No such option '--max-in-porgress'. (Did you mean one of: '--max-in-progress'"),
        (["--isolation", "container"], "'container' is none of auto, inline, thread, process"),
        (["--config", "bad.toml"], "bad.toml:1: max_in_porgress: there is no such setting; did you mean"),
        (["--config", "bad.toml"], "bad.toml:2: retries: "),
        (["--config", "missing.toml"], "missing.toml: cannot be read"),
        (["--done-topic", "all done"], "'all done' is not a topic name"),
        (["--done-topic", "odd"], "--done-topic odd: the tasks are received from there too"),
    ],
)
def test_a_mistake_in_the_command(tmp_path: Path, args: list[str], told: str) -> None:
    """What is written wrong is named with what comes nearest; exit code 2, and no file is made."""
    (tmp_path / "bad.toml").write_text(CONFIG)
    odd = Odd(tmp_path).run(*args)

    assert odd.code == 2
    assert told in odd.err
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".toml") in (
        ["__pycache__", "odd.py"],
        ["odd.py"],
    )


def test_a_bus_whose_library_is_missing(tmp_path: Path) -> None:
    """A third party's adapter that cannot be imported is told by its scheme, with what is missing."""
    (tmp_path / "acme_bus.py").write_text("import acme_client\n")
    metadata = tmp_path / "acme_bus-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-bus\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[taskbus.bus]\nacme = acme_bus:AcmeBus\n")
    env = {"PYTHONPATH": str(tmp_path)}
    result = taskbus("worker", "noop", "--bus", "acme://host", cwd=tmp_path, env=env)
    listed = taskbus("buses", cwd=tmp_path, env=env)

    assert result.code == 2
    assert "the adapter for acme: cannot be imported: No module named 'acme_client'" in result.err
    assert listed.code == 0
    assert "acme" in listed.out


def test_a_bus_whose_extra_is_missing(tmp_path: Path) -> None:
    """An adapter of ours without its client library names the extra to install."""
    (tmp_path / "sitecustomize.py").write_text(
        "import bus.registry\n"
        "bus.registry._BUILT_IN['acme'] = bus.registry.Adapter('acme', 'acme_client', 'AcmeBus', 'acme-extra')\n"
    )
    (tmp_path / "acme_client.py").write_text("import acme_protocol\n")
    result = taskbus("worker", "noop", "--bus", "acme://host", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})

    assert result.code == 2
    assert "the acme bus needs acme_protocol: pip install 'taskbus[acme-extra]'" in result.err


RULES = {
    "cron": ("cron", '[[rule]]\ncron = "61 * * * *"\ntype = "t"\ntask = "x"\n', "rules.toml:2: rule[0].cron: "),
    "token": (
        "cron",
        '[[rule]]\ncron = "@daily"\ntype = "t"\ntask = "{yyy}"\n',
        "rules.toml:4: rule[0].task: ",
    ),
    "key": ("cron", '[[rule]]\ncron = "@daily"\ntipe = "t"\ntask = "x"\n', "rules.toml:3: rule[0].tipe: "),
    "cycle": (
        "on-done",
        '[[rule]]\nmatch = { type = "a" }\ntype = "b"\n\n[[rule]]\nmatch = { type = "b" }\ntype = "a"\n',
        "rules.toml:1: rule[0]: what it makes can come back to it, without end: a>b → b>a → a>b",
    ),
    "parent-token": (
        "on-done",
        '[[rule]]\nmatch = { type = "a" }\ntype = "b"\ntask = "{parent.vlaue}"\n',
        "rules.toml:4: rule[0].task: ",
    ),
    "toml": ("on-done", "[[rule]\n", "rules.toml:1: "),
}


@pytest.mark.parametrize(("taskmaster", "text", "told"), RULES.values(), ids=RULES)
def test_a_mistake_in_a_rule_file(tmp_path: Path, taskmaster: str, text: str, told: str) -> None:
    """It is told with file, line and key, whether the file is checked or run; exit code 2, and nothing is sent."""
    (tmp_path / "rules.toml").write_text(text)
    for args in (["--check"], ["--bus", "sqlite:work.db"]):
        result = taskbus("taskmaster", taskmaster, "rules.toml", *args, cwd=tmp_path)

        assert (result.code, result.out) == (2, "")
        assert told in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["rules.toml"]
