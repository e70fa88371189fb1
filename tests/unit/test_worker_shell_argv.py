"""The argument template of the shell worker."""

from __future__ import annotations

import pytest

from task.errors import Reject, SettingsError
from task.task import Task
from workers.shell.argv import Argv

TASK = Task(
    "thumb",
    "s3://bucket/a b/c.png?size=10%20px&empty=&x=1&x=2&bad=%FF&dry-run=yes",
    id="i1",
    job="j",
    meta={"flow": "f g"},
)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{value}", TASK.value),
        ("{origin}", "s3://bucket/a b/c.png"),
        ("{path}", "/a b/c.png"),
        ("{param:size}", "10 px"),
        ("{param:empty}", ""),
        ("{param:dry_run}", "yes"),
        ("{filename}", "c.png"),
        ("{meta:flow}", "f g"),
        ("{type}/{job}/{id}", "thumb/j/i1"),
        ("--out={param:size}.png", "--out=10 px.png"),
        ("{{print $1}}", "{print $1}"),
        ("{{{id}}}", "{i1}"),
        ("", ""),
        ("plain $HOME `x`; rm *", "plain $HOME `x`; rm *"),
    ],
)
def test_placeholder_fills_its_one_argument(template: str, filled: str) -> None:
    """Whatever a placeholder brings stays inside the argument it is written in."""
    assert Argv(["prog", template]).fill(TASK) == ["prog", filled]


@pytest.mark.parametrize("value", ["/data/a.txt", "/data/a.txt?x=1", "file:///data/a.txt", "s3://b/data/a.txt"])
def test_path_has_no_scheme_host_or_query(value: str) -> None:
    """{path} is the same for a plain path and for a URI."""
    assert Argv(["prog", "{path}"]).fill(Task("t", value)) == ["prog", "/data/a.txt"]


def test_what_the_task_holds_is_not_expanded_again() -> None:
    """A placeholder inside the task's value is only text."""
    assert Argv(["prog", "{value}"]).fill(Task("t", "{id} {{}} $(id)")) == ["prog", "{id} {{}} $(id)"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ([], "which program"),
        ([""], "which program"),
        (["{value}"], "the program cannot come from the task"),
        (["run-{param:what}"], "the program cannot come from the task"),
        (["p", "{vaule}"], "did you mean 'value'?"),
        (["p", "{param}"], "there is no placeholder {param} ("),
        (["p", "{param:}"], "there is no placeholder {param:} ("),
        (["p", "{value:x}"], "there is no placeholder {value:x} ("),
        (["p", "{print $1}"], "written twice: {{print $1}}"),
        (["p", "a{b"], "a lone '{' in 'a{b'"),
        (["p", "a}b"], "a lone '}' in 'a}b'"),
    ],
)
def test_wrong_template_is_refused_before_any_task(template: list[str], text: str) -> None:
    """A mistake in the template is found when it is read and says how to write it."""
    with pytest.raises(SettingsError) as caught:
        Argv(template)

    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{param:colour}", "must have one parameter 'colour'; it has none"),
        ("{param:x}", "must have one parameter 'x'; it has 2"),
        ("{param:bad}", "percent-encoding is not UTF-8"),
        ("{meta:who}", "meta has no 'who'"),
    ],
)
def test_task_without_what_is_needed_is_rejected(template: str, text: str) -> None:
    """A task whose value does not give what the template asks for is rejected, with what is wrong."""
    with pytest.raises(Reject, match=text):
        Argv(["p", template]).fill(TASK)


def test_nul_is_rejected() -> None:
    """A NUL character cannot be an argument of any program."""
    with pytest.raises(Reject, match="NUL"):
        Argv(["p", "{value}"]).fill(Task("t", "a\0b"))
