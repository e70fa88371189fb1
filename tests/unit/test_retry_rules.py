"""Rules of the retry taskmaster: what they are for, the exact delays, and every mistake told."""

from __future__ import annotations

from pathlib import Path

import pytest

from task import Task
from task.errors import SettingsError
from task.outcome import Result
from taskmasters.retry.explain import explain
from taskmasters.retry.rules import RetryRule, find_rule, load_retry_rules


def load(folder: Path, text: str) -> list[RetryRule]:
    path = folder / "rules.toml"
    path.write_text(text)
    return load_retry_rules(str(path))


def one(folder: Path, keys: str) -> RetryRule:
    """The rule with these keys."""
    given = "" if "match" in keys else 'match = { type = "t" }\n'
    given += "" if "retries" in keys else "retries = 3\n"
    (rule,) = load(folder, f"[[rule]]\n{given}{keys}\n")
    return rule


@pytest.mark.parametrize(
    ("keys", "delays"),
    [
        ('backoff = "fixed"\ndelay = "10s"', [10, 10, 10, 10]),
        ('backoff = "linear"\ndelay = "10s"\nmax_delay = "35s"', [10, 20, 30, 35, 35]),
        ('backoff = "fibonacci"\ndelay = "10s"\nmax_delay = "3m"', [10, 10, 20, 30, 50, 80, 130, 180, 180]),
        ('delay = "10s"\njitter = 0', [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]),
        ('delay = "2h"\njitter = "0%"', [7200, 7200]),
        ("delay = 0\njitter = 0", [0, 0]),
    ],
)
def test_delays(tmp_path: Path, keys: str, delays: list[float]) -> None:
    """The delays of each kind, in seconds, exactly."""
    rule = one(tmp_path, keys)
    assert [rule.delays.before(number, "any") for number in range(1, len(delays) + 1)] == delays


@pytest.mark.parametrize(
    ("id", "number", "delay"),
    [
        ("a", 1, 7.24788),
        ("a", 2, 14.16411),
        ("a", 3, 21.76824),
        ("b", 1, 6.56942),
        ("b", 2, 10.04381),
        ("b", 3, 24.29028),
    ],
)
def test_jitter_is_derived(tmp_path: Path, id: str, number: int, delay: float) -> None:
    """What chance takes off depends on the task's id and the number of the retry alone."""
    rule = one(tmp_path, 'delay = "10s"')
    assert rule.delays.before(number, id) == pytest.approx(delay, abs=1e-5)


@pytest.mark.parametrize(("jitter", "least"), [('"20%"', 80), ("0.2", 80), ("1", 0), ('"100%"', 0)])
def test_jitter_is_spread(tmp_path: Path, jitter: str, least: float) -> None:
    """Delays lie anywhere between what the jitter leaves and the whole."""
    rule = one(tmp_path, f'backoff = "fixed"\ndelay = 100\njitter = {jitter}')
    delays = sorted(rule.delays.before(1, str(number)) for number in range(2000))
    assert least <= delays[0] < least + (100 - least) * 0.01
    assert 100 - (100 - least) * 0.01 < delays[-1] <= 100
    assert sum(delays) / 2000 == pytest.approx((100 + least) / 2, rel=0.02)


def task(**more: object) -> Task:
    return Task(**{"type": "t", "value": "s3://a/b", "id": "i", "job": "j", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "given", "result", "fits"),
    [
        ("", task(), Result.ERROR, True),
        ("", task(type="u"), Result.ERROR, False),
        ("", task(), Result.WARN, False),
        ("", task(), Result.ALERT, False),
        ("", task(), Result.COMPLETE, False),
        ("", task(meta={"workflow": "w"}), Result.ERROR, False),
        ("unless = {}", task(meta={"workflow": "w"}), Result.ERROR, True),
        ('unless = { job = "j*" }', task(), Result.ERROR, False),
        ('unless = { job = "j*" }', task(job="k", meta={"workflow": "w"}), Result.ERROR, True),
        ('unless = { value = "s3:*" }', task(value="x"), Result.ERROR, True),
        ('unless = { result = "warn" }', task(), Result.ERROR, True),
        ('match = { type = "t", result = ["error", "warn"] }', task(), Result.WARN, True),
        ('match = { type = "t", result = "warn" }', task(), Result.ERROR, False),
        ('match = { type = ["u", "t*"], job = "j", value = "*/b" }', task(), Result.ERROR, True),
        ('match = { meta = { k = "*" } }', task(), Result.ERROR, False),
        ('match = { meta = { k = "*" } }', task(meta={"k": ""}), Result.ERROR, True),
        ("enabled = false", task(), Result.ERROR, False),
    ],
)
def test_matching(tmp_path: Path, keys: str, given: Task, result: Result, fits: bool) -> None:
    """``match`` must fit and ``unless`` must not, which is tasks of workflows where nothing is said."""
    assert (find_rule([one(tmp_path, keys)], given, result) is not None) is fits


def test_the_first_rule_counts(tmp_path: Path) -> None:
    """Of several rules for a task the first decides."""
    rules = load(
        tmp_path,
        """
        [[rule]]
        match = { type = "t", job = "j" }
        retries = 1
        [[rule]]
        match = { type = "t" }
        retries = 2
        """,
    )
    first, second = find_rule(rules, task(), Result.ERROR), find_rule(rules, task(job="k"), Result.ERROR)
    assert (first and first.id, second and second.id) == ("t:j", "t")


def test_topics(tmp_path: Path) -> None:
    """Tasks go to the topic of their type and its dead letters, unless the rule names others."""
    plain, named = one(tmp_path, ""), one(tmp_path, 'topic = "u"')
    assert (plain.target(task()), plain.dead_target(task())) == ("t", "t.dead")
    assert (named.target(task()), named.dead_target(task())) == ("u", "u.dead")
    assert one(tmp_path, 'dead_topic = "lost"').dead_target(task()) == "lost"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('match = { type = "t", result = "alert" }', "rule[0].match.result: only error and warn are retried"),
        ('match = { type = "t", result = "*" }', "rule[0].match.result: only error and warn are retried"),
        ('match = { typ = "t" }', "rule[0].match.typ: unknown key; did you mean 'type'?"),
        ('backoff = "fibonaci"', "'fibonaci' is none of exponential, fibonacci, linear, fixed"),
        ('delay = "soon"', "rule[0].delay: 'soon' is not a duration"),
        ("delay = -1", "rule[0].delay: must not be negative"),
        ('delay = "2h"\nmax_delay = "1h"', "rule[0].max_delay: is shorter than the first delay"),
        ("jitter = 2", "rule[0].jitter: must be the part of a delay"),
        ('jitter = "x"', "rule[0].jitter: must be the part of a delay"),
        ("jitter = true", "rule[0].jitter: must be the part of a delay"),
        ("retries = -1", "rule[0].retries: must be a whole number of at least 0"),
        ("retries = true", "rule[0].retries: must be a whole number"),
        ('topic = "a b"', "rule[0].topic: 'a b' is not a topic name"),
        ('dead_topic = "a b"', "rule[0].dead_topic: 'a b' is not a topic name"),
        ('unless = { meat = "x" }', "rule[0].unless.meat: unknown key; did you mean 'meta'?"),
        ("unles = {}", "rule[0].unles: unknown key; did you mean 'unless'?"),
        ("retry = 3", "unknown key; did you mean 'retries'?"),
    ],
)
def test_mistakes(tmp_path: Path, keys: str, said: str) -> None:
    """Each mistake is told with its place and what would be right."""
    with pytest.raises(SettingsError) as caught:
        one(tmp_path, keys)
    assert said in str(caught.value), str(caught.value)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """What is missing is told too, together with the rest."""
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, '[[rule]]\nbackoff = "never"\n')
    text = str(caught.value)
    assert "3 mistakes:" in text
    assert "rules.toml:2: rule[0].backoff" in text
    assert "the rule has no 'match': which done tasks it is for" in text
    assert "the rule has no 'retries': how many times a task is tried again" in text


def test_explained(tmp_path: Path) -> None:
    """--check says in words what a rule does."""
    rules = load(
        tmp_path,
        """
        [[rule]]
        id = "loads"
        match = { type = "load" }
        retries = 12
        delay = "1m"
        backoff = "fibonacci"
        within = "1d"
        jitter = "20%"
        [[rule]]
        match = { type = "send" }
        unless = {}
        retries = 0
        enabled = false
        """,
    )
    assert list(explain(rules)) == [
        "loads",
        "  for load that ended with error",
        "  but not for any type, meta workflow present",
        "  retries: at most 12 times, within 1d of the first failure",
        "  delays: 1m, 1m, 2m, 3m, 5m, 8m, 13m, 21m, 34m, 55m … (fibonacci, from 1m to 1h, less up to 20% by chance)",
        "  sends to: the topic of its type",
        "  given up: a dead letter on that topic + .dead",
        "send (disabled)",
        "  for send that ended with error",
        "  retries: none",
        "  sends to: the topic of its type",
        "  given up: a dead letter on that topic + .dead",
    ]
