"""The state of a simulation, whose statements go to the driver: everything is as SQLAlchemy would have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    String,
    bindparam,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)

from task.errors import StateDataError
from taskmasters.store import Schema, Store, open_store
from taskmasters.store.schema import Blob, insert_new, table

_things = table(
    "test_direct",
    Column("name", String(50), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("body", Blob()),
    Column("due", Double),
    Column("flag", Boolean),
)
_THINGS = Schema("direct", 1, [_things])
_c = _things.c
_ROW = {"name": "a", "count": 1, "body": b"\x00\xff", "due": 1, "flag": None}
_INSERT = insert(_things)
_ADD = insert(_things).values(count=7)
_SELECT = select(_c.name, _c.count, _c.body, _c.due).order_by(_c.name)
_SOME = select(_c.name, _c.due).where(_c.name.in_(bindparam("names", expanding=True))).order_by(_c.name)
_PAIRS = select(_c.name).where(tuple_(_c.name, _c.count).in_(bindparam("pairs", expanding=True))).order_by(_c.name)
_FIRST = select(_c.name).where(_c.due <= bindparam("now")).order_by(_c.due).limit(bindparam("most", type_=Integer))
_LEAST = select(func.min(_c.due))
_SET = update(_things).where(_c.name.in_(bindparam("names", expanding=True))).values(due=None, count=bindparam("n"))
_FLAG = update(_things).where(_c.name == bindparam("which")).values(flag=bindparam("on"))
_FLAGS = select(_c.name, _c.flag).order_by(_c.name)
_GONE = delete(_things).where(_c.name == bindparam("which"))

_Work = Callable[[Connection], Any]


@pytest.fixture
def store() -> Iterator[Store]:
    """One of a simulation."""
    opened = open_store(":memory:", _THINGS, here=True)
    yield opened
    opened.close()


def _all(tx: Connection) -> Any:
    return [tuple(row) for row in tx.execute(_SELECT)]


def _named(tx: Connection) -> Any:
    return [(row.name, row.count, row.body, row.due, dict(row._mapping)) for row in tx.execute(_SELECT).all()]


def _ways(tx: Connection) -> Any:
    names = {"names": ["a"]}
    nobody: dict[str, list[str]] = {"names": []}
    return (
        tx.execute(_LEAST).scalar(),
        tx.execute(_SOME, names).scalars().all(),
        tuple(tx.execute(_SOME, names).one()),
        tx.execute(_SOME, names).scalar_one(),
        tx.execute(_SOME, nobody).first(),
        tx.execute(_SOME, nobody).scalar(),
        list(tx.execute(_SOME, nobody).scalars()),
    )


def _script(tx: Connection) -> Iterator[Any]:
    """What is done, and found, one after the other."""
    for number in range(4):
        tx.execute(_INSERT, [{**_ROW, "name": f"a{number}", "due": number}])
        tx.execute(_INSERT, [{**_ROW, "name": f"{kind}{number}", "due": None} for kind in "bc"])
        tx.execute(_ADD, {"name": f"d{number}"})
        insert_new(tx, _things, [{**_ROW, "count": 9}, {**_ROW, "name": f"e{number}", "due": number / 3}])
        yield _all(tx)
        yield _named(tx)
        yield _ways(tx)
        for length in range(4):
            names = [f"a{one}" for one in range(length)]
            yield [tuple(row) for row in tx.execute(_SOME, {"names": names})]
            yield tx.execute(_SET, {"names": names, "n": number + 10}).rowcount
        yield tx.execute(_PAIRS, {"pairs": [("b0", 1), ("c0", 2)]}).scalars().all()
        yield tx.execute(_FIRST, {"now": 2, "most": number}).scalars().all()
        tx.execute(_FLAG, {"which": "b0", "on": bool(number % 2)})
        yield [tuple(row) for row in tx.execute(_FLAGS)]
        yield tx.execute(_GONE, {"which": f"d{number}"}).rowcount
        yield tx.execute(_GONE, {"which": "nobody"}).rowcount


def test_everything_is_found_as_sqlalchemy_finds_it(store: Store) -> None:
    """Whichever statement is done, and however often, it does and finds what it does elsewhere."""
    other = open_store(":memory:", _THINGS)
    try:
        expected = other.call(lambda tx: list(_script(tx)))
    finally:
        other.close()
    assert store.call(lambda tx: list(_script(tx))) == expected
    assert any(isinstance(flag, bool) for _, flag in store.call(lambda tx: [tuple(row) for row in tx.execute(_FLAGS)]))


def test_a_transaction_is_whole(store: Store) -> None:
    """What was done before something raised is undone, and what came before the transaction stays."""

    def fails(tx: Connection) -> None:
        for number in range(3):
            tx.execute(_INSERT, [{**_ROW, "name": f"x{number}"}])
        raise ValueError("no")

    store.call(lambda tx: tx.execute(_INSERT, [_ROW]))
    with pytest.raises(ValueError, match="no"):
        store.call(fails)
    assert [row[0] for row in store.call(_all)] == ["a"]


def test_what_the_database_refuses(store: Store) -> None:
    """A row that breaks a rule of its table is refused by the same error, and the transaction undone."""

    def twice(tx: Connection) -> None:
        for name in ("a", "b", "b"):
            tx.execute(_INSERT, [{**_ROW, "name": name}])

    for _ in range(2):
        with pytest.raises(StateDataError, match="UNIQUE"):
            store.call(twice)
    assert store.call(_all) == []
