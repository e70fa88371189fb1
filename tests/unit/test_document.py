from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task.document import MAX_SIZE, load_document, parse_document
from task.errors import SettingsError

TOML = '''# a comment
bus = "x"   # [not.a.header]
[a]
b.c = 1
"q.r" = """
[[rule]]
k = 1
"""
list = [
  1,
  {x = 1, y = [2,
    3]},  # }
]
[[rule]]
cron = "* # *"
[[rule]]
 cron = 'y'
[rule.meta]
k = 2017-01-01T00:00:00Z
[[rule.sub]]
z = {}
[[rule.sub]]
z = [[], [1]]
'''

YAML = """bus: x
rule:
  - cron: a
    meta: {k: v,
           l: w}
  -
    cron: b
base: &base
  one: 1
  two: 2
use:
  <<: *base
  two: 3
"""


def paths(data: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from paths(value, (*path, key))
    elif isinstance(data, list):
        for at, value in enumerate(data):
            yield from paths(value, (*path, at))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("bus",), 2),
        (("a",), 3),
        (("a", "b", "c"), 4),
        (("a", "q.r"), 5),
        (("a", "list"), 9),
        (("a", "list", 0), 10),
        (("a", "list", 1, "x"), 11),
        (("a", "list", 1, "y", 1), 12),
        (("rule",), 14),
        (("rule", 0, "cron"), 15),
        (("rule", 1), 16),
        (("rule", 1, "cron"), 17),
        (("rule", 1, "meta", "k"), 19),
        (("rule", 1, "sub", 0, "z"), 21),
        (("rule", 1, "sub", 1, "z", 1, 0), 23),
    ],
)
def test_toml_lines(path: tuple[str | int, ...], line: int) -> None:
    """Every key, table and list item of a TOML text is found on its line."""
    assert parse_document(TOML, "r.toml").line(path) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("bus",), 1),
        (("rule",), 2),
        (("rule", 0), 3),
        (("rule", 0, "cron"), 3),
        (("rule", 0, "meta", "l"), 5),
        (("rule", 1, "cron"), 7),
        (("use", "one"), 9),
        (("use", "two"), 13),
    ],
)
def test_yaml_lines(path: tuple[str | int, ...], line: int) -> None:
    """Every key and list item of a YAML text is found on its line, merged ones where they were written."""
    assert parse_document(YAML, "r.yaml").line(path) == line


@pytest.mark.parametrize(("text", "name"), [(TOML, "r.toml"), (YAML, "r.yml"), (TOML.replace("\n", "\r\n"), "r.toml")])
def test_every_value_has_a_line(text: str, name: str) -> None:
    """No value of a document is without a line of its own."""
    document = parse_document(text, name)

    assert all(document._lines[path] for path in paths(document.data))


STATEMENTS = st.sampled_from(
    [
        "[{k}]",
        "[{k}.{k}]",
        "[[{k}]]",
        "[[ {k} . {k} ]] # c",
        "{k} = {v}",
        '{k}."{k}" = {v}',
        "'{k}' = [{v}, {v}]",
        "{k} = [\n  {v}, # ]\n  [{v},\n]]",
        "{k} = {{{k} = {v}, z.y = [{{}}]}}",
        "{k} = {{}}",
        "# {k} = {v}",
    ]
)
VALUES = st.sampled_from(
    ["1", "-1.5e3", '"[a]"', "'#'", '"""\na\n\\""""""', "'''\n[[a]]\n'''", "true", "07:32:00.5", "{a.b=1}"]
)


@given(st.lists(st.tuples(STATEMENTS, st.sampled_from("abc"), VALUES), max_size=8))
def test_every_value_of_any_toml_has_a_line(parts: list[tuple[str, str, str]]) -> None:
    """Whatever tomllib reads, each of its values has a line on which its last key stands."""
    text = "\n".join(statement.format(k=key, v=value) for statement, key, value in parts)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    document = parse_document(text, "r.toml")

    lines = text.split("\n")
    for path in paths(data):
        line = lines[document._lines[path] - 1]
        assert isinstance(path[-1], int) or path[-1] in line


def test_error_names_file_line_and_key() -> None:
    """An error points at the line of its key, or at the nearest thing around a key that is missing."""
    document = parse_document(TOML, "rules.toml")

    assert str(document.error(("rule", 0, "cron"), "wrong")) == "rules.toml:15: rule[0].cron: wrong"
    assert str(document.error(("rule", 1, "type"), "missing")) == "rules.toml:16: rule[1].type: missing"
    assert str(document.error(("a", "q.r"), "wrong")) == "rules.toml:5: a.'q.r': wrong"
    assert str(document.error(("nowhere",), "missing")) == "rules.toml: nowhere: missing"
    assert str(document.error((), "has no rules")) == "rules.toml: has no rules"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = \n", "r.toml:2: Invalid value"),
        ("a = 1\na = 2\n", "r.toml:2: Cannot overwrite a value"),
        ("a = 1\n[b", "r.toml:2: Expected ']' at the end of a table declaration"),
        ("a = " + "[" * 50_000, "r.toml: is nested too deeply"),
        ("a = " + "{b = " * 50_000, "r.toml: is nested too deeply"),
        ("b = 1\na" + ".a" * 500_000 + " = 1", "r.toml:2: is nested too deeply"),
        ("[a" + ' . "a"' * 100_000 + "]", "r.toml:1: is nested too deeply"),
    ],
)
def test_wrong_toml(text: str, message: str) -> None:
    """What is no TOML, or would take for ever to read, is refused with its line."""
    with pytest.raises(SettingsError) as caught:
        parse_document(text, "r.toml")

    assert str(caught.value) == message


def bomb(item: str) -> str:
    return "\n".join(["a0: &a0 {k: 1}", *(f"a{i}: &a{i} {item.format(i - 1)}" for i in range(1, 40))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: c: d\n", "r.yaml:2: mapping values are not allowed here"),
        ("a: 1\n\tb: 1\n", "r.yaml:2: while scanning for the next token, found character '\\t'"),
        ("a: 1\nb: 2\na: 3\n", "r.yaml:3: 'a' stands here twice; it is also in line 1"),
        ("a: 1\non: 2\n", "r.yaml:2: YAML does not read the key 'on' as text; write it in quotes"),
        ("? [a]\n: 1\n", "r.yaml:1: a key must be text, not a list or mapping"),
        ("- 1\n", "r.yaml: must be a table of keys and values"),
        ("a: 1\n---\nb: 1\n", "r.yaml:2: expected a single document"),
        ("b: 1\na: \x00", "r.yaml:2: holds a character no text has: U+0000"),
        ("a: !!python/object/apply:os.system [x]", "r.yaml:1: the tag !!python/object/apply:os.system means nothing"),
        ("a: !!set {b}", "r.yaml:1: the tag !!set means nothing here"),
        ("b: 1\na: 2017-99-99", "r.yaml:2: '2017-99-99' cannot be read as timestamp"),
        ("a: !!bool x", "r.yaml:1: 'x' cannot be read as bool"),
        ("a: !!timestamp x", "r.yaml:1: 'x' cannot be read as timestamp"),
        ("a: " + "9" * 5000, "r.yaml:1: '" + "9" * 80 + "' cannot be read as int"),
        ('a: "\\ud800"', "r.yaml:1: '\\ud800' cannot be read as str"),
        ("a: *b", "r.yaml:1: found undefined alias 'b'"),
        ("<<: 1", "r.yaml:1: while constructing a mapping, expected a mapping"),
        ("a: " + "[" * 20_000, "r.yaml: is nested too deeply"),
        ("- " * 20_000, "r.yaml: is nested too deeply"),
        ("x: &a [*a]", "r.yaml:1: more than 100000 values, or 100 inside each other"),
        ("x: &a {y: *a}", "r.yaml:1: more than 100000 values, or 100 inside each other"),
        ("x: &a\n  <<: *a", "r.yaml:1: more than 100000 values, or 100 inside each other"),
        (bomb("[*a{0}, *a{0}]"), "r.yaml:"),
        (bomb("{{<<: [*a{0}, *a{0}]}}"), "r.yaml:"),
    ],
)
def test_wrong_yaml(text: str, message: str) -> None:
    """What is no YAML, what YAML reads as nobody means it, and bombs are refused with their line."""
    with pytest.raises(SettingsError) as caught:
        parse_document(text, "r.yaml")

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["r.toml", "r.yaml"])
@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_empty_document(name: str, text: str) -> None:
    """A file that says nothing is an empty table."""
    assert parse_document(text, name).data == {}


@given(st.text("a1:=-[]{}&*<!\"'#.|>?%@, \n\t\r\x00é\ud800", max_size=60), st.sampled_from(["r.toml", "r.yaml"]))
def test_any_text_is_read_or_refused(text: str, name: str) -> None:
    """No text whatever causes anything but a document or a SettingsError."""
    try:
        document = parse_document(text, name)
    except SettingsError:
        return
    assert all(path in document._lines for path in paths(document.data))


def test_load(tmp_path: Path) -> None:
    """A file may begin with a byte order mark; its ending in any case tells its format."""
    (tmp_path / "a.TOML").write_bytes(b"\xef\xbb\xbfa = 'b'\n")
    (tmp_path / "a.Yml").write_bytes(b"\xef\xbb\xbfa: b\n")

    assert load_document(tmp_path / "a.TOML").data == {"a": "b"}
    assert load_document(str(tmp_path / "a.Yml")).data == {"a": "b"}


def test_unreadable_files(tmp_path: Path) -> None:
    """A file that cannot be read, is too long, no text or of another format is refused by name."""
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = 1\nb = '\xe9'\n")
    (tmp_path / "long.yaml").write_bytes(b"#" * (MAX_SIZE + 1))
    (tmp_path / "full.yaml").write_bytes(b"#" * MAX_SIZE)

    def refusal(name: str) -> str:
        with pytest.raises(SettingsError) as caught:
            load_document(tmp_path / name)
        return str(caught.value).removeprefix(f"{tmp_path}{os.sep}")

    assert refusal("none.toml") == "none.toml: cannot be read: No such file or directory"
    assert refusal("folder.toml") == "folder.toml: cannot be read: Is a directory"
    assert refusal("loop.toml") == "loop.toml: cannot be read: Too many levels of symbolic links"
    assert refusal("nul\0.toml") == "nul\0.toml: cannot be read: embedded null byte"
    assert refusal("latin.toml") == "latin.toml:2: is not UTF-8 text"
    assert refusal("long.yaml") == "long.yaml: is longer than 33554432 bytes"
    assert refusal("a.json") == "a.json: its name must end in .toml, .yaml or .yml"
    assert load_document(tmp_path / "full.yaml").data == {}
