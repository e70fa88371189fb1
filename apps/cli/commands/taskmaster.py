"""``taskbus taskmaster``: the applications that make tasks."""

from __future__ import annotations
