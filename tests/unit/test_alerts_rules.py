"""Rule files of the alerts taskmaster."""

from __future__ import annotations

from pathlib import Path

import pytest

from task.errors import SettingsError
from taskmasters.alerts.explain import explain
from taskmasters.alerts.rules import AlertFile, Kind, load_alerts

MINIMAL = """
[[channel]]
kind = "log"

[[rule]]
to = "log"
"""


def load(folder: Path, text: str) -> AlertFile:
    (folder / "alerts.toml").write_text(text)
    return load_alerts(str(folder / "alerts.toml"))


def mistakes(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(folder, text)
    return str(caught.value)


def test_defaults(tmp_path: Path) -> None:
    """A channel and who it is for are enough."""
    file = load(tmp_path, MINIMAL)
    (rule,) = file.rules
    assert rule.kinds == {Kind.ALERT, Kind.EXHAUSTED, Kind.UNFINISHED}
    assert (rule.collect, rule.min_interval, rule.max_interval) == (10.0, 300.0, 4800.0)
    assert file.channels[0].id == "log"


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    """Not in an explanation, not in a representation: neither the URL of a web hook nor a password."""
    for name in ("url", "token", "password"):
        (tmp_path / name).write_text(f"https://hooks.example.org/canary-{name}\n")
    file = load(
        tmp_path,
        f"""
[[channel]]
id = "slack"
kind = "slack"
url_file = "{tmp_path}/url"
[[channel]]
id = "hook"
kind = "webhook"
url = "https://hooks.example.org:8443/canary?key=canary"
token_file = "{tmp_path}/token"
[[channel]]
id = "mail"
kind = "email"
host = "mail.example.org"
username = "taskbus"
password_file = "{tmp_path}/password"
from = "taskbus@example.org"
to = ["ops@example.org"]
[[rule]]
to = ["slack", "hook", "mail"]
""",
    )
    told = "\n".join(explain(file)) + repr(file)
    assert "canary" not in told
    assert "https://hooks.example.org:8443/***" in told
    assert "ops@example.org by mail.example.org:587 (starttls)" in told
    slack, hook, mail = file.channels
    assert slack.url is not None
    assert slack.url.reveal() == "https://hooks.example.org/canary-url"
    assert hook.token is not None
    assert mail.mail is not None
    assert mail.mail.password is not None


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """With line, key and what would be right."""
    told = mistakes(
        tmp_path,
        """[[channel]]
id = "a"
kind = "slak"
[[channel]]
id = "b"
kind = "webhook"
url = "http://hooks.example.org/canary"
[[channel]]
id = "c"
kind = "email"
host = "mail.example.org"
security = "none"
username = "u"
from = "no address"
to = ["ops@example.org"]
[[rule]]
on = ["alrt"]
to = ["d"]
min_interval = "2h"
max_interval = "1h"
mach = { type = "x" }
[[deadline]]
topic = "no such/topic"
""",
    )
    for said in (
        "alerts.toml:3: channel[0].kind: 'slak' is none of log, webhook, slack, email; did you mean 'slack'?",
        "alerts.toml:7: channel[1].url: is not encrypted: use https://, or say allow_insecure = true",
        "alerts.toml:12: channel[2].security: mail to another machine would not be encrypted",
        "channel[2]: the rule has no 'password_file': both belong together",
        "alerts.toml:14: channel[2].from: 'no address' is not an address like ops@example.org",
        "alerts.toml:17: rule[0].on: 'alrt' is nothing to tell of; did you mean 'alert'?",
        "alerts.toml:18: rule[0].to: there is no channel 'd'",
        "alerts.toml:20: rule[0].max_interval: must not be less than min_interval",
        "alerts.toml:21: rule[0].mach: unknown key; did you mean 'match'?",
        "deadline[0]: the rule has no 'within'",
        "alerts.toml:23: deadline[0].topic:",
    ):
        assert said in told
    assert "canary" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[channel]]\nkind = "log"\n', "there is no [[rule]] in it"),
        ('[[rule]]\nto = "log"\n', "there is no [[channel]] in it"),
        (MINIMAL + '[[rule]]\nto = "log"\n', "is called '* alert,exhausted,unfinished' too"),
        (
            MINIMAL.replace("to =", 'on = "alert"\nto =') + '[[deadline]]\ntopic = "t"\nwithin = "1h"\n',
            'no rule tells of it: give one with on = ["unfinished"]',
        ),
        (MINIMAL + '[[channel]]\nkind = "slack"\n', "the rule has no 'url_file'"),
        (
            MINIMAL + '[[channel]]\nkind = "slack"\nurl = "https://u:canary@h/x"\n',
            "must have no user and password in it",
        ),
        (MINIMAL + '[[channel]]\nkind = "slack"\nurl = "file:///etc/canary"\n', "must be a URL like https://HOST/PATH"),
        (MINIMAL + '[[channel]]\nkind = "slack"\nurl = "https://h/ canary"\n', "must have only printable ASCII"),
        (MINIMAL + '[[channel]]\nkind = "slack"\nurl_file = "/no/such"\n', "cannot read /no/such: No such file"),
    ],
)
def test_one_mistake(tmp_path: Path, text: str, said: str) -> None:
    """Each by itself, without showing a secret."""
    told = mistakes(tmp_path, text)
    assert said in told
    assert "canary" not in told
