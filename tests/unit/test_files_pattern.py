"""Patterns of paths, their windows, and the moments paths tell."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from taskmasters.files.pathtime import path_time
from taskmasters.files.pattern import Glob, PathPattern
from taskmasters.zone import find_zone

ZONE = find_zone("UTC")
NOW = datetime(2026, 3, 2, 1, 30, tzinfo=UTC).timestamp()


def pattern(text: str, lookback: float = 0.0, zone: str = "UTC") -> PathPattern:
    return PathPattern(text, find_zone(zone), lookback)


def shown(found: PathPattern) -> list[str]:
    """The folders it looks into now."""
    return [f"{glob.root}|{'/'.join(glob.parts)}" for glob in found.globs(NOW)]


@pytest.mark.parametrize(
    ("text", "fits", "fails"),
    [
        ("/in/*.json", ["/in/a.json", "/in/.json"], ["/in/a.jsonl", "/in/x/a.json", "/out/a.json", "/in/a.json/b"]),
        ("/in/**/*.json", ["/in/a.json", "/in/x/y/a.json"], ["/in/a.csv", "/a.json"]),
        ("/in/**", ["/in/a", "/in/x/a"], ["/in", "/out/a"]),
        ("/in/*/a?.json", ["/in/x/a1.json"], ["/in/a1.json", "/in/x/a12.json", "/in/x/a/.json"]),
        ("/in/[ab].json", ["/in/a.json", "/in/b.json"], ["/in/c.json"]),
        ("/in/[!a]x", ["/in/bx"], ["/in/ax", "/in//x"]),
        ("/in/[a", ["/in/[a"], ["/in/a"]),
        ("/in/[]]", ["/in/]"], ["/in/["]),
        ("/in/[!]-]", ["/in/["], ["/in/]", "/in/-"]),
        ("/in/[a-c&&|~+--[]", ["/in/b", "/in/&", "/in/~", "/in/,", "/in/["], ["/in/d"]),
        ("/in/{{a}}.(x)+", ["/in/{a}.(x)+"], ["/in/a.x"]),
        ("s3://b/in/*", ["s3://b/in/a b"], ["s3://c/in/a"]),
        ("/in/{yyyy}/{mm}/x-{yyyy}.csv", ["/in/2026/01/x-2026.csv"], ["/in/2026/01/x-2025.csv", "/in/26/01/x-26.csv"]),
        ("/in/{DAY_SLUG}/*", ["/in/2026/01/02/x"], ["/in/2026/01/x"]),
    ],
)
def test_match(text: str, fits: list[str], fails: list[str]) -> None:
    """A star stays within its part of the path, two stars do not; tokens are digits that agree."""
    found = pattern(text)
    assert [path for path in (*fits, *fails) if found.match(path)] == fits


@pytest.mark.parametrize(
    ("text", "lookback", "expected"),
    [
        ("/in/**/*.json", 0, ["/in|**/*.json"]),
        ("/in/a.json", 0, ["/in|a.json"]),
        ("/*", 0, ["/|*"]),
        ("s3://b/in/{yyyy}/{mm}/{dd}/*", 86400, ["s3://b/in/2026/03/01|*", "s3://b/in/2026/03/02|*"]),
        ("/in/{yyyy}/{mm}/*", 86400 * 3, ["/in/2026/02|*", "/in/2026/03|*"]),
        ("/in/{yyyy}/*", 86400 * 90, ["/in/2025|*", "/in/2026|*"]),
        ("/in/{slug}", 3600 * 2, ["/in/2026/03/01|23", "/in/2026/03/02|00", "/in/2026/03/02|01"]),
        ("/x-{yyyy}{mm}{dd}T{hh}{min}", 120, ["/|x-20260302T0128", "/|x-20260302T0129", "/|x-20260302T0130"]),
    ],
)
def test_what_is_looked_into(text: str, lookback: float, expected: list[str]) -> None:
    """A pattern with tokens is looked into once for each moment of its window, others once."""
    assert shown(pattern(text, lookback)) == expected


def test_the_window_is_that_of_the_zone() -> None:
    """In New York it is still yesterday."""
    assert shown(pattern("/in/{yyyy}/{mm}/{dd}/*", zone="America/New_York")) == ["/in/2026/03/01|*"]


def test_in_window() -> None:
    """A path that the system tells of counts if a look would have found it."""
    found = pattern("/in/{yyyy}/{mm}/{dd}/*", 86400)
    answers = {}
    for day in ("2026/02/28", "2026/03/01", "2026/03/02", "2026/03/03", "2026/02/31"):
        match = found.match(f"/in/{day}/x")
        assert match is not None
        answers[day] = found.in_window(match, NOW)

    assert [day for day, inside in answers.items() if inside] == ["2026/03/01", "2026/03/02"]


def test_beside() -> None:
    """A marker lies in the folder of the files it is about."""
    found = pattern("/in/{yyyy}/**/part-*.json").beside("_SUCCESS")

    assert found.fullmatch("/in/2026/_SUCCESS")
    assert found.fullmatch("/in/2026/x/_SUCCESS")
    assert not found.fullmatch("/in/_SUCCESS")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/in/{yyy}/*", "unknown token {yyy}; did you mean 'yyyy'?"),
        ("/in/{yyyy}/{dd}/*", "it has {dd} but no {mm}: its moment cannot be told"),
        ("/in/{hh}/*", "it has {hh} but no {yyyy}"),
        ("/in/", "it must end with the name of files: write FOLDER/*"),
        ("/in/**.json", "** stands for folders and must be a part of its own: write **/*.json"),
        ("/in/[z-a]", "the set in [ ] is wrong: bad character range z-a"),
        ("/in/{a", "a single '{'; write '{{' for the brace itself"),
    ],
)
def test_wrong_patterns(text: str, said: str) -> None:
    """What is wrong is told with what would be right."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is what is tested
        pattern(text)
    assert said in str(caught.value)


def test_too_many_folders() -> None:
    """A window of very many folders is a mistake, told when it is read."""
    with pytest.raises(ValueError, match="its lookback covers more than 10000 folders"):
        pattern("/in/{yyyy}{mm}{dd}{hh}{min}", 30 * 86400)


def test_the_moment_of_a_path() -> None:
    """It is what the clock in the rule's zone shows."""
    found = pattern("/in/{yyyy}/{mm}/{dd}/*", zone="Europe/Berlin")
    match = found.match("/in/2026/07/01/x")
    assert match is not None
    moment = found.moment(match)
    assert moment is not None
    assert moment.isoformat() == "2026-07-01T00:00:00+02:00"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://b/x/20260131T050607.json", "2026-01-31T05:06:07"),
        ("s3://b/2026/01/31/05/x.json", "2026-01-31T05:00:00"),
        ("s3://b/2026/01/31/x.json", "2026-01-31T00:00:00"),
        ("s3://b/x_2026-01-31.json", "2026-01-31T00:00:00"),
        ("s3://b/x_2026-01-31T07.json", "2026-01-31T07:00:00"),
        ("s3://b/2026/01/x.json", "2026-01-01T00:00:00"),
        ("s3://b/2025/01/01/copy/2026/01/31/x", "2026-01-31T00:00:00"),
        ("s3://b/2026/02/31/x.json", "2026-02-01T00:00:00"),
        ("s3://b/x.json", None),
        ("s3://b/120260131T050607", None),
    ],
)
def test_path_time(path: str, expected: str | None) -> None:
    """The conventions of flowlord's PathTime."""
    found = path_time(path, ZONE)
    assert (found.replace(tzinfo=None).isoformat() if found else None) == expected


def test_globs_take_names_with_magic_signs_literally_in_folders_found() -> None:
    """A folder that was found is not read as a pattern again."""
    assert Glob.of("/in/[x]/*.json") == Glob("/in", ("[x]", "*.json"))
