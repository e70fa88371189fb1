"""The doctor at buses that are files, at status pages and at what orchestrators are told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apps.doctor.asked import Asked, prepare
from apps.doctor.gather import gather
from apps.doctor.limits import read_limits
from apps.doctor.registry import examine
from apps.doctor.report import as_json, as_text
from apps.doctor.setup import Setup
from apps.doctor.status_page import StatusError, durations_of, read_status
from bus import Bus, BusURLError, connect, parse_url
from bus.facts import Look
from bus.mounts import file_facts, file_system
from task.codec import encode
from task.errors import SettingsError
from task.status import Metric, serve_status
from task.task import Task
from tests.taskbus_command import taskbus

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /tmp rw,nosuid - tmpfs tmpfs rw
31 22 0:45 / /mnt/with\\040space rw - nfs4 server:/export rw
32 31 0:46 / /mnt/with\\040space/local rw - xfs /dev/sdb rw
33 31 0:46 / /mnt/with\\040space/local rw - fuse.sshfs me@server rw
"""


def findings(setup: Setup) -> dict[str, list[str]]:
    """The severities of what each check found."""
    return {check.name: [str(finding.severity) for finding in found] for check, found in examine(setup)}


def look(url: str, *, kind: str = "t", interval: float = 0.0, **changes: object) -> Setup:
    setup = prepare(Asked(target=url, kind=kind))
    return asyncio.run(gather(dataclasses.replace(setup, **changes), interval=interval))  # type: ignore[arg-type]


async def publish(bus: Bus, topic: str, *tasks: Task) -> None:
    async with await bus.producer() as producer:
        for task in tasks:
            await producer.publish(topic, encode(task))


def done(value: str, seconds: float) -> Task:
    began = datetime.now(UTC)
    return Task("t", value).replace(result="complete", started=began, completed=began + timedelta(seconds=seconds))


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:{tmp_path / 'work'}"


def test_a_bus_that_is_not_there_is_not_made(url: str, tmp_path: Path) -> None:
    """Looking makes no file, and says that nothing could be looked at."""
    found = findings(look(url))

    assert list(tmp_path.iterdir()) == []
    assert found["dead-letters"] == found["idle"] == ["unchecked"]
    assert found["file-system"] != ["unchecked"]


@pytest.mark.no_faults("a question that failed leaves its check unchecked")
def test_what_waits_is_found(url: str) -> None:
    """Dead letters, a task that nobody takes, done tasks that nobody reads, and how long tasks took."""

    async def fill() -> None:
        async with connect(url) as bus:
            old = datetime.now(UTC) - timedelta(hours=1)
            await publish(bus, "t", Task("t", "old", created=old))
            await publish(bus, "t.dead", Task("t", "a"), Task("t", "b"))
            await publish(bus, "done", *(done(str(n), 20.0 if n == 7 else 0.5) for n in range(100)))

    asyncio.run(fill())
    setup = look(url)
    found = findings(setup)

    assert setup.dead == 2
    assert found["dead-letters"] == ["warning"]
    assert found["idle"] == found["done-unread"] == ["warning"]
    assert setup.durations is not None
    assert (setup.durations.longest, setup.durations.count) == (20.0, 100)
    assert look(url, kind="other").durations is None


@pytest.mark.no_faults("a question that failed leaves its check unchecked")
def test_a_bus_in_order_is_not_blamed(url: str) -> None:
    """A topic with a task that was just sent gives no warning; a backlog that stands still does not grow."""

    async def fill() -> None:
        async with connect(url) as bus:
            await publish(bus, "t", *(Task("t", str(n)) for n in range(150)))

    asyncio.run(fill())
    found = findings(look(url))

    assert found["dead-letters"] == found["idle"] == found["done-unread"] == found["backlog"] == []


@pytest.mark.no_faults("a question that failed leaves its check unchecked")
def test_a_backlog_that_grows_is_seen(url: str) -> None:
    """More tasks wait at the second look than at the first."""

    async def run() -> Setup:
        async with connect(url) as bus:
            await publish(bus, "t", *(Task("t", str(n)) for n in range(150)))
            setup = prepare(Asked(target=url, kind="t"))
            looking = asyncio.create_task(gather(setup, interval=2.0))
            while not looking.done():
                await publish(bus, "t", Task("t", "more"))
                await asyncio.sleep(0)
            return await looking

    assert findings(asyncio.run(run()))["backlog"] == ["warning"]


def test_facts_of_a_file_are_had_without_opening_it(url: str) -> None:
    """The adapter tells lease, syncing and file system of what is there."""

    async def run() -> dict[str, str | float | bool | None]:
        async with connect(url) as bus:
            await publish(bus, "t", Task("t", "x"))
        other = connect(url)
        facts = {fact.name: fact.value for fact in await other.diagnose(Look([("t", "t")]))}
        await other.close()
        return facts

    facts = asyncio.run(run())
    assert facts["lease"] == 30.0
    assert facts["file.exists"] is True
    assert isinstance(facts["file.system"], str)
    assert isinstance(facts["file.free"], int)


def test_options_of_the_url_are_judged(tmp_path: Path) -> None:
    """A short lease and slack syncing are found, on both buses."""
    for text in ("sqlite:{}?synchronous=normal&lease=1s", "file:{}?sync=false&lease=1s"):
        found = findings(look(text.format(tmp_path / "work")))
        assert found["file-sync"] == ["note"]
        assert found["lease-short"] == ["warning"]


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    """The longest mount point wins, of equal ones the later; names may hold escapes."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)

    def found(path: str) -> str:
        return file_system(path, str(mounts))

    assert found("/tmpfile") == "ext4"
    assert found("/tmp/x") == "tmpfs"
    assert found("/mnt/with space/work.db") == "nfs4"
    assert found("/mnt/with space/local/work.db") == "fuse.sshfs"


def test_a_system_that_does_not_tell_mounts_is_a_fact(tmp_path: Path) -> None:
    """Without /proc the file system is unknown, with the reason."""
    (fact,) = [fact for fact in file_facts(str(tmp_path), str(tmp_path / "none")) if fact.name == "file.system"]

    assert fact.value is None
    assert "none" in fact.trouble


class Page:
    """A status page to be read."""

    def __init__(self) -> None:
        self.is_ready = True
        self.source = "sqlite:work.db"

    def statistics(self) -> dict[str, object]:
        progress = [{"id": "1", "seconds": 12.5}]
        return {"app": "worker", "type": "t", "topic": "t", "group": "g", "in": self.source, "in_progress": progress}

    def healthy(self) -> tuple[bool, str]:
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        return self.is_ready, "ok" if self.is_ready else "draining"

    def metrics(self) -> Iterator[Metric]:
        yield Metric("taskbus_task_seconds_sum", "summary", "x", 8.0, {"task_type": "t"})
        yield Metric("taskbus_task_seconds_count", "summary", "x", 4, {"task_type": "t"})
        yield Metric("taskbus_lease_lost_total", "counter", "x", 3, {"task_type": "t"})


def test_a_status_page_is_read() -> None:
    """Names, durations, counters, open files and readiness come from it."""
    page = Page()
    with serve_status(page, "127.0.0.1", 0) as port:
        setup = prepare(Asked(target=f"http://127.0.0.1:{port}"))
        page.is_ready = False
        late = read_status(f"http://127.0.0.1:{port}/")

    assert (setup.kind, setup.group, str(setup.url)) == ("t", "g", "sqlite:work.db")
    assert setup.durations is not None
    assert (setup.durations.longest, setup.durations.mean) == (12.5, 2.0)
    found = findings(setup)
    assert found["lease-lost"] == ["warning"]
    assert found["ready"] == []
    assert found["open-files"] != ["unchecked"]
    assert late.not_ready == "draining"
    assert findings(dataclasses.replace(setup, status=late))["ready"] == ["problem"]


def test_a_masked_url_is_not_used() -> None:
    """The status page shows no password, so its URL cannot be connected to; the reason is told."""
    page = Page()
    page.source = "nats://me:***@host:4222"
    with serve_status(page, "127.0.0.1", 0) as port:
        setup = prepare(Asked(target=f"http://127.0.0.1:{port}"))
        given = prepare(Asked(target=f"http://127.0.0.1:{port}", bus="nats://me:secret@host"))

    assert setup.url is None
    assert "give the URL as --bus" in setup.troubles["queues"]
    assert given.url == parse_url("nats://me:secret@host")


@pytest.mark.parametrize("address", ["http://user:pw@h", "ftp://h", "http://"])
def test_a_wrong_address_is_refused(address: str) -> None:
    """What is no address of a status page is a mistake of the caller, and no password is shown."""
    with pytest.raises(SettingsError) as caught:
        read_status(address)
    assert "pw" not in str(caught.value)


def test_nobody_at_the_address() -> None:
    """A status page that does not answer is an error that names it."""
    with pytest.raises(StatusError, match=r"http://127\.0\.0\.1:1 cannot be read"):
        read_status("http://127.0.0.1:1")


def test_no_task_yet_is_no_duration() -> None:
    """A worker that has done nothing tells no duration."""
    from apps.doctor.setup import Status

    assert durations_of(Status("x", {"in_progress": []}, {"taskbus_task_seconds_count": 0.0})) is None


@pytest.mark.parametrize(
    ("name", "text", "grace", "memory", "files"),
    [
        ("w.service", "[Unit]\nTimeoutStopSec=1\n[Service]\nTimeoutStopSec=1min 30s\n", 90.0, None, None),
        ("w.service", "[Service]\nExecStart=x\n", 90.0, None, None),
        ("w.service", "[Service]\nTimeoutStopSec=infinity\n", float("inf"), None, None),
        (
            "w.service",
            "[Service]\nTimeoutStopSec=20\nMemoryMax=512M\nLimitNOFILE=1024:4096",
            20.0,
            512 * 2**20,
            1024.0,
        ),
        (
            "k.yaml",
            "kind: ConfigMap\n---\nkind: Deployment\nmetadata: {name: w}\nspec:\n  template:\n    spec:\n"
            "      terminationGracePeriodSeconds: 45\n      containers:\n"
            "      - resources: {limits: {memory: 1Gi}}\n      - name: other\n",
            45.0,
            2**30,
            None,
        ),
        ("k.yml", "kind: Pod\nspec:\n  containers: [{name: a}]\n", 30.0, None, None),
        ("compose.yaml", "services:\n  a: {stop_grace_period: 1m}\n  b: {mem_limit: 256m}\n", 10.0, 256 * 2**20, None),
    ],
)
def test_limits_are_read(
    tmp_path: Path, name: str, text: str, grace: float, memory: float | None, files: float | None
) -> None:
    """Units, manifests and compose files tell the grace period, with the defaults of each, and other limits."""
    (tmp_path / name).write_text(text)

    limits = read_limits(str(tmp_path / name))

    assert (limits.grace, limits.memory, limits.files) == (grace, memory, files)
    assert name in limits.source


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.service", "nothing"),
        ("w.service", "[Service]\nTimeoutStopSec=soon\n"),
        ("k.yaml", "kind: ConfigMap\n"),
        ("k.yaml", "{"),
        ("k.yaml", "services: {a: {stop_grace_period: soon}}"),
        ("k.yaml", "kind: Pod\nspec: {containers: [{resources: {limits: {memory: lots}}}]}"),
        ("k.yaml", "&a [*a, *a]"),
    ],
)
def test_wrong_limits_are_refused(tmp_path: Path, name: str, text: str) -> None:
    """A file that says nothing of the kind is a mistake that is told, with its name."""
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=name):
        read_limits(str(tmp_path / name))


def test_settings_are_read_as_the_worker_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment and flags have their precedence; a setting of the user's own is left aside."""
    monkeypatch.setenv("TASKBUS_KILL_TIME", "20s")
    path = tmp_path / "worker.toml"
    path.write_text('bus = "sqlite:a.db"\nkill_time = "30s"\nretries = 3\nmy_own = "x"\n')

    setup = prepare(Asked(target=str(path), kind="t", flags=("--retries", "5")))

    assert setup.options is not None
    assert (setup.options.kill_time, setup.options.retries, str(setup.url)) == (20.0, 5, "sqlite:a.db")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(target="nonsense"), "configuration file ends in"),
        (Asked(target="none.toml"), "none.toml"),
        (Asked(target="nats://u:secret@h:x"), "port"),
        (Asked(target="nats://h", bus="nats://h"), "--bus"),
        (Asked(target="http://h", status="http://h"), "--status"),
        (Asked(target="sqlite:x", flags=("--retries", "many")), "--retries"),
        (Asked(target="sqlite:x", flags=("--nonsense",)), "nonsense"),
        (Asked(target="sqlite:x", kind="../x"), "x"),
    ],
)
def test_wrong_use_is_told(asked: Asked, said: str) -> None:
    """A mistake is told in the words of what is wrong, without a password."""
    from bus import TaskbusError

    with pytest.raises(TaskbusError, match=said) as caught:
        prepare(asked)
    assert "secret" not in str(caught.value)


def test_a_wrong_monitor_is_refused() -> None:
    """The address of the monitoring port is checked before anything is asked there."""
    with pytest.raises(BusURLError, match="http://HOST:8222"):
        asyncio.run(gather(prepare(Asked(target="nats://127.0.0.1:1?timeout=100ms")), interval=0, monitor="h:8222"))


def test_the_command_tells_problems_by_its_exit_code(tmp_path: Path) -> None:
    """0 without a problem, 1 with one, 2 for wrong use; secrets are masked."""
    (tmp_path / "w.toml").write_text('bus = "sqlite:work.db"\ntimeout = "1m"\n')

    good = taskbus("doctor", "w.toml", "--type", "t", "--grace", "30s", cwd=tmp_path)
    bad = taskbus("doctor", "w.toml", "--type", "t", "--grace", "10s", "--json", cwd=tmp_path)
    away = taskbus("doctor", "nats://u:hunter2@127.0.0.1:1?timeout=100ms", cwd=tmp_path)
    wrong = taskbus("doctor", "w.ini", cwd=tmp_path)

    assert (good.code, bad.code, away.code, wrong.code) == (0, 1, 1, 2), (good, bad, away, wrong)
    told = json.loads(bad.out)
    assert told["counts"]["problem"] == 1
    assert [
        check["check"] for check in told["checks"] if not check["ok"] and check["findings"][0]["severity"] == "problem"
    ] == ["grace"]
    assert "hunter2" not in away.out + away.err
    assert "problem bus" in away.out
    assert (tmp_path / "work.db").exists() is False


def test_the_report_says_everything(tmp_path: Path) -> None:
    """Every check is in the text, as a finding, as fine, or as not made; and in the JSON."""
    setup = look(f"sqlite:{tmp_path / 'x.db'}?lease=1s")
    made = list(examine(setup))
    text = "\n".join(as_text(setup, made))

    assert all(check.name in text for check, _ in made)
    assert "change: " in text
    assert "why: " in text
    assert [each["check"] for each in as_json(setup, made)["checks"]] == [check.name for check, _ in made]
