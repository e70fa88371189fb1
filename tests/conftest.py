"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

from tests.states import mariadb, postgres, state_url

__all__ = ["mariadb", "postgres", "state_url"]

# A deadline per example measures how busy the machine is, not what is tested.
settings.register_profile("taskbus", deadline=None)
settings.load_profile("taskbus")
