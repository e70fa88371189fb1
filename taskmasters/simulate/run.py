"""The simulation itself: a queue of what is to happen, and a clock that jumps from one of these moments to the next.

What happens at one moment happens in this order: tasks come to their end, in the order in which they were begun;
taskmasters are told of these in the order of the files; those that wanted to act now do, in the same order; and what
was made is begun. What comes to its end at once does so before the clock goes on, in another round of the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from heapq import heappop, heappush

from task.codec import encode_done
from task.times import format_time
from taskmasters.simulate.errors import SimulationError
from taskmasters.simulate.made import DONE, Ended, Kind, Made, Maker, find_circle
from taskmasters.simulate.players import Player, decoded
from taskmasters.simulate.results import NEVER, Comes, Results

__all__ = ["Simulation"]

#: Rounds at one moment after which it is looked whether they have an end.
_ROUNDS = 1000
_NO_MOMENT = float("inf")


class Simulation:
    """``players`` together, with workers whose tasks come to ``results``. At most ``limit`` messages are made."""

    def __init__(self, players: Sequence[Player], results: Results, *, limit: int) -> None:
        self._players = players
        #: Those that may do something about what is done.
        self._listeners = [
            (number, player) for number, player in enumerate(players) if type(player).done is not Player.done
        ]
        #: When each wants to act by itself, which changes only with what it is told: to ask each time takes long.
        self._wakes = [_NO_MOMENT if player.wake is None else player.wake for player in players]
        self._results = results
        self._limit = limit
        self._takers = {player.topic: number for number, player in enumerate(players) if player.topic is not None}
        self._queue: list[tuple[float, int, Made, Comes | None]] = []
        self._number = 0
        self._count = 0
        self._makers: Counter[Maker] = Counter()

    def run(self, end: float) -> Iterator[Made]:
        """Everything that reaches its topic before the moment ``end``, in this order.

        Raises:
            SimulationError: if more than ``limit`` are made, if something goes round without end, or if the results
                cannot be told.
        """
        while (now := self._next()) < end:
            yield from self._moment(now)

    def notes(self, now: float) -> Iterator[str]:
        """What the taskmasters have to say at the end."""
        for player in self._players:
            yield from player.notes(now)

    def close(self) -> None:
        """Let go of everything."""
        for player in self._players:
            player.close()

    def _next(self) -> float:
        first = min(self._wakes, default=_NO_MOMENT)
        return min(first, self._queue[0][0]) if self._queue else first

    def _look(self, number: int) -> None:
        """This player was told something."""
        wake = self._players[number].wake
        self._wakes[number] = _NO_MOMENT if wake is None else wake

    def _moment(self, now: float) -> Iterator[Made]:
        rounds = 0
        moment = now
        while moment <= now:
            rounds += 1
            last: Made | None = None
            for last in self._round(now):
                yield last
            if rounds % _ROUNDS == 0:
                self._look_for_circle(now, last)
            moment = self._next()

    def _round(self, now: float) -> Iterator[Made]:
        made, ended = self._due(now)
        if ended:
            for number, player in self._listeners:
                made += player.done(ended, now)
                self._look(number)
        for number, wake in enumerate(self._wakes):
            if wake <= now:
                made += self._players[number].tick(now)
                self._look(number)
        taken: dict[str, list[Made]] = {}
        for one in made:
            if one.delay:
                later, one.delay = now + one.delay, 0.0
                self._put(later, one)
                continue
            one.at = now
            self._limited(one)
            if one.kind is Kind.TASK and one.topic in self._takers:
                taken.setdefault(one.topic, []).append(one)
            else:
                self._begin(one, now)
            yield one
        for topic, some in taken.items():
            number = self._takers[topic]
            for one in self._players[number].take(some, now):
                self._put(now, one)
            self._look(number)

    def _due(self, now: float) -> tuple[list[Made], list[Ended]]:
        """What reaches its topic now, and what comes to its end."""
        made: list[Made] = []
        ended: list[Ended] = []
        while self._queue and self._queue[0][0] <= now:
            _, _, one, comes = heappop(self._queue)
            if comes is not None:
                ended.append(self._end(one, comes, now))
            else:
                made.append(one)
        return made, ended

    def _begin(self, made: Made, now: float) -> None:
        if made.kind is Kind.NOTICE:
            return
        if made.kind is Kind.END:
            made.result, made.ended = str(made.task.result or ""), now
            self._put(now, made, Comes(made.result))
            return
        if made.topic == DONE:
            return  # It is not done: nobody does anything with it.
        comes = self._results.of(made.topic, made.task)
        made.result = comes.result
        if comes.result != NEVER:
            made.ended = now + comes.duration
            self._put(made.ended, made, comes)

    def _end(self, made: Made, comes: Comes, now: float) -> Ended:
        if made.task.result is not None:
            return Ended(made.task, made.task.result, made)
        result, msg, meta = self._results.said(comes, made.task, now)
        done = encode_done(made.task, str(result), msg, _text(made.at), _text(now), meta)
        return Ended(decoded(done), result, made)

    def _put(self, moment: float, made: Made, comes: Comes | None = None) -> None:
        self._number += 1
        heappush(self._queue, (moment, self._number, made, comes))

    def _limited(self, made: Made) -> None:
        self._count += 1
        self._makers[made.maker] += 1
        if self._count <= self._limit:
            return
        said = f"more than {self._limit:,} tasks by {_text(made.at)}, which is the --limit"
        if circle := find_circle(made):
            raise SimulationError(f"{said}; the last came of what goes round without end: {_path(circle)}")
        maker, count = self._makers.most_common(1)[0]
        raise SimulationError(f"{said}; {count:,} of them were made by {maker}")

    def _look_for_circle(self, now: float, made: Made | None) -> None:
        circle = find_circle(made) if made is not None else ()
        if circle:
            raise SimulationError(
                f"at {_text(now)} these go round without end: {_path(circle)}; break the circle, or say with --results "
                "how long their tasks take"
            )


def _path(circle: Sequence[Maker]) -> str:
    return " → ".join([*map(str, circle), str(circle[0])])


@lru_cache(maxsize=4096)
def _text(moment: float) -> str:
    return format_time(datetime.fromtimestamp(moment, UTC))
