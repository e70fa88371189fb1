"""Standard input and output of real processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

#: Copies standard input to standard output, one line at a time; a body of ``bad`` goes to the dead letters.
COPY = """
import asyncio, sys, bus
async def main():
    async with bus.connect(sys.argv[1]) as b:
        consumer, producer = await b.consumer("hello", "g"), await b.producer()
        asyncio.get_running_loop().add_signal_handler(15, lambda: asyncio.ensure_future(consumer.close()))
        print("ready", file=sys.stderr, flush=True)
        while batch := await consumer.receive(100):
            topics = ["hello.dead" if d.body == b"bad" else "done" for d in batch]
            await consumer.finish(batch, [bus.Message(t, d.body) for t, d in zip(topics, batch)], producer)
try:
    asyncio.run(main())
except bus.BusError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def start(url: str, **streams: object) -> subprocess.Popen[bytes]:
    """Start the copying process."""
    return subprocess.Popen([sys.executable, "-c", COPY, url], stderr=subprocess.PIPE, **streams)  # type: ignore[call-overload,no-any-return]


def test_a_shell_pipe_in_and_out(tmp_path: Path) -> None:
    """Lines typed into a pipe come out of the other end, dead letters in a file of the current directory."""
    process = start("stdio:", stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path)

    out, errors = process.communicate(b"a\r\n\nbad\nb", timeout=20)

    assert (out, process.returncode, errors) == (b"a\nb\n", 0, b"ready\n")
    assert (tmp_path / "hello.dead").read_bytes() == b"bad\n"


def test_files_redirected_to_the_standard_streams(tmp_path: Path) -> None:
    """``< in >> out`` works, and a full batch is appended after what was there."""
    (tmp_path / "in").write_bytes(b"".join(b"%d\n" % n for n in range(10_000)))
    (tmp_path / "out").write_bytes(b"before, torn")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("ab") as target:
        process = start("lines:-", stdin=source, stdout=target)
        process.communicate(timeout=20)

    assert process.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"before, torn\n" + (tmp_path / "in").read_bytes()


def test_a_closed_output_is_an_error_without_traceback() -> None:
    """``| head`` that has gone is told in one line."""
    process = start("stdio:", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None

    _, errors = process.communicate(b"a\n", timeout=20)

    assert process.returncode == 1
    assert errors == b"ready\nOutputClosedError: cannot write to the standard streams: its reader has gone\n"


def test_a_signal_ends_a_process_that_waits_for_input() -> None:
    """Closing while a read of standard input blocks returns at once, and the process exits."""
    process = start("stdio:", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"

    process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)

    assert process.returncode == 0
    process.communicate()


def test_a_terminal_is_read_line_by_line() -> None:
    """A line typed at a terminal is answered before the next one, and its end of input ends the process."""
    master, slave = os.openpty()
    process = start("stdio:", stdin=slave, stdout=subprocess.PIPE)
    os.close(slave)
    assert process.stdout is not None
    try:
        os.write(master, b"hello\n")
        assert select.select([process.stdout], [], [], 20)[0]
        assert process.stdout.readline() == b"hello\n"
        os.write(master, b"\x04")
        process.communicate(timeout=20)
    finally:
        os.close(master)

    assert process.returncode == 0


def test_a_closed_standard_input_is_an_error_that_says_so(tmp_path: Path) -> None:
    """``<&-`` gives one line, not a traceback."""
    script = f'exec "{sys.executable}" -c "$0" stdio: <&- 2>{tmp_path}/err'
    done = subprocess.run(["sh", "-c", script, COPY], capture_output=True, timeout=20)

    assert done.returncode == 1
    assert (tmp_path / "err").read_text().startswith("BusURLError: cannot read the standard streams: it is closed")
