"""Reading the status page of a running worker."""

from __future__ import annotations

import json
from collections import defaultdict
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from apps.doctor.setup import Durations, Status
from bus import TaskbusError
from task.errors import SettingsError

__all__ = ["StatusError", "durations_of", "read_status"]

_TIMEOUT = 10.0
_LARGEST = 16 * 1024**2


class StatusError(TaskbusError):
    """The status page cannot be had."""


def read_status(address: str) -> Status:
    """Ask for ``/``, ``/readyz`` and ``/metrics``.

    Raises:
        SettingsError: it is no http:// or https:// address.
        StatusError: nobody answers there, or not as a status page does.
    """
    from prometheus_client.parser import text_string_to_metric_families

    split = urlsplit(address)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise SettingsError("--status: write the address of a status page, as http://127.0.0.1:8080")
    if split.username is not None:
        raise SettingsError("--status: a status page needs no password; leave it out of the address")
    base = f"{split.scheme}://{split.netloc}"
    try:
        page = json.loads(_get(f"{base}/")[1])
        if not isinstance(page, dict) or "app" not in page:
            raise ValueError("it is no status page of taskbus")
        metrics: defaultdict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(_get(f"{base}/metrics")[1]):
            for sample in family.samples:
                metrics[sample.name] += sample.value
        code, why = _get(f"{base}/readyz")
    except (OSError, URLError, ValueError) as error:
        raise StatusError(
            f"the status page {base} cannot be read: {error}; a worker has one with --status-port"
        ) from None
    return Status(base, page, metrics, "" if code == 200 else why.strip() or f"status {code}")


def _get(url: str) -> tuple[int, str]:
    try:
        with urlopen(Request(url), timeout=_TIMEOUT) as answer:  # noqa: S310 - the scheme is checked above
            return int(answer.status), answer.read(_LARGEST).decode()
    except HTTPError as error:
        with error:
            if error.code != 503:
                raise
            return error.code, error.read(_LARGEST).decode()


def durations_of(status: Status) -> Durations | None:
    """How long tasks take as far as the page tells: their mean, and how long those in progress already take."""
    count = status.metrics.get("taskbus_task_seconds_count", 0.0)
    mean = status.metrics.get("taskbus_task_seconds_sum", 0.0) / count if count else 0.0
    running = status.page.get("in_progress")
    under_way = [
        float(each["seconds"])
        for each in (running if isinstance(running, list) else [])
        if isinstance(each, dict) and isinstance(each.get("seconds"), (int, float))
    ]
    if not count and not under_way:
        return None
    longest = max([mean, *under_way])
    source = "on the average" if longest == mean else "one in progress"
    return Durations(longest, longest, mean, int(count), f"{source}, says the status page")
