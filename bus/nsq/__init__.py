"""The ``nsq`` bus: nsqd servers, named in the URL or found through nsqlookupd."""

from __future__ import annotations

from bus.nsq.adapter import NsqBus

__all__ = ["NsqBus"]
