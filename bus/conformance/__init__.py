"""The public conformance suite: what every adapter of this toolkit passes, and yours can.

    from bus.conformance import Conformance, ManualClock, Target

    class TestMyBus(Conformance):
        @pytest.fixture
        def target(self) -> Target:
            return Target(url="mine://localhost", durability=Durability.D2)

:class:`KeyValueTests` is the same for a store of keys and values (:mod:`bus.kv`).

Every declared capability is tested; where one is not declared, that the bus really does without it. Importing this
needs pytest, and the random histories need hypothesis: ``pip install 'taskbus[test]'``. See ``docs/adapters.md``.
"""

import pytest

_MODULES = (
    *["bench", "closing", "declaring", "delays", "ending", "finishing", "keyvalue"],
    *["leases", "looking", "model", "publishing", "receiving", "sharing", "surviving"],
)
# Before the modules are imported: pytest explains a failing assert only in modules it has rewritten.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

from bus.conformance.keyvalue import KeyValueTests  # noqa: E402
from bus.conformance.suite import Conformance  # noqa: E402
from bus.conformance.target import ManualClock, Target  # noqa: E402

__all__ = ["Conformance", "KeyValueTests", "ManualClock", "Target"]
