"""The running cron taskmaster: what has come due is published, confirmed, and only then remembered."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from bus import BusError, ClosedError, OutputClosedError, Producer
from task.collector import collector_paused
from task.retry import Backoff
from taskmasters.clock import Clock
from taskmasters.cron.ahead import Ahead
from taskmasters.cron.notes import Notes
from taskmasters.cron.rules import CronRule
from taskmasters.cron.scheduler import GRACE, Firing, Scheduler
from taskmasters.cron.state import Fired, State, StateError

__all__ = ["CronTaskmaster", "Election"]

_log = logging.getLogger("taskbus.cron")
#: Seconds between tries to publish. The longest is well below the grace of the scheduler, so nothing becomes missed.
_BACKOFF = Backoff("exponential", 0.2, 20.0)
#: Tasks published at a time.
_BATCH = 5000
#: Rules let go at a time.
_PORTION = 200


class Election(Protocol):
    """Which of several replicas is at work."""

    @property
    def leads(self) -> bool:
        """Whether it is this one, right now."""
        ...

    async def elected(self) -> None:
        """Return once it is this one."""
        ...


class CronTaskmaster:
    """Publishes the tasks of ``rules`` as they come due, until ``stop``.

    Its tasks are made a little before they come due. A firing is noted in ``state`` after its publish was confirmed: a
    crash in between publishes the same task, with the same id, again. With a ``leader`` it publishes only while that
    leads, and when that comes to lead goes on where the state says the one before was.
    """

    def __init__(
        self,
        rules: Sequence[CronRule],
        producer: Producer,
        state: State,
        clock: Clock,
        leader: Election | None = None,
    ) -> None:
        self._leader = leader
        self._producer = producer
        self._state = state
        self._clock = clock
        self._failures: defaultdict[str, int] = defaultdict(int)
        self._notes = Notes(state)
        self.rules = _enabled(rules)
        #: Tasks published and confirmed.
        self.sent = 0
        #: Tries to publish that failed; each is repeated.
        self.failed = 0
        #: What keeps tasks from being published, by topic.
        self.trouble: dict[str, str] = {}
        self.scheduler = self._start()
        self._ahead = Ahead(self.scheduler)
        self._next: list[CronRule] | None = None
        #: Earlier rules.
        self._gone: list[CronRule] = []
        self._stopping = False
        self._waiting: asyncio.Future[None] | None = None

    @property
    def leads(self) -> bool:
        """Whether it is this replica that publishes."""
        return self._leader is None or self._leader.leads

    def stop(self) -> None:
        """Publish no more than what is being published now."""
        self._stopping = True
        self._wake()

    def use(self, rules: Sequence[CronRule]) -> None:
        """Go on with these rules, once what is being published is. A rule with the id and the schedule of an earlier
        one goes on where that one is; any other begins now."""
        self._next = _enabled(rules)
        self._wake()

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it loses nothing either.

        Raises:
            OutputClosedError, ClosedError: nothing can be published any more.
        """
        try:
            while not self._stopping:
                await self._turn()
            await self._notes.written()
        finally:
            self._notes.close()

    async def _turn(self) -> None:
        if self._next is not None:
            rules, self._next = self._next, None
            self._change(rules)
        if self._leader is not None and not self.leads:
            self._notes.begin()
            await self._stand_by(self._leader)
            return
        firings = self.scheduler.due(self._clock.now(), _BATCH)
        if firings:
            await self._send(firings)
            self.scheduler.awake(self._clock.now())
            return
        self._notes.begin()
        if self._ahead.make(self._clock.now()):
            await asyncio.sleep(0)
        elif self._gone:
            # A few at a time: everything would stand still while very many are let go.
            del self._gone[-_PORTION:]
            await asyncio.sleep(0)
        else:
            await self._wait()

    async def _wait(self) -> None:
        moments = [wake for wake in (self.scheduler.wake, self._ahead.wake) if wake is not None]
        if moments:
            await self._until(asyncio.ensure_future(self._clock.wait_until(min(moments))))
        else:
            _log.warning("no rule will ever fire", extra={"event": "nothing-to-do"})
            await self._until(asyncio.get_running_loop().create_future())

    async def _until(self, waiting: asyncio.Future[None]) -> None:
        """Wait for this, but no longer than until something else is to be done."""
        self._waiting = waiting
        try:
            await asyncio.wait([waiting])
        finally:
            waiting.cancel()

    async def _stand_by(self, leader: Election) -> None:
        await self._until(asyncio.ensure_future(leader.elected()))
        if leader.leads:
            try:
                await self._notes.written()
                self._use(await asyncio.to_thread(self._start))
            except StateError as error:
                _log.error("cannot take over yet: %s", error, extra={"event": "state-failed"})
                await self._until(asyncio.ensure_future(asyncio.sleep(_BACKOFF.delay(1))))

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def _start(self) -> Scheduler:
        now = self._clock.now()
        schedules = {rule.id: rule.schedule.text for rule in self.rules}
        known = self._state.read(schedules)
        ahead = sorted(rule for rule, instant in known.items() if instant > now + GRACE)
        if ahead:
            _log.warning(
                "the state is ahead of the clock; these rules wait until the clock has caught up: %s",
                ", ".join(ahead[:10]),
                extra={"event": "state-ahead", "rules": len(ahead)},
            )
        self._state.write(_beginning(self.rules, known, now))
        with collector_paused():
            return Scheduler(self.rules, known, now)

    def _use(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._ahead = Ahead(scheduler)

    def _change(self, rules: list[CronRule]) -> None:
        now = self._clock.now()
        self._gone, self.rules = self.rules, rules
        begun = self.scheduler.use(rules, now)
        self._ahead.use(rules)
        self._notes.add(_beginning(begun, {}, now))

    async def _send(self, firings: Sequence[Firing]) -> None:
        try:
            await self._publish(firings)
        except (OutputClosedError, ClosedError):
            raise
        except BusError as error:
            by_topic: defaultdict[str, list[Firing]] = defaultdict(list)
            for firing in firings:
                by_topic[firing.rule.topic].append(firing)
            if error.transient or len(by_topic) == 1:
                for topic, some in by_topic.items():
                    self._postpone(topic, some, error)
            else:
                await self._send_apart(by_topic)

    async def _send_apart(self, by_topic: dict[str, list[Firing]]) -> None:
        """One topic that refuses must not hold up the others."""
        for topic, firings in by_topic.items():
            try:
                await self._publish(firings)
            except (OutputClosedError, ClosedError):
                raise
            except BusError as error:
                self._postpone(topic, firings, error)

    async def _publish(self, firings: Sequence[Firing]) -> None:
        now = self._clock.now()
        await self._producer.publish_many([self._ahead.take(firing, now) for firing in firings])
        self.sent += len(firings)
        if self._failures:
            self._recovered({firing.rule.topic for firing in firings})
        self._notes.add((rule.id, rule.schedule.text, instant) for rule, instant in firings)

    def _postpone(self, topic: str, firings: Sequence[Firing], error: BusError) -> None:
        self._failures[topic] += 1
        self.failed += 1
        delay = _BACKOFF.delay(self._failures[topic])
        self.scheduler.again(firings, self._clock.now() + delay)
        if self.trouble.get(topic) != str(error):
            self.trouble[topic] = str(error)
            _log.error(
                "cannot publish to %s, trying again until it works: %s",
                topic,
                error,
                extra={"event": "publish-failed", "topic": topic},
            )

    def _recovered(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._failures.pop(topic, None)
            if self.trouble.pop(topic, None) is not None:
                _log.info("publishing to %s again", topic, extra={"event": "publish-recovered", "topic": topic})


def _enabled(rules: Iterable[CronRule]) -> list[CronRule]:
    return [rule for rule in rules if rule.enabled]


def _beginning(rules: Iterable[CronRule], known: Mapping[str, int], now: float) -> list[Fired]:
    """What is new begins now, and must be known to have begun should we be away at its first instant."""
    return [(rule.id, rule.schedule.text, int(now)) for rule in rules if rule.id not in known]
