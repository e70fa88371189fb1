"""The suite fails where it should: each of many faults, and each false declaration, fails the tests made for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import Phase

from bus.capabilities import Capabilities, Durability
from bus.conformance import Conformance, Target
from bus.conformance.model import run_model
from bus.contract import Bus
from bus.lines import LinesBus
from bus.memory.broker import Broker
from bus.memory.bus import MemoryBus, MemoryConsumer, MemoryProducer
from bus.registry import Clock
from bus.sql import SqliteBus
from bus.url import parse_url
from tests.conformance import broken
from tests.conformance.lesser import ModestBus, SolitaryBus
from tests.conformance.variants import Variant, target_of

#: A fault, and the tests that must fail because of it.
FAULTS: dict[type[Any], list[str]] = {
    broken.LosesOnNack: ["c10_nacked_messages_come_again", "errors_never_use_up_a_message", "m01_random_histories"],
    broken.LosesOnRelease: ["released_messages_come_again", "m01_random_histories"],
    broken.LosesOnClose: ["l05_acks_do_not_pass_a_gap", "close_hands_back_what_is_unsettled", "m01_random_histories"],
    broken.CountsOnClose: ["close_hands_back_what_is_unsettled", "m01_random_histories"],
    broken.KeepsOnClose: ["close_hands_back_what_is_unsettled"],
    broken.DeafToClose: ["c07_close_while_receive_waits", "c08_after_close"],
    broken.AcksOnReceive: ["a_crashed_consumer_loses_its_messages_to_another", "c10_nacked_messages_come_again"],
    broken.AcksNothing: ["c01_bodies_arrive_exactly", "c09_acknowledged_is_settled_for_good"],
    broken.AcksUpTo: ["l05_acks_do_not_pass_a_gap"],
    broken.LastSettlementWins: ["c09_the_first_settlement_wins"],
    broken.IgnoresNackDelay: ["c11_a_nacked_message_comes_when_due", "settling_ends_the_lease"],
    broken.IgnoresReleaseDelay: ["a_released_message_comes_when_due", "m01_random_histories"],
    broken.HalvesDelays: ["c11_a_nacked_message_comes_when_due", "a_delay_outlives_its_consumer"],
    broken.ForgetsReasons: ["history_holds_the_reasons", "m01_random_histories"],
    broken.AlwaysFirstAttempt: ["c10_attempts_are_counted", "a_crash_counts_as_an_attempt"],
    broken.CountsFromZero: ["c10_attempts_are_counted", "m01_random_histories"],
    broken.CountsReleases: ["a_release_is_no_attempt", "m01_random_histories"],
    broken.NackUncounted: ["c10_attempts_are_counted", "errors_never_use_up_a_message"],
    broken.NewIdEachTime: ["c10_nacked_messages_come_again", "a_crashed_consumer_loses_its_messages_to_another"],
    broken.Greedy: ["c05_an_idle_consumer_gets_what_a_busy_one_did_not_ask_for"],
    broken.Generous: ["receive_takes_no_more_than_asked", "m01_random_histories"],
    broken.Impatient: ["c07_close_while_receive_waits", "receive_times_out"],
    broken.LosesWhenCancelled: ["a_cancelled_receive_loses_nothing"],
    broken.EndsWhenIdle: ["c15_any_other_source_never_ends"],
    broken.NeverExtends: ["l01_an_extended_lease_holds", "l03_late_settlement_is_refused"],
    broken.SilentAboutLoss: ["l03_late_settlement_is_refused", "a_batch_is_settled_but_for_the_lost"],
    broken.StealsBack: ["l03_late_settlement_is_refused", "m01_random_histories"],
    broken.LosesTheRestOfTheBatch: ["a_batch_is_settled_but_for_the_lost"],
    broken.LeaseForEver: ["a_crashed_consumer_loses_its_messages_to_another", "m01_random_histories"],
    broken.LeaseTooShort: ["l01_an_extended_lease_holds", "m01_random_histories"],
    broken.AcksBeforePublishing: ["finish_does_not_acknowledge_what_it_could_not_publish"],
    broken.PublishesBeforeAcking: ["l03_atomic_finish_of_a_lost_lease_publishes_nothing"],
    broken.FinishForgetsToAck: ["finish_publishes_and_acknowledges"],
    broken.LastFirst: ["c13_order_is_kept", "m01_random_histories"],
    broken.LeavesATaskRunning: ["i7_close_leaves_nothing_running"],
    broken.LosesEveryHundredth: ["c03_concurrent_publishers", "c06_consumers_share_without_duplicates"],
    broken.PublishesTwice: ["c01_bodies_arrive_exactly", "c06_consumers_share_without_duplicates"],
    broken.SendsUntilTheBadOne: ["p04_too_large_is_refused", "bad_topic_names_are_refused"],
    broken.StripsBodies: ["c01_bodies_arrive_exactly", "c01_bodies_may_be_binary"],
    broken.IgnoresPublishDelay: ["a_delayed_message_comes_when_due", "m01_random_histories"],
    broken.DelaysEverything: ["a_delayed_message_comes_when_due"],
    broken.IgnoresIds: ["a_second_publish_of_an_id_is_dropped"],
    broken.RemembersIdsForEver: ["an_id_may_be_used_again_after_the_window"],
    broken.TakesAnyName: ["bad_topic_names_are_refused"],
    broken.PublishesAfterClose: ["c08_after_close", "c07_closing_the_bus_while_receive_waits"],
    broken.LeaksLibraryErrors: ["p04_too_large_is_refused"],
    broken.OneGroup: ["c12_every_group_gets_everything"],
    broken.OneTopic: ["c04_topics_are_isolated"],
    broken.PrivateGroups: ["c06_consumers_share_without_duplicates"],
    broken.BroadcastIsAGroup: ["a_broadcast_reaches_everybody_listening"],
    broken.CloseForgetsConsumers: ["c07_closing_the_bus_while_receive_waits"],
    broken.DepthTakesTheDelayedForHeld: ["depth_counts_the_delayed"],
    broken.DepthOfReadyOnly: ["depth_counts_every_state", "c05_an_idle_consumer_gets_what_a_busy_one_did_not_ask_for"],
    broken.DepthMakesAGroup: ["groups_are_listed"],
    broken.PeekReceives: ["peek_shows_and_takes_nothing"],
    broken.TopicsUnsorted: ["topics_are_listed"],
    broken.GroupsForgotten: ["groups_are_listed"],
    broken.RefusesSecondClose: ["c07_close_before_the_first_receive"],
}

_FIELDS = {field.name for field in dataclasses.fields(Capabilities)}
_NUMBERS = {"lease_ceiling", "publish_delay", "nack_delay", "dedupe", "max_size"}
#: What no memory bus can do, and a value that declares it all the same.
_BOASTS: dict[str, object] = {"lease_ceiling": 100.0, "max_size": 2 * 1024**2}
#: What cannot be seen to be declared too modestly: no order is also an order, D0 is asserted by the target, and what
#: is assigned ahead may be assigned to the one that asks.
_UNSEEN = {"order", "durability", "partitioned"}
#: What is declared of a bus that does less, and one that does.
_FLAWS = {"release_counts", "partitioned"}
#: The bus that has a fault instead of a capability.
_UNABLE: dict[str, type[Any]] = {
    "release_counts": broken.CountsReleases,
    "partitioned": broken.Greedy,
    "depth_tells_delayed": broken.DepthTakesTheDelayedForHeld,
    "order": broken.LastFirst,
}


def outcome(test: str, target: Target) -> str:
    """What pytest would make of one test of the suite: ``passed``, ``failed`` or ``skipped``."""
    try:
        if test == "test_m01_random_histories":
            run_model(target, phases=[Phase.generate], derandomize=True, database=None, max_examples=60)
        else:
            getattr(Conformance(), test)(target)
    except pytest.skip.Exception:
        return "skipped"
    except (Exception, pytest.fail.Exception):
        return "failed"
    return "passed"


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("fault", "test"), [(fault, test) for fault, tests in FAULTS.items() for test in tests])
def test_faults_are_found(fault: type[Any], test: str) -> None:
    """A test of the suite fails for a bus with a fault it is there to find."""
    assert outcome(f"test_{test}", target_of(_bus(fault))) == "failed"


@pytest.mark.parametrize("test", sorted({test for tests in FAULTS.values() for test in tests}))
def test_without_a_fault_they_pass(test: str) -> None:
    """Each of these tests passes for the unbroken bus made and awaited in the same way."""
    assert outcome(f"test_{test}", target_of(Variant)) == "passed"


@pytest.mark.parametrize("capability", sorted(_FIELDS - _UNSEEN))
def test_a_capability_kept_quiet_is_found(capability: str, tmp_path: Path) -> None:
    """A bus that can do what it does not declare fails a test that names the capability."""
    if capability == "processes":
        url = f"sqlite:{tmp_path}/bus.db"
        assert "failed" in _judge(SqliteBus, capability, False, url=url, durability=Durability.D3)
    elif capability in ("finite", "text_lines"):
        path = tmp_path / "tasks.jsonl"
        path.touch()
        assert "failed" in _judge(LinesBus, capability, False, url=f"lines:{path}", durability=Durability.D3)
    else:
        able = ModestBus if capability == "lease_ceiling" else Variant
        modest = None if capability in _NUMBERS else capability in _FLAWS
        assert "failed" in _judge(able, capability, modest)


@pytest.mark.parametrize("capability", sorted(_FIELDS - {"durability"}))
def test_a_capability_boasted_of_is_found(capability: str) -> None:
    """A bus that declares what it cannot do fails a test that names the capability."""
    unable: type[MemoryBus] = ModestBus
    value = getattr(Variant.capabilities, capability)
    if capability in _UNABLE:
        unable = _bus(_UNABLE[capability])
    elif capability in ("groups", "shared", "lease"):
        unable = SolitaryBus
    elif capability in ("finite", "text_lines", "processes", "lease_ceiling", "max_size"):
        unable, value = Variant, _BOASTS.get(capability, True)
    assert "failed" in _judge(unable, capability, value)


def test_another_durability_is_found() -> None:
    """A bus that declares another tier of durability than the deployment is meant to have fails."""
    target = target_of(Variant, durability=Durability.D2)
    assert outcome("test_durability_is_the_expected_one", target) == "failed"


@pytest.mark.parametrize(
    ("test", "hook"),
    [
        ("test_d1_confirmed_messages_survive_a_clean_restart", "restart"),
        ("test_d2_confirmed_messages_survive_a_kill", "kill"),
    ],
)
def test_a_server_that_forgets_is_found(test: str, hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart or a kill after which confirmed messages are missing fails, and one that keeps them passes."""
    brokers: dict[str, Broker] = {}
    monkeypatch.setattr("bus.memory.broker._BROKERS", brokers)

    def make(url: str, clock: Clock) -> Bus:
        bus = Variant(url, clock=clock)
        bus.capabilities = dataclasses.replace(bus.capabilities, durability=Durability.D2)
        return bus

    def target(happen: Callable[[], None]) -> Target:
        return dataclasses.replace(target_of(Variant, make=make, durability=Durability.D2), **{hook: happen})  # type: ignore[arg-type]

    assert outcome(test, target(brokers.clear)) == "failed"
    assert outcome(test, target(lambda: None)) == "passed"


def test_a_greedy_bus_must_hand_over_on_close() -> None:
    """A bus said to assign messages ahead is held to less, but on close the others get them."""

    class Partitioned(Variant):
        declares: ClassVar[dict[str, Any]] = {"partitioned": True}

    class Greedy(Partitioned):
        consumers = broken.Greedy

    test = "test_c05_a_closed_consumer_hands_over_what_was_assigned_to_it"
    assert outcome(test, target_of(Greedy)) == "failed"
    assert outcome(test, target_of(Partitioned)) == "passed"


def test_a_hanging_bus_fails() -> None:
    """A test that never comes to an end fails at the limit of the target."""
    assert outcome("test_c08_after_close", target_of(_bus(broken.DeafToClose), limit=0.2)) == "failed"


def _judge(bus: type[Bus], capability: str, value: object, **settings: Any) -> set[str]:
    """Declare ``value``, whatever the truth, and run every test that names the capability."""

    def make(url: str, clock: Clock) -> Bus:
        lying = bus(parse_url(url), clock=clock)  # type: ignore[call-arg]
        lying.capabilities = dataclasses.replace(lying.capabilities, **{capability: value})  # type: ignore[arg-type]
        return lying

    tests = [name for name in dir(Conformance) if capability in getattr(getattr(Conformance, name), "capabilities", ())]
    assert tests, f"no test names {capability}"
    return {outcome(test, target_of(bus, make=make, **settings)) for test in tests}


def _bus(fault: type[Any]) -> type[MemoryBus]:
    if issubclass(fault, MemoryConsumer):
        return type(fault.__name__, (Variant,), {"consumers": fault})
    if issubclass(fault, MemoryProducer):
        return type(fault.__name__, (Variant,), {"producers": fault})
    assert issubclass(fault, MemoryBus)
    return fault
