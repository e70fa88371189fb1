"""From rule files to the players of a simulation: all mistakes of all files are told at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from bus import dead_topic
from task.errors import SettingsError
from taskmasters.cron.rules import load_cron_rules
from taskmasters.on_done import rules as on_done
from taskmasters.retry import rules as retry
from taskmasters.simulate.files import find_files
from taskmasters.simulate.flows import WorkflowPlayer
from taskmasters.simulate.made import DONE, FAILED, REQUESTS
from taskmasters.simulate.players import CronPlayer, DelayPlayer, OnDonePlayer, Player, RetryPlayer
from taskmasters.simulate.results import Results, load_results
from taskmasters.workflow import load as workflow
from taskmasters.workflow.definition import Workflow

__all__ = ["prepare"]

Given = TypeVar("Given")
Loaded = TypeVar("Loaded")


def prepare(given: Sequence[str], results: str | None, start: float) -> tuple[list[Player], Results]:
    """The taskmasters of these files, which begin at the moment ``start``, and the results of tasks.

    Raises:
        SettingsError: naming every mistake in all of them.
    """
    wrong: list[str] = []

    def load(read: Callable[[Given], Loaded], given: Given) -> Loaded | None:
        try:
            return read(given)
        except SettingsError as error:
            wrong.extend(line for line in str(error).splitlines() if not line.endswith(" mistakes:"))
            return None

    files = load(find_files, given)
    rules = None if results is None else load(load_results, results)
    if files is None:
        raise _all(wrong)
    crons = [(path, load(load_cron_rules, path)) for path in files.cron]
    chains = [(path, load(_on_done, path)) for path in files.on_done]
    retries = [(path, load(_retry, path)) for path in files.retry]
    flows = load(_workflows, files.workflow) if files.workflow else None
    if wrong:
        raise _all(wrong)
    players: list[Player] = []
    players += [CronPlayer(path, found, start) for path, found in crons if found is not None]
    players += [OnDonePlayer(path, found) for path, found in chains if found is not None]
    if flows is not None:
        players.append(WorkflowPlayer(flows, start))
    players += [RetryPlayer(path, found, start) for path, found in retries if found is not None]
    players.append(DelayPlayer(start))
    return players, Results(rules or (), results or "")


def _on_done(path: str) -> Sequence[on_done.OnDoneRule]:
    rules = on_done.load_on_done_rules(path)
    _in_file(path, lambda: on_done.check_topics(rules, DONE, dead_topic(DONE)))
    return rules


def _retry(path: str) -> Sequence[retry.RetryRule]:
    rules = retry.load_retry_rules(path)
    _in_file(path, lambda: retry.check_topics(rules, DONE, dead_topic(DONE), FAILED))
    return rules


def _workflows(paths: Sequence[str]) -> Sequence[Workflow]:
    workflows = workflow.load_workflows(*paths)
    workflow.check_topics(workflows, DONE, REQUESTS)
    return workflows


def _in_file(path: str, check: Callable[[], None]) -> None:
    try:
        check()
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _all(wrong: Sequence[str]) -> SettingsError:
    return SettingsError("\n".join([f"{len(wrong)} mistakes:", *wrong]) if len(wrong) > 1 else wrong[0])
