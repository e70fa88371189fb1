"""What is sent for the files that were seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from taskmasters.files import tables
from taskmasters.files.engine import FileEngine
from taskmasters.files.entry import Entry
from taskmasters.files.rules import FileRule, load_file_rules
from taskmasters.files.tables import FILES
from taskmasters.store import Store, open_store, outbox
from taskmasters.store.outbox import OUTBOX

NOW = 1_800_000_000.0


def entry(name: str, version: str = "1", mtime: float = NOW) -> Entry:
    return Entry(f"/in/{name}", 10, mtime, version)


class Run:
    """An engine with a state, driven by hand. ``begin`` is a start of the process."""

    def __init__(self, folder: Path, text: str, store: Store) -> None:
        self._path = folder / "rules.toml"
        self.store = store
        self.sent: list[dict[str, Any]] = []
        self._seen: set[str] = set()
        self.begin(text)

    def begin(self, text: str) -> None:
        self._path.write_text(text)
        self.rules: list[FileRule] = load_file_rules(str(self._path))
        self.engine = FileEngine(self.rules)
        self.store.call(lambda tx: self.engine.open(tx, NOW))

    def forget_sent(self) -> None:
        """As the outbox does, after a day."""
        self.store.call(lambda tx: outbox.withdraw(tx, self._seen))
        self._seen.clear()

    def look(self, at: float, *entries: Entry, complete: bool = True, rule: str = "load") -> list[str]:
        """A look shows these. Returns the values of the tasks that are sent then, in order."""
        self.engine.observe(rule, entries, NOW + at, NOW + at, complete=complete)
        return self.act(at)

    def act(self, at: float) -> list[str]:
        while plan := self.engine.plan(NOW + at):
            self.store.call(lambda tx, p=plan: p.write(tx, NOW + at))  # type: ignore[misc]
            self.engine.commit(plan)
        stored = self.store.call(lambda tx: outbox.due(tx, NOW + 1e6, 10_000))
        new = [orjson.loads(one.message.body) for one in stored if one.message.id not in self._seen]
        self._seen |= {one.message.id for one in stored}
        self.sent += new
        return [task["task"] for task in new]


SIMPLE = """
[[rule]]
id = "load"
path = "/in/**/*.json"
type = "load"
settle = "2s"
"""


@pytest.fixture
def store(state_url: str) -> Iterator[Store]:
    opened = open_store(state_url, OUTBOX, FILES)
    yield opened
    opened.close()


@pytest.fixture
def run(tmp_path: Path, store: Store) -> Run:
    return Run(tmp_path, SIMPLE, store)


def test_a_file_is_sent_once_it_has_settled(run: Run) -> None:
    """Not while it is being written, and not twice."""
    assert run.look(0, entry("a.json", "1")) == []
    assert run.look(1, entry("a.json", "2")) == []
    assert run.look(2.5, entry("a.json", "2")) == []
    assert run.look(3, entry("a.json", "2")) == ["/in/a.json"]
    assert run.look(4, entry("a.json", "2")) == []


def test_a_look_that_lasts_long_does_not_shorten_the_time_to_settle(run: Run) -> None:
    """It counts from the end of the first look to the beginning of the second."""
    run.engine.observe("load", [entry("a.json")], NOW, NOW + 5, complete=True)
    assert run.look(6, entry("a.json")) == []
    assert run.look(7, entry("a.json")) == ["/in/a.json"]


def test_a_clock_that_is_set_back(run: Run) -> None:
    """The file waits from then on, not for the old time to come again."""
    run.look(1000, entry("a.json"))
    assert run.look(0, entry("a.json")) == []
    assert run.look(2, entry("a.json")) == ["/in/a.json"]


def settled(run: Run, *entries: Entry, at: float = 0.0) -> list[str]:
    run.look(at, *entries)
    return run.look(at + 2, *entries)


def test_nothing_is_sent_again_after_a_restart(run: Run) -> None:
    """flowlord's filewatcher sends the whole window again."""
    assert settled(run, entry("a.json"), entry("b.json")) == ["/in/a.json", "/in/b.json"]
    run.begin(SIMPLE)
    assert settled(run, entry("a.json"), entry("b.json"), entry("c.json"), at=10) == ["/in/c.json"]


def test_an_error_makes_nothing_new(run: Run) -> None:
    """A look that failed tells of nothing that it is gone; flowlord's filewatcher drops its cache then."""
    settled(run, entry("a.json"))
    assert run.look(10, complete=False) == []
    assert settled(run, entry("a.json"), at=20) == []
    assert run.engine.watched["load"].gone == set()


def test_a_disk_that_is_away_makes_nothing_new(run: Run) -> None:
    """A folder that looks empty, as where a disk is not mounted, and then has its files again."""
    settled(run, entry("a.json"))
    run.look(10)
    run.begin(SIMPLE)
    run.look(20)
    assert settled(run, entry("a.json"), at=30) == []


def test_the_first_file_counts_once(run: Run, tmp_path: Path, store: Store) -> None:
    """The files taskmaster of the Go toolkit appends the first file of a group twice: its count is off by one."""
    run.begin(GROUPED)
    assert settled(run, entry("x/a.json"), entry("x/b.json")) == []
    assert settled(run, entry("x/a.json"), entry("x/b.json"), entry("x/c.json"), at=10) == ["/in/x?n=3"]


def test_rules_read_again_do_not_fire_twice(run: Run) -> None:
    """flowlord appends the rules at every refresh; deleted ones go on firing."""
    settled(run, entry("a.json"))
    run.begin(SIMPLE)
    run.begin(SIMPLE)
    assert settled(run, entry("a.json"), entry("b.json"), at=10) == ["/in/b.json"]
    run.begin(SIMPLE.replace('"load"', '"other"', 1))
    assert list(run.engine.watched) == ["other"]


def test_a_changed_file_is_sent_again(run: Run) -> None:
    """With another id; never, if the rule says so."""
    settled(run, entry("a.json", "1"))
    assert settled(run, entry("a.json", "2"), at=10) == ["/in/a.json"]
    assert len({task["id"] for task in run.sent}) == 2
    run.begin(SIMPLE + 'again = "never"\n')
    assert settled(run, entry("a.json", "3"), at=20) == []


def test_temporary_and_excluded_names(run: Run) -> None:
    """They are left out; what is temporary can be said."""
    names = [".a.json", "b.json.tmp", "c.json~", "sub/.d.json", "skip/e.json", "f.json"]
    run.begin(SIMPLE + 'exclude = ["/in/skip/*"]\n')
    assert settled(run, *map(entry, names)) == ["/in/f.json"]
    run.begin(SIMPLE + "temporary = []\n")
    assert sorted(settled(run, *map(entry, names), at=10)) == ["/in/.a.json", "/in/skip/e.json", "/in/sub/.d.json"]


def test_what_was_there_before_the_rule(run: Run) -> None:
    """existing = false passes over it, also when the first look is cut short by a crash, and sends what comes later."""
    run.begin(SIMPLE + "existing = false\n")
    run.engine.observe("load", [entry("a.json")], NOW, NOW, complete=True)
    run.begin(SIMPLE + "existing = false\n")
    assert settled(run, entry("a.json")) == []
    run.begin(SIMPLE + "existing = false\n")
    assert settled(run, entry("a.json"), entry("b.json"), at=10) == ["/in/b.json"]
    assert settled(run, entry("a.json", "2"), at=20) == ["/in/a.json"]


def test_old_files_are_left_alone(run: Run) -> None:
    """Without tokens in the path, lookback is about when they were changed."""
    run.begin(SIMPLE + 'lookback = "1h"\n')
    assert settled(run, entry("a.json", mtime=NOW - 7200), entry("b.json", mtime=NOW - 60)) == ["/in/b.json"]


def test_files_that_are_gone_are_forgotten_at_last(run: Run, store: Store) -> None:
    """Not before their time; those that came back are kept."""
    settled(run, entry("a.json"), entry("b.json"))
    run.look(10)
    run.look(20, entry("b.json"))
    assert store.call(lambda tx: tables.forget(tx, NOW + 9)) == []
    found = store.call(lambda tx: tables.forget(tx, NOW + 11))
    assert found == [("load", "/in/a.json")]
    run.engine.forgotten(found)
    run.forget_sent()
    assert settled(run, entry("a.json"), entry("b.json"), at=30) == ["/in/a.json"]


def test_the_files_of_a_rule_that_is_no_more_are_forgotten(run: Run, store: Store) -> None:
    """They count as gone from then on, and not if the rule comes back."""
    settled(run, entry("a.json"))
    run.begin(SIMPLE.replace('id = "load"', 'id = "other"'))
    assert [row.gone for row in store.call(lambda tx: tables.read(tx, "load"))] == [True]
    run.begin(SIMPLE)
    assert settled(run, entry("a.json"), at=10) == []
    assert [row.gone for row in store.call(lambda tx: tables.read(tx, "load"))] == [False]


def test_ids_come_from_rule_path_and_version(tmp_path: Path) -> None:
    """The same in another state; another for each of the three."""
    found = set()
    for text, version in ((SIMPLE, "1"), (SIMPLE, "1"), (SIMPLE, "2"), (SIMPLE.replace("2s", "1s"), "1")):
        opened = open_store(":memory:", OUTBOX, FILES)
        run = Run(tmp_path, text, opened)
        settled(run, entry("a.json", version))
        found.add(run.sent[0]["id"])
        opened.close()
    assert len(found) == 2


def test_a_file_without_a_value_is_a_problem_until_the_rule_is_mended(run: Run) -> None:
    """It is told and not lost."""
    run.begin(SIMPLE + 'task = "{file}?hour={hh}"\n')
    assert settled(run, entry("a.json"), entry("2026/01/02/b.json")) == ["/in/2026/01/02/b.json?hour=00"]
    assert list(run.engine.problems()) == ["rule load, '/in/a.json': there is no value for {hh}"]
    run.begin(SIMPLE)
    assert settled(run, entry("a.json"), entry("2026/01/02/b.json"), at=10) == ["/in/a.json"]


def test_names_that_are_no_text(run: Run) -> None:
    """Such a file is told of, and the others are sent."""
    assert settled(run, entry("\udcff.json"), entry("b.json")) == ["/in/b.json"]
    assert "its name is not UTF-8, which a task cannot hold: rename it" in "".join(run.engine.problems())


GROUPED = """
[[rule]]
id = "load"
path = "/in/**/*.json"
type = "load"
task = "{group}?n={count}"
settle = "2s"
group_by = "directory"
count = 3
"""


def test_a_group_waits_for_its_count_over_restarts(run: Run) -> None:
    """What waits is kept in the state."""
    run.begin(GROUPED)
    assert settled(run, entry("x/a.json"), entry("x/b.json"), entry("y/a.json")) == []
    run.begin(GROUPED)
    all_three = [entry("x/a.json"), entry("x/b.json"), entry("x/c.json"), entry("y/a.json")]
    assert settled(run, *all_three, at=10) == ["/in/x?n=3"]
    assert run.sent[-1]["meta"] == {"group": "/in/x"}
    assert settled(run, *all_three, at=20) == []


def test_quiet_time(run: Run) -> None:
    """It begins anew with every file, and is known to be over without a look."""
    run.begin(GROUPED.replace("count = 3", 'quiet = "10s"'))
    settled(run, entry("x/a.json"))
    settled(run, entry("x/a.json"), entry("x/b.json"), at=5)
    assert run.engine.wake(NOW + 8) == NOW + 17
    assert run.act(16.9) == []
    assert run.act(17) == ["/in/x?n=2"]


def test_all_conditions(run: Run) -> None:
    """needs = "all" waits for every one of them."""
    run.begin(GROUPED.replace("count = 3", 'count = 1\nquiet = "10s"\nneeds = "all"'))
    assert settled(run, entry("x/a.json")) == []
    assert run.act(12) == ["/in/x?n=1"]


def test_a_marker_counts_from_the_second_look_on(run: Run) -> None:
    """A file that came before the marker may be missing in the look that shows it first."""
    run.begin(GROUPED.replace("count = 3", 'marker = "_SUCCESS"'))
    settled(run, entry("x/a.json"))
    assert run.look(10, entry("x/a.json"), entry("x/_SUCCESS")) == []
    assert run.engine.wants_look("load")
    assert run.look(11, entry("x/a.json"), entry("x/b.json"), entry("x/_SUCCESS")) == []
    assert run.look(13, entry("x/a.json"), entry("x/b.json"), entry("x/_SUCCESS")) == ["/in/x?n=2"]


def test_cron_makes_up_for_an_instant_that_passed(run: Run) -> None:
    """The group goes at the first instant after its first file, also if nobody ran at that instant."""
    text = GROUPED.replace("count = 3", 'cron = "0 * * * *"')
    run.begin(text)
    settled(run, entry("x/a.json"))
    wake = run.engine.wake(NOW + 3)
    assert wake is not None
    assert wake % 3600 == 0
    assert run.act(wake - NOW - 1) == []
    run.begin(text)
    assert run.act(wake - NOW + 9999) == ["/in/x?n=1"]


def test_groups_by_a_pattern(run: Run) -> None:
    """Named groups of match make the key."""
    run.begin(
        GROUPED.replace(
            'group_by = "directory"',
            r"""match = '(?P<region>\w+)-\d+\.json$'
group_by = "{match:region}" """,
        ).replace("count = 3", "count = 2")
    )
    found = settled(run, entry("eu-1.json"), entry("x/eu-2.json"), entry("us-1.json"), entry("none.json"))
    assert found == ["eu?n=2"]


def test_a_waiting_file_that_goes_leaves_its_group(run: Run) -> None:
    """The task must not name what is not there."""
    run.begin(GROUPED)
    settled(run, entry("x/a.json"), entry("x/b.json"))
    run.look(5, entry("x/b.json"))
    assert settled(run, entry("x/b.json"), entry("x/c.json"), at=10) == []
    assert settled(run, entry("x/b.json"), entry("x/c.json"), entry("x/d.json"), at=20) == ["/in/x?n=3"]


def test_a_group_too_large_for_a_task(run: Run) -> None:
    """It waits and is told of; nothing is cut or lost."""
    run.begin(GROUPED.replace("{group}?n={count}", "{group}?files={files}"))
    run.engine._limit = 200
    files = [entry(f"x/{number:050d}.json") for number in range(3)]
    assert settled(run, *files) == []
    assert "more than the limit of 200" in "".join(run.engine.problems())
    run.begin(GROUPED)
    assert run.act(10) == ["/in/x?n=3"]


def test_a_plan_that_was_not_committed_is_made_again(run: Run) -> None:
    """The database was away: the same task, with the same id."""
    run.engine.observe("load", [entry("a.json")], NOW, NOW, complete=True)
    run.engine.observe("load", [entry("a.json")], NOW + 2, NOW + 2, complete=True)
    lost = run.engine.plan(NOW + 2)
    again = run.engine.plan(NOW + 3)
    assert [message.id for message in lost.messages] == [message.id for message in again.messages]


def test_very_many_files(run: Run) -> None:
    """They are dealt with in transactions of bounded size, each file once."""
    files = [entry(f"{number}.json") for number in range(2500)]
    run.engine.observe("load", files, NOW, NOW, complete=True)
    run.engine.observe("load", files, NOW + 2, NOW + 2, complete=True)
    sizes = []
    while plan := run.engine.plan(NOW + 2):
        sizes.append(len(plan.rows))
        run.store.call(lambda tx, p=plan: p.write(tx, NOW))  # type: ignore[misc]
        run.engine.commit(plan)
    assert sum(sizes) == 2500
    assert max(sizes) == 1000


def values(rules: Iterable[FileRule], found: Entry) -> list[str]:
    return [orjson.loads(rule.make("id", [found], "", 0.0))["task"] for rule in rules]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("{file}", "/in/2026/01/02/a%20b%3F%25.json"),
        ("{file}?x={file.name}", "/in/2026/01/02/a%20b%3F%25.json?x=a%20b?%25.json"),
        ("{file|raw}", "/in/2026/01/02/a b?%.json"),
        ("s3://b/{file.stem}-{yyyy}{mm}{dd}", "s3://b/a%20b%3F%25-20260102"),
        ("{file.dir}", "/in/2026/01/02"),
        ("new: {file}", "new: /in/2026/01/02/a b?%.json"),
        ("x?size={file.size}&at={file.mtime}&y={file.mtime.yyyy}", "x?size=10&at=2027-01-15T08:00:00Z&y=2027"),
    ],
)
def test_tokens(tmp_path: Path, task: str, expected: str) -> None:
    """A path at the beginning of a value is encoded, so that a reader of the URI gets the path."""
    (tmp_path / "rules.toml").write_text(SIMPLE + f"task = {task!r}\n")
    rules = load_file_rules(str(tmp_path / "rules.toml"))
    assert values(rules, entry("2026/01/02/a b?%.json")) == [expected]
