"""The scenarios: each is a way in which tasks come in practice, after which all must be as if each was done once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from apps.certify.effects import Effect, Kind, Noise, compare_outcomes, compare_states
from apps.certify.errors import OutOfRunsError
from apps.certify.narrow import narrow
from apps.certify.run import Kill, Plan, Run, Runner
from task.errors import SettingsError

__all__ = ["SCENARIOS", "Defect", "Examination", "Scenario"]

SCENARIOS = ("once", "twice", "order", "side-by-side", "killed")
#: A task must take so long to be killed from outside in its midst, in seconds.
_LONG = 0.2
#: At which shares of its time that is done.
_SHARES = (0.25, 0.6, 0.9)


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong: the kind, the tasks with which it shows, what of the state or the results, and how it was seen."""

    scenario: str
    kind: Kind
    tasks: tuple[str, ...]
    where: str
    detail: str
    seen: str = ""


@dataclass
class Scenario:
    """What a scenario showed. ``notes`` are what it could not."""

    name: str
    runs: int = 0
    defects: list[Defect] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Examination:
    """Of one worker. ``seed`` decides about orders, pauses and kills."""

    def __init__(self, runner: Runner, *, seed: int, orders: int = 2, parallel: int = 4, kills: int = 12) -> None:
        self._runner = runner
        self._random = random.Random(seed)
        self._seed = seed
        self._orders = orders
        self._parallel = parallel
        self._kills = kills
        self._all = tuple(range(len(runner.tasks)))
        self._noise: Noise | None = None

    def examine(self, names: Sequence[str] = SCENARIOS) -> Iterator[Scenario]:
        """Go through the scenarios. Raises CertifyError, SettingsError."""
        steps: dict[str, Callable[[Scenario], None]] = {
            "once": self._once,
            "twice": self._twice,
            "order": self._order,
            "side-by-side": self._side_by_side,
            "killed": self._killed,
        }
        for name in names:
            scenario = Scenario(name)
            before = self._runner.made
            try:
                steps[name](scenario)
            except OutOfRunsError as error:
                scenario.notes.append(f"not finished: {error}")
            scenario.runs = self._runner.made - before
            yield scenario

    # What is compared with, and what differs by itself.

    def _base(self, tasks: Sequence[int] | None = None) -> Run:
        chosen = self._all if tasks is None else tuple(tasks)
        return self._runner.run(Plan((chosen,), record=self._runner.watched and chosen == self._all))

    def _steady(self) -> Noise:
        """Make the same run twice, once for all scenarios."""
        if self._noise is None:
            first = self._base()
            second = self._runner.again(Plan((self._all,)))
            names = first.state.keys() & second.state.keys()
            contents = {name for name in names if first.state[name].digest != second.state[name].digest}
            outcomes = set(compare_outcomes(first.outcomes[0], second.outcomes[0]))
            self._noise = Noise(names, contents, outcomes, first.state.keys() != second.state.keys())
            self._noise_runs = first, second
        return self._noise

    def _differences(
        self, before: Run, after: Run, *, killed: bool = False, order: bool = False
    ) -> tuple[list[Effect], dict[int, str]]:
        """``order``: that lines are in another order counts. Tasks side by side, or killed, end in another one anyway,
        and that is told by the scenario of orders."""
        noise = self._steady()
        outcomes: dict[int, str] = {}
        for phase in after.outcomes:
            outcomes |= compare_outcomes(before.outcomes[0], phase, noise)
        effects = compare_states(before.state, after.state, noise, killed=killed)
        return [effect for effect in effects if order or effect.kind is not Kind.ORDER], outcomes

    def _differs(self, before: Run, after: Run, *, killed: bool = False, order: bool = False) -> bool:
        return any(self._differences(before, after, killed=killed, order=order))

    def _labels(self, tasks: Sequence[int]) -> tuple[str, ...]:
        return tuple(self._runner.tasks[position].value or str(self._runner.tasks[position].id) for position in tasks)

    def _tell(
        self,
        scenario: Scenario,
        tasks: Sequence[int],
        before: Run,
        after: Run,
        *,
        seen: str,
        kind: Kind | None = None,
        killed: bool = False,
    ) -> None:
        effects, outcomes = self._differences(before, after, killed=killed, order=kind is Kind.ORDER)
        for effect in effects:
            detail = effect.detail if kind in (None, effect.kind) else f"{effect.kind}: {effect.detail}"
            scenario.defects.append(
                Defect(scenario.name, kind or effect.kind, self._labels(tasks), effect.where, detail, seen)
            )
        for position, detail in outcomes.items():
            (label,) = self._labels([position])
            scenario.defects.append(
                Defect(scenario.name, kind or Kind.RESULT, self._labels(tasks), f"the result of {label}", detail, seen)
            )

    # The scenarios.

    def _once(self, scenario: Scenario) -> None:
        noise = self._steady()
        first, second = self._noise_runs
        seen = "two runs from the same fresh state, each task done once"
        if noise.differs:
            only = sorted(first.state.keys() - noise.names)[:2] + sorted(second.state.keys() - noise.names)[:2]
            where = ", ".join(only)
            scenario.defects.append(
                Defect("once", Kind.NAME, (), where, "each run leaves other names, and every repetition more", seen)
            )
        for name in sorted(noise.contents):
            scenario.defects.append(Defect("once", Kind.CONTENT, (), name, "each run leaves another content", seen))
        for position in sorted(noise.outcomes):
            (label,) = self._labels([position])
            was, now = first.outcomes[0][position], second.outcomes[0][position]
            scenario.notes.append(f"{label} ends otherwise from run to run ({was}; {now}): its result is not compared")
        if any(
            outcome.result == "dead" and outcome.msg.startswith("wrong-type") for outcome in first.outcomes[0].values()
        ):
            raise SettingsError("the worker does tasks of another type than those of the file")
        bad = [position for position, outcome in first.outcomes[0].items() if outcome.result in ("error", "dead")]
        if bad:
            text = "; ".join(f"{self._labels([each])[0]}: {first.outcomes[0][each]}" for each in bad[:3])
            scenario.notes.append(
                f"{len(bad)} of {len(self._all)} tasks fail when done once ({text}): "
                "what they do when they succeed was not seen"
            )
        elif self._runner.unseen and not first.state:
            scenario.notes.append(self._runner.unseen)

    def _twice(self, scenario: Scenario) -> None:
        def again(tasks: Sequence[int]) -> Run:
            return self._runner.run(Plan((tuple(tasks), tuple(tasks))))

        if not self._differs(self._base(), again(self._all)):
            return
        found = narrow(self._all, lambda part: self._differs(self._base(part), again(part)))
        self._tell(scenario, found, self._base(found), again(found), seen="done once, and delivered again after that")

    def _order(self, scenario: Scenario) -> None:
        if len(self._all) < 2:
            scenario.notes.append("one task has no order: give two or more")
            return
        orders = [tuple(reversed(self._all))]
        for _ in range(self._orders):
            shuffled = list(self._all)
            self._random.shuffle(shuffled)
            if (order := tuple(shuffled)) != self._all and order not in orders:
                orders.append(order)
        for order in orders:
            other = self._runner.run(Plan((order,)))
            if not self._differs(self._base(), other, order=True):
                continue

            def turned(part: Sequence[int], order: Sequence[int] = order) -> Run:
                return self._runner.run(Plan((tuple(each for each in order if each in part),)))

            found = narrow(self._all, lambda part: self._differs(self._base(part), turned(part), order=True), least=2)
            names = self._labels(found)
            turned_names = self._labels([each for each in order if each in found])
            seen = f"{' before '.join(names)}, against {' before '.join(turned_names)}"
            self._tell(scenario, found, self._base(found), turned(found), seen=seen, kind=Kind.ORDER)
            return

    def _side_by_side(self, scenario: Scenario) -> None:
        parallel = min(self._parallel, len(self._all))
        if parallel < 2:
            scenario.notes.append("one task has nothing beside it: give two or more")
            return

        def beside(tasks: Sequence[int], jitter: int) -> Run:
            return self._runner.run(Plan((tuple(tasks),), parallel=min(parallel, len(tasks)), jitter=jitter))

        tries = range(self._seed, self._seed + 3)
        for jitter in tries[:2]:
            run = beside(self._all, jitter)
            if not self._differs(self._base(), run):
                continue
            # By chance tasks may miss each other, so that each part is tried several times.
            found = narrow(
                self._all, lambda part: any(self._differs(self._base(part), beside(part, each)) for each in tries), 2
            )
            seen = f"{parallel} at the same time in one process"
            if len(found) < len(self._all):
                for each in tries:
                    other = beside(found, each)
                    if self._differs(self._base(found), other):
                        self._tell(scenario, found, self._base(found), other, seen=seen, kind=Kind.INTERFERES)
                        return
            self._tell(scenario, self._all, self._base(), run, seen=seen, kind=Kind.INTERFERES)
            return

    def _killed(self, scenario: Scenario) -> None:
        rounds = [(self._all, kills) for kills in self._by_line(self._base())]
        rounds += [((kill.task,), [kill]) for kill in self._by_time(self._base())]
        if not rounds:
            scenario.notes.append(
                f"no task could be killed midway: none takes {_LONG:g} s, and the code is not Python to be watched"
            )
            return
        happened = 0
        for tasks, kills in rounds:
            run = self._runner.run(Plan((tasks,), kills=tuple(kills)))
            happened += run.killed
            if self._differs(self._base(tasks), run, killed=True):
                self._blame(scenario, tasks, kills, run)
        if not happened:
            scenario.notes.append("no kill met a task midway")

    def _blame(self, scenario: Scenario, tasks: Sequence[int], kills: Sequence[Kill], run: Run) -> None:
        """Find out which of the kills did it, each alone."""
        told = {defect.kind for defect in scenario.defects}
        for kill in kills:
            alone = (kill.task,)
            single = self._runner.run(Plan((alone,), kills=(kill,)))
            found = Scenario(scenario.name)
            when = f"before {kill.place}" if kill.after is None else f"{kill.after:.2f} s after its start"
            seen = f"killed {when}, and delivered again"
            self._tell(found, alone, self._base(alone), single, seen=seen, killed=True)
            # Of each kind of side effect one is enough.
            scenario.defects += [each for each in found.defects if each.kind not in told]
            told |= {each.kind for each in found.defects}
        if not told:
            found = Scenario(scenario.name)
            seen = f"killed {run.killed} times, and delivered again"
            self._tell(found, tasks, self._base(tasks), run, seen=seen, killed=True)
            scenario.defects += found.defects

    def _by_line(self, base: Run) -> Iterator[list[Kill]]:
        """Rounds in which every task is killed once at most, which together come to every line, or to some of them."""
        places: dict[str, list[Kill]] = {}
        for kill in base.places:
            # A place is the same for every task; which one is killed there is left to chance.
            places.setdefault(f"{kill.place} {kill.hit}", []).append(kill)
        chosen = [self._random.choice(each) for each in places.values()]
        if len(chosen) > self._kills:
            chosen = self._random.sample(chosen, self._kills)
        while chosen:
            seen: dict[int, Kill] = {}
            for kill in chosen:
                seen.setdefault(kill.task, kill)
            chosen = [kill for kill in chosen if seen[kill.task] is not kill]
            # In the order in which the tasks come.
            yield [seen[position] for position in sorted(seen)]

    def _by_time(self, base: Run) -> Iterator[Kill]:
        """The longest task is killed from outside, wherever its time is spent."""
        position = max(base.seconds, key=lambda each: base.seconds[each], default=None)
        if position is not None and base.seconds[position] >= _LONG:
            for share in _SHARES:
                yield Kill(position, "", after=share * base.seconds[position])
