"""What nsqds tell over HTTP: see :mod:`bus.facts`. https://nsq.io/components/nsqd.html

``lease``, ``option.max_lease``; of each nsqd ``nsqd.max_msg_timeout`` (seconds) and ``nsqd.mem_queue_size`` (messages);
``channel.timeouts`` (leases that ran out), ``channel.clients`` and ``channel.paused``.
"""

from __future__ import annotations

import time

from bus.errors import BusError, UnreachableError
from bus.facts import Fact, Look, clock_ahead, unknown
from bus.nsq.nodes import Nodes
from bus.nsq.options import Address, NsqOptions

__all__ = ["diagnose"]

_NANO = 10**9
#: nsqd's option, and what its value is divided by.
_CONFIG = {"max_msg_timeout": _NANO, "mem_queue_size": 1}
#: The Date of HTTP is cut to whole seconds: on the average half of one is missing.
_CUT = 0.5


async def diagnose(nodes: Nodes, options: NsqOptions, look: Look) -> list[Fact]:
    """The facts of every nsqd. Raises UnreachableError if none is known; one that does not answer is a fact."""
    facts = [
        Fact("lease", options.lease, "the URL"),
        Fact("option.max_lease", options.max_lease, "the URL"),
    ]
    for node in await nodes.all():
        facts += await _node(nodes, node, look)
    return facts


async def _node(nodes: Nodes, node: Address, look: Look) -> list[Fact]:
    place = f"nsqd {node[0]}:{node[1]}"
    facts: list[Fact] = []
    for name, unit in _CONFIG.items():
        try:
            facts.append(Fact(f"nsqd.{name}", float(await nodes.config(node, name)) / unit, place))
        except (BusError, TypeError, ValueError) as error:
            facts.append(unknown(f"nsqd.{name}", place, error))
    asked = time.time()
    try:
        topics, date = await nodes.look(node)
    except UnreachableError as error:
        return [*facts, unknown("channel.timeouts", place, error), unknown("clock.ahead", place, error)]
    if date:
        facts.append(clock_ahead(place, date + _CUT, asked))
    for topic, group in look.topics:
        for found in topics:
            if found["topic_name"] != topic:
                continue
            for channel in found["channels"]:
                if channel["channel_name"] == group:
                    where = f"channel {group} of {topic} at {place}"
                    facts += [
                        Fact("channel.timeouts", channel["timeout_count"], where),
                        Fact("channel.clients", channel["client_count"], where),
                        Fact("channel.paused", bool(channel["paused"] or found["paused"]), where),
                    ]
    return facts
