"""How many tasks an instance holds."""

from __future__ import annotations

import pytest

from task.window import Window


def after(window: Window, *seconds: float) -> list[int]:
    """Its size after tasks that took so long, measured one by one."""
    sizes = []
    for each in seconds:
        window.observe(each, 1)
        sizes.append(window.size)
    return sizes


def test_it_begins_with_one_for_each_slot() -> None:
    """Before anything was measured, nobody idle is kept from a task."""
    window = Window(3, fixed=None, shared=True)

    assert (window.size, window.wide) == (3, False)


def test_it_doubles_while_tasks_are_tiny() -> None:
    """It widens at most twofold per measurement, up to a limit."""
    window = Window(2, fixed=None, shared=True)

    assert after(window, *[1e-6] * 4) == [4, 8, 16, 32]
    assert window.wide
    assert after(window, *[1e-6] * 20)[-1] == 8000


def test_it_holds_a_twentieth_of_a_second_of_work() -> None:
    """With tasks of 5 ms that is ten for each slot."""
    assert after(Window(2, fixed=None, shared=True), *[0.005] * 8)[-1] == 20


def test_a_longer_task_counts_at_once() -> None:
    """One long measurement narrows it; short ones widen it again step by step."""
    window = Window(1, fixed=None, shared=True)
    after(window, *[1e-6] * 12)

    assert after(window, 0.01, 0.01) == [5, 5]
    assert after(window, 1.0) == [1]
    sizes = after(window, *[1e-6] * 40)
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] == 8000


def test_tiny_tasks_that_waited_for_the_processor_narrow_it_by_half() -> None:
    """A mean of 90 µs where it was 1 µs: half of the window at most is given up at each measurement."""
    window = Window(1, fixed=None, shared=True)
    full = after(window, *[1e-6] * 20)[-1]

    assert after(window, *[9e-5] * 5) == [full // 2, full // 4, full // 8, 555, 555]


def test_more_slots_than_the_limit_are_all_used() -> None:
    """What is in progress is not limited, only what waits behind it."""
    assert after(Window(9000, fixed=None, shared=True), *[1e-6] * 3)[-1] == 9000


def test_a_batch_is_measured_by_its_mean() -> None:
    """Ten tasks that took 50 ms together took 5 ms each; none tells nothing."""
    window = Window(1, fixed=None, shared=True)
    for _ in range(8):
        window.observe(0.05, 10)
    assert window.size == 10

    window.observe(5.0, 0)
    assert window.size == 10


def test_collapse() -> None:
    """A task that turned out long brings it back to one for each slot, to widen again slowly."""
    window = Window(2, fixed=None, shared=True)
    after(window, *[1e-6] * 10)
    window.collapse()

    assert (window.size, window.wide) == (2, False)
    assert after(window, 0.05) == [2]


@pytest.mark.parametrize("seconds", [0.0, 1e-12, 1e6])
def test_no_duration_breaks_it(seconds: float) -> None:
    """Nothing measured, or an eternity, leaves it between its bounds."""
    sizes = after(Window(2, fixed=None, shared=True), *[seconds] * 20)

    assert min(sizes) >= 2
    assert max(sizes) <= 8000


@pytest.mark.parametrize("fixed", [0, 7])
def test_a_prefetch_that_was_asked_for_stands(fixed: int) -> None:
    """Whatever is measured, it holds that many beyond those in progress."""
    window = Window(3, fixed=fixed, shared=True)
    window.observe(1e-6, 1000)
    window.collapse()

    assert (window.size, window.wide, window.adaptive) == (3 + fixed, fixed > 0, False)


def test_what_nobody_shares_is_read_ahead() -> None:
    """Of a plain file much is taken at once, and long tasks change nothing: there is nobody to take it."""
    window = Window(2, fixed=None, shared=False)
    window.observe(100.0, 1)
    window.collapse()

    assert (window.size, window.wide) == (2000, True)


def test_tiny_tasks_are_known_as_such() -> None:
    """Not before one has ended, and no more once one took long."""
    window = Window(1, fixed=None, shared=True)
    assert not window.tiny
    window.observe(1e-5, 1)
    assert window.tiny
    window.observe(0.01, 1)
    assert not window.tiny
