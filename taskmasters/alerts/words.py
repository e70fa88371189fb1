"""An alert in words: for a log line, for Slack, for a mail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from taskmasters.alerts.condense import condense

__all__ = ["headline", "slack", "text"]

#: Characters of the longest text that Slack shows whole.
_SLACK = 3000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")


def headline(told: Mapping[str, Any]) -> str:
    """One line: how many of what."""
    counts = [f"{group['count']} {group['kind']} {name(group)}" for group in told["groups"]]
    more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    return _line(f"{', '.join(counts[:3])}{more}")


def name(group: Mapping[str, Any]) -> str:
    """``type:job``."""
    return f"{group['type']}:{group['job']}" if group["job"] else str(group["type"])


def text(told: Mapping[str, Any]) -> str:
    """All of it, in lines."""
    lines = [f"{told['count']} in all, by the rule {_line(str(told['rule']))}"]
    for group in told["groups"]:
        lines.append("")
        lines.append(_line(f"{name(group)}: {group['count']} {group['kind']}"))
        lines.append(f"  from {group['first']} to {group['last']}")
        if group["moments"]:
            lines.append(f"  for {condense(map(datetime.fromisoformat, group['moments']))}")
        lines += [_line(f"  {one['time']} {one['task']} — {one['msg']} [{one['id']}]") for one in group["examples"]]
        rest = group["count"] - len(group["examples"])
        if rest > 0:
            lines.append(f"  … and {rest} more")
    return "\n".join(lines)


def slack(told: Mapping[str, Any]) -> dict[str, str]:
    """What a Slack-compatible web hook takes. Nothing in it is a link, a mention or markup of the task's own."""
    body = text(told).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("```", "'''")
    title = headline(told).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    cut = body if len(body) <= _SLACK else body[:_SLACK] + "\n…"
    return {"text": f"{title}\n```\n{cut}\n```"}


def _line(text: str) -> str:
    return _CONTROL.sub(" ", text)
