"""The placeholders of rule files."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task.task import Task
from taskmasters.templates import COMMON, ITEM, META, PARENT, TIME, MissingValueError, Scope, Template

ALL = frozenset([*TIME, *COMMON, *META, *PARENT, *ITEM])
WHEN = datetime(2017, 1, 2, 3, 4, 5, tzinfo=UTC)


def render(text: str, **scope: object) -> str:
    """The template filled, by default at ``WHEN``."""
    given: dict[str, object] = {"id": "an-id", "when": WHEN} | scope
    return Template(text, ALL).render(Scope(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{yyyy}-{mm}-{dd}T{hh}:{min}:{ss}", "2017-01-02T03:04:05"),
        ("{YYYY}{YY}{MM}{DD}{HH}", "2017170102" + "03"),
        ("{yy}", "17"),
        ("{ts} {TS}", "20170102T030405 20170102T030405"),
        ("{slug}|{HOUR_SLUG}|{day_slug}|{Month_Slug}", "2017/01/02/03|2017/01/02/03|2017/01/02|2017/01"),
        ("{iso}", "2017-01-02T03:04:05Z"),
        ("plain", "plain"),
        ("", ""),
        ("{{yyyy}} {{{yyyy}}}", "{yyyy} {2017}"),
        ("{id}", "an-id"),
    ],
)
def test_time_tokens(text: str, expected: str) -> None:
    """Every token of the moment is written as documented, in either case."""
    assert render(text) == expected


def test_a_zone_shows_in_iso() -> None:
    """A moment in a zone is written with its offset."""
    assert render("{iso}", when=WHEN.astimezone(ZoneInfo("Europe/Berlin"))) == "2017-01-02T04:04:05+01:00"


def test_uuid_comes_from_the_id() -> None:
    """The uuid is the same for the same task and another for another."""
    first, again, other = render("{uuid}"), render("{uuid}"), render("{uuid}", id="other")

    assert first == again != other
    assert len(first) == 36


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{yyyz}", "unknown token {yyyz}; did you mean 'yyyy'?"),
        ("{meta}", "{meta}: write {meta:KEY}"),
        ("{meta:}", "{meta:}: write {meta:KEY}"),
        ("{yyyy:2}", "{yyyy:2}: write {yyyy}"),
        ("{yyyy|qote}", "unknown filter 'qote'; did you mean 'quote'?"),
        ("a { b", "a single '{' at character 3; write '{{' for the brace itself"),
        ("a } b", "a single '}' at character 3; write '}}' for the brace itself"),
        ("{}", "unknown token {}"),
        ("{parent.__class__}", "unknown token {parent.__class__}"),
        ("{0.__globals__}", "unknown token"),
    ],
)
def test_what_is_no_template(text: str, said: str) -> None:
    """A wrong template is told when it is read, with the nearest right token."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is what is tested
        Template(text, ALL)

    assert said in str(caught.value)


def test_a_token_without_meaning_here() -> None:
    """A token of another kind of rule is refused, and {item} says what it needs."""
    with pytest.raises(ValueError, match=r"\{parent.id\} has no meaning here"):
        Template("{parent.id}", TIME)
    with pytest.raises(ValueError, match=r"\{item\} has no meaning here without for_each"):
        Template("{item}", TIME)


def test_a_value_is_never_a_template() -> None:
    """Braces in a value are put in as they are."""
    assert render("{meta:a}", meta={"a": "{yyyy}{meta:a}"}) == "{yyyy}{meta:a}"


def test_missing_values() -> None:
    """A missing value is an error that names the placeholder, unless it has a default."""
    with pytest.raises(MissingValueError, match=r"\{meta:region\}"):
        render("{meta:region}")
    with pytest.raises(MissingValueError, match=r"\{parent.job\}"):
        render("{parent.job}", parent=Task("t"))

    assert render("{meta:region|default:eu}") == "eu"
    assert render("{meta:region|default:}") == ""
    assert Template("{meta:a}{meta:b|default:x}", ALL).meta_keys == {"a"}


PARENT_TASK = Task("load", "s3://b/2017/a%20file.json?hour=3&name=x%26y&n=1&n=2#frag", job="daily", id="p1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{parent.type} {parent.job} {parent.id}", "load daily p1"),
        ("{parent.value}", PARENT_TASK.value),
        ("{parent.origin}", "s3://b/2017/a%20file.json"),
        ("{parent.origin}?hour=4", "s3://b/2017/a%20file.json?hour=4"),
        ("{parent.path}", "/2017/a%20file.json"),
        ("s3://out{parent.path}", "s3://out/2017/a%20file.json"),
        ("{parent.filename}", "a%20file.json"),
        ("x?file={parent.filename}", "x?file=a%20file.json"),
        ("{parent.query:hour} {parent.query:name} {parent.query:n}", "3 x&y 1,2"),
        ("{parent.result}{parent.msg}", "complete"),
    ],
)
def test_parent_tokens(text: str, expected: str) -> None:
    """The parts of a done task; those of its URI keep their encoding."""
    assert render(text, parent=PARENT_TASK.replace(result="complete")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{meta:v}", "a/b ?&=#%+,é"),
        ("no uri {meta:v}", "no uri a/b ?&=#%+,é"),
        ("s3://b/{meta:v}/x", "s3://b/a/b%20%3F&=%23%25+,%C3%A9/x"),
        ("x/{meta:v}?y=1", "x/a/b%20%3F&=%23%25+,%C3%A9?y=1"),
        ("x?y={meta:v}&z", "x?y=a/b%20?%26%3D%23%25%2B%2C%C3%A9&z"),
        ("x?y={meta:v|raw}", "x?y=a/b ?&=#%+,é"),
        ("{meta:v|quote}", "a%2Fb%20%3F%26%3D%23%25%2B%2C%C3%A9"),
        ("{meta:v}?y=1", "a/b ?&=#%+,é?y=1"),
    ],
)
def test_values_stay_in_their_place(text: str, expected: str) -> None:
    """In a template shaped like a URI a value is percent-encoded for where it stands."""
    assert render(text, meta={"v": "a/b ?&=#%+,é"}) == expected


def test_a_literal_question_mark_counts_where_it_stands() -> None:
    """Text put in earlier does not turn a path into a query."""
    assert render("s3://b/{meta:v}/{meta:v}", meta={"v": "a?b"}) == "s3://b/a%3Fb/a%3Fb"


@given(st.text(st.characters(codec="utf-8")))
def test_any_value_survives_a_query(value: str) -> None:
    """What is put in after the ? is what a reader of the URI gets, and adds no parameter."""
    query = parse_qs(urlsplit(render("s3://b/x?v={meta:v}&w=1", meta={"v": value})).query, keep_blank_values=True)

    assert query == {"v": [value], "w": ["1"]}
