"""The settings of a worker application, each in one place with its meaning, unit and default."""

from __future__ import annotations

from dataclasses import dataclass

from task.codec import DEFAULT_MAX_SIZE
from task.retry import KINDS
from task.setting import choice, count, duration, setting, size

__all__ = ["DEFAULT_BUS", "AppOptions", "WorkerOptions"]

#: The bus used when nothing says otherwise: a file in the current folder.
DEFAULT_BUS = "sqlite:taskbus.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOptions:
    """What every application that runs has: its bus, its logs and its status page."""

    bus: str = setting(DEFAULT_BUS, "Bus to use.", metavar="URL")
    log_level: str = choice("info", ("debug", "info", "warning", "error"), "Least severe log line to write.")
    log_format: str = choice("auto", ("auto", "text", "json"), "Log lines for people or machines; auto asks stderr.")
    status_port: int | None = count(None, "Serve statistics, health and metrics on this port; 0 takes a free one.")
    status_host: str = setting("127.0.0.1", "Address the status port listens on.", metavar="ADDRESS")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions(AppOptions):
    """The settings of a worker application."""

    in_: str | None = setting(None, "Read tasks from a file, - (stdin) or another bus's URL.", metavar="PATH|-|URL")
    out: str | None = setting(
        None, "Write done tasks to a file, - (stdout) or another bus's URL.", metavar="PATH|-|URL"
    )
    topic: str | None = setting(None, "Topic to receive from; by default the task type.", metavar="NAME")
    group: str | None = setting(
        None, "Group whose instances share the tasks; by default the task type.", metavar="NAME"
    )
    done_topic: str = setting("done", "Topic for done tasks; - for none.", metavar="NAME")
    dead_topic: str | None = setting(None, "Topic for dead letters; by default TOPIC.dead.", metavar="NAME")
    processes: int = count(
        1, "Worker processes on this machine, kept alive by a parent; each does tasks as one alone.", least=1
    )
    max_in_progress: int = count(1, "Tasks done at the same time by this instance.", least=1)
    prefetch: int | None = count(None, "Tasks to hold beyond those in progress; by default measured.")
    isolation: str = choice(
        "auto",
        ("auto", "inline", "thread", "process"),
        "Where do_task runs: inline (async), thread, process; auto: async inline, the others in a thread.",
    )
    timeout: float | None = duration(None, "Time limit of a task: then it is told to stop.")
    hard_timeout: float | None = duration(None, "Then it is given up; default: timeout + kill time.")
    kill_time: float = duration(10.0, "On shutdown, time for running tasks to end.")
    retries: int = count(0, "How often a task that ends with error is tried again.")
    retry_delay: float = duration(1.0, "Delay before the first retry.")
    retry_backoff: str = choice("exponential", KINDS, "How the delay grows from retry to retry.")
    retry_max_delay: float = duration(900.0, "Longest delay between retries.")
    delay_topic: str | None = setting(
        None, "Topic of the delay taskmaster, for retries later than the bus can delay them.", metavar="NAME"
    )
    max_attempts: int = count(20, "Deliveries without an end after which a task is dead-lettered.", least=1)
    stall_after: float = duration(
        60.0, "Reconnect when tasks are ready and none has come for this long; 0 for never. On buses that tell depth."
    )
    lifetime: int | None = count(None, "End after this many tasks.", least=1)
    drain: bool = setting(False, "End when the topic is empty and everything is settled.")
    ack: str = choice("on-done", ("on-done", "on-receipt"), "When a task is acknowledged; on-receipt may lose it.")
    guard: str | None = setting(
        None,
        "Store in which instances tell each other what they do, against doing the same task twice: sqlite:FILE, "
        "postgresql://HOST/NAME, mysql://HOST/NAME, nats://HOST/BUCKET.",
        metavar="URL",
    )
    guard_running: str = choice(
        "wait",
        ("wait", "requeue", "skip"),
        "With --guard, when the same is being done: wait, hand the task back for later, or answer without doing it.",
    )
    guard_window: float = duration(
        0.0, "With --guard: what was done within this time is answered as it was then, not done again; 0 for never."
    )
    guard_lease: float = duration(30.0, "With --guard: what a dead instance was doing is free after this time.")
    wrong_type: str = choice(
        "dead-letter",
        ("dead-letter", "reject", "ignore"),
        "A task of another type: dead-letter it, answer done with error, or skip it.",
    )
    max_task_size: int = size(DEFAULT_MAX_SIZE, "Largest task accepted; a larger one is dead-lettered.")
    progress: bool = setting(True, "Show a progress bar when a terminal watches a finite input.")
