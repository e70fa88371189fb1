"""Valid inputs, from which the others are made."""

from __future__ import annotations

import json
from pathlib import Path

from tests.doc_runner import File, read_document

__all__ = ["CSV", "DEAD_LETTER", "JSON_LINES", "TASKS", "VALUES", "documented", "workflows"]

ROOT = Path(__file__).parents[2]

TASKS = (
    b'{"type":"task-type","task":"2017-01-01T01","created":"2017-10-28T15:42:07.8Z"}',
    b'{"type":"t","task":"s3://b/2017/01/01?hour=1&dry-run","id":"7f","job":"j","meta":{"workflow":"w","run":"r","a":""},'
    b'"created":"2017-10-28T15:42:07Z","result":"complete","msg":"fine \\u00e9","started":"2017-10-28T15:42:07.1Z",'
    b'"completed":"2017-10-28T15:52:04.8+02:00","extra":[1,2.5,{"a":null}],"more":true}',
    b'{"type":"t","info":"x?a=1","meta":"workflow=w&run=r%20s","created":"2017-10-28T15:42:07","ended":"2018-01-01","id":""}',
    b'{"type":"t","result":"error","msg":null,"job":null,"meta":{},"created":""}',
)
VALUES = (
    b"s3://user:pa%20ss@bucket/2017/01/cat.jpg?width=640&dry-run&format=jpg,png&since=2017-01-01T00:00:00Z&wait=1h30m#frag",
    b"/data/in/x.csv?width=1&ratio=0.5&mode=b&tags=a:1,b:2&day=2026-01-31",
    b"plain?width=-3&dry_run=false&format=&wait=90",
    b"?width=1",
)
DEAD_LETTER = (
    json.dumps(
        {
            "dead": "2026-01-01T00:00:00Z", "code": "not-json", "reason": "not JSON", "topic": "t", "group": "g",
            "message_id": "1", "attempt": 3, "history": ["no"], "type": "t", "id": "7", "body": '{"type":"t"}',
        }
    ).encode(),
    b'{"dead":"2026-01-01T00:00:00Z","code":"x","reason":"r","topic":"t","message_id":"1","body_base64":"/w=="}',
    b'{"dead":"2026-01-01T00:00:00Z","topic":"t","group":"g","message_id":"1","body_base64":"aGFsZg==","part":1,"parts":2}',
)  # fmt: skip
CSV = (b'day,name\r\n2026-01-31,"a ""b"", c"\r\n2026-02-01,\xc3\xa9\r\n', b"a\n1\n\n2\n", b"a,b,c\n1,2,3\n")
JSON_LINES = (b'{"day":"2026-01-31","n":1,"ok":true,"no":null}\n\n{"day":"x","n":1.5}\n', b'{"a":"\\ud83d\\ude00"}')


def documented(*names: str) -> tuple[bytes, ...]:
    """The files of these names in the documentation."""
    found = []
    for path in sorted(ROOT.glob("docs/**/*.md")):
        found += [
            step.text.encode()
            for step in read_document(path.read_text())
            if isinstance(step, File) and step.name in names
        ]
    if not found:
        raise ValueError(f"no page shows {names}")
    return tuple(found)


def workflows() -> tuple[bytes, ...]:
    """Every workflow file shown."""
    return tuple(
        step.text.encode()
        for step in read_document((ROOT / "docs/taskmasters/workflow.md").read_text())
        if isinstance(step, File) and step.name.endswith(".toml")
    )
