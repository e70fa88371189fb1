"""Fault injection: any bus, made to fail now and then on purpose.

``inject+URL`` is the bus of ``URL`` with faults injected; :func:`inject` does the same to a bus in code.
"""

from bus.inject.bus import InjectedBus, inject
from bus.inject.injector import OPERATIONS, Fault, Injector

__all__ = ["OPERATIONS", "Fault", "InjectedBus", "Injector", "inject"]
