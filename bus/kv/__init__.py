"""Small values under keys that several processes share: leases, marks and state, beside the messages.

    async with open_kv("nats://127.0.0.1:4222/locks") as store:
        revision = await store.create("report", b"mine", ttl=30.0)
        await store.delete("report", revision)

:mod:`bus.kv.contract` states the rules; :class:`bus.conformance.KeyValueTests` is the suite every store passes.
"""

from bus.kv.contract import Entry, KeyValue, check_key
from bus.kv.lease import Lease
from bus.kv.registry import open_kv

__all__ = ["Entry", "KeyValue", "Lease", "check_key", "open_kv"]
