"""Workflow files: one, or every one in a folder. All their mistakes are told at once, and nothing is half loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import orjson

from bus import dead_topic
from bus.url import nearest
from task.document import Document, load_document
from task.errors import SettingsError
from task.task import derive_id
from taskmasters.cron.rules import CronRule, Missed
from taskmasters.cron.schedule import parse_schedule
from taskmasters.on_done.patterns import Match, Texts
from taskmasters.on_done.rules import read_match
from taskmasters.rules import Place, Problems, RuleTable
from taskmasters.templates import Template
from taskmasters.workflow.definition import After, Node, Workflow
from taskmasters.workflow.graph import check_graph, in_order, resolve, reversed_edges
from taskmasters.workflow.reading import Defaults, read_node, read_undo
from taskmasters.zone import Zone, find_zone

__all__ = ["check_topics", "files_in", "load_workflows", "read_stored"]

_ENDINGS = (".toml", ".yaml", ".yml")
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
#: Meta keys of the task that started a run that travel along unless the file says which do.
_KEPT = ("cron", "trace*")
_DAY = 86400.0
_STARTS = ("cron", "done", "after")


class _File:
    """One file being read."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems = Problems(document)
        self.top = RuleTable(document.data, (), self.problems)
        self.folder = Path(document.path).parent
        self.id = ""
        self.workflow: Workflow | None = None
        #: Where its starts by done tasks stand.
        self.match_places: list[Place] = []

    def read(self) -> None:
        """Read the workflow; stays None if something in it is wrong."""
        top = self.top
        self.id = _read_id(top, self.document.path)
        zone = top.read("timezone", find_zone, find_zone("UTC"))
        enabled = top.flag("enabled", True)
        crons, matches, afters = self._starts(zone, enabled)
        nodes, tables = self._nodes(zone)
        undo = self._undo(nodes, tables) if not len(self.problems) else {}
        keep_meta = Texts(top.texts("keep_meta", empty=True) or (() if "keep_meta" in top else _KEPT))
        max_runs = top.number("max_runs", 1)
        requests = top.flag("requests", True)
        top.finish()
        if not nodes and not len(self.problems):
            self.problems.add((), "there is no [[job]] and no [[step]] in it")
        if len(self.problems):
            return
        children, eaches = reversed_edges([*nodes.values(), *undo.values()])
        body = orjson.dumps({"path": self.document.path, "data": self.document.data}, option=orjson.OPT_NON_STR_KEYS)
        self.workflow = Workflow(
            id=self.id,
            path=self.document.path,
            hash=derive_id("workflow-file", body.decode()),
            body=body,
            zone=zone,
            keep_meta=keep_meta,
            max_runs=max_runs,
            requests=requests,
            crons=crons,
            matches=matches,
            afters=afters,
            nodes=nodes,
            undo=undo,
            children=children,
            eaches=eaches,
            enabled=enabled,
        )

    def _nodes(self, zone: Zone) -> tuple[dict[str, Node], dict[str, RuleTable]]:
        found: list[Node] = []
        tables: dict[str, RuleTable] = {}
        steps: dict[str, list[str]] = {}

        def read(table: RuleTable, defaults: Defaults) -> str:
            node = read_node(table, defaults, self.folder, zone)
            found.append(node)
            # Read last, once it is known what it undoes.
            if "compensate" in table:
                tables[node.name] = table.table("compensate")
            table.finish()
            return node.name

        for table in self.top.tables("job"):
            read(table, Defaults())
        before: Sequence[str] = ()
        for number, table in enumerate(self.top.tables("step"), 1):
            name = table.text("name") or f"step{number}"
            defaults = Defaults(name, table)
            defaults.depends_on = (*before, *(table.texts("depends_on") or ()))
            jobs = table.tables("job")
            if not jobs and "job" not in table:
                table.missing("job", "begin each of its jobs with [[step.job]]")
            if name in steps:
                table.wrong("name", f"{name!r} is taken already: give each job and step its own name")
            before = steps[name] = [read(job, defaults) for job in jobs]
            table.finish()
        nodes = resolve(found, steps, self.problems)
        if not len(self.problems):
            check_graph(nodes, self.problems)
        return nodes, tables

    def _undo(self, nodes: Mapping[str, Node], tables: Mapping[str, RuleTable]) -> dict[str, Node]:
        found: dict[str, Node] = {}
        previous: str | None = None
        for name in reversed(in_order(nodes)):
            if name in tables:
                node = read_undo(tables[name], nodes[name], previous)
                tables[name].finish()
                previous = node.name
                found[node.name] = node
        for node in found.values():
            for used in node.uses:
                if used != node.undoes:
                    self.problems.add(
                        (*node.place, "task"), f"a compensation knows the results of {node.undoes!r} only, not {used!r}"
                    )
        return found

    def _starts(self, zone: Zone, enabled: bool) -> tuple[list[CronRule], list[Match], list[After]]:
        crons: list[CronRule] = []
        matches: list[Match] = []
        afters: list[After] = []
        for number, table in enumerate(self.top.tables("start")):
            given = [key for key in _STARTS if key in table]
            if len(given) != 1:
                self.problems.add(table.place, f"a start has one of {', '.join(_STARTS)}, not {len(given)}")
                continue
            if given == ["cron"]:
                crons.append(self._cron(table, zone, enabled, number))
            elif given == ["done"]:
                matches.append(read_match(table.table("done"))[0])
                self.match_places.append(table.place)
            else:
                parents = tuple(_parent(name) for name in table.texts("after") or ())
                afters.append(After(parents, table.word("when", ("all", "any"), "all") == "any", table.place))
            table.finish()
        return crons, matches, afters

    def _cron(self, table: RuleTable, zone: Zone, enabled: bool, number: int) -> CronRule:
        own = table.read("timezone", find_zone, zone)
        fallback = parse_schedule("@yearly", own)
        return CronRule(
            id=f"{self.id}/{table.text('id') or number}",
            schedule=table.read("cron", lambda text: parse_schedule(text, own), fallback),
            zone=own,
            offset=table.duration("offset", 0.0, negative=True),
            jitter=table.duration("jitter", 0.0),
            type=self.id,
            task=Template("", ()),
            job=None,
            topic=self.id,
            meta={},
            missed=Missed(table.word("missed", list(Missed), Missed.LAST)),
            window=table.duration("window", _DAY),
            enabled=enabled,
            place=table.place,
        )


def _read_id(top: RuleTable, path: str) -> str:
    found = top.text("id")
    if found is None:
        found = Path(path).stem
        if not _ID.fullmatch(found):
            top.missing("id", f"the name of the file, {found!r}, cannot be one, because of the characters in it")
    elif not _ID.fullmatch(found):
        top.wrong("id", f"{found!r} must be letters, digits, - and _")
    return found


def _parent(name: str) -> tuple[str, str | None]:
    workflow, _, job = name.partition(".")
    return workflow, job or None


def load_workflows(path: str, *more: str) -> list[Workflow]:
    """The workflows of a file, or of every ``.toml``, ``.yaml`` and ``.yml`` file in a folder and the folders in it.

    With ``more`` files or folders, of all of them together.

    Raises:
        SettingsError: naming every mistake, or saying why a file cannot be read.
    """
    documents, failures = [], []
    for name in dict.fromkeys(name for each in (path, *more) for name in files_in(each)):
        try:
            documents.append(load_document(name))
        except SettingsError as error:
            failures.append(str(error))
    files = [_File(document) for document in documents]
    for file in files:
        file.read()
    _check_ids(files)
    if not failures:
        _check_names(files)
        _check_cycles(files)
        _check_waiting(files)
    told = [*failures, *(text for file in files for text in file.problems.told())]
    if told:
        raise SettingsError("\n".join([f"{len(told)} mistakes:", *told]) if len(told) > 1 else told[0])
    return [file.workflow for file in files if file.workflow is not None]


def check_topics(workflows: Sequence[Workflow], done: str, requests: str | None) -> None:
    """Refuse jobs whose tasks no worker finds, and requests for workflows that are not there.

    Raises:
        SettingsError: naming the file and the job.
    """
    for one in workflows:
        for node in (*one.nodes.values(), *one.undo.values()):
            if node.topic in (done, dead_topic(done)):
                raise SettingsError(
                    f"{one.path}: the job {node.name} sends to the topic {node.topic}, where no worker finds it"
                )
            if node.topic == requests and node.type not in {other.id for other in workflows}:
                raise SettingsError(
                    f"{one.path}: the job {node.name} asks for the workflow {node.type}, which is not there"
                )


def read_stored(body: bytes) -> Workflow:
    """The workflow as it was when a run of it began.

    Raises:
        SettingsError: if this taskbus does not understand it any more.
    """
    stored: dict[str, Any] = orjson.loads(body)
    file = _File(Document(stored["path"], stored["data"], dict))
    file.read()
    file.problems.check()
    if file.workflow is None:
        raise SettingsError(f"{stored['path']}: cannot be read")
    return file.workflow


def files_in(path: str) -> list[str]:
    """The files that ``path`` stands for: itself, or those in the folder. Raises SettingsError if there are none."""
    if not os.path.isdir(path):
        return [path]
    found = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if name.lower().endswith(_ENDINGS)
    ]
    if not found:
        raise SettingsError(f"{path}: there is no file in it whose name ends in {', '.join(_ENDINGS)}")
    return sorted(found)


def _check_ids(files: Sequence[_File]) -> None:
    seen: dict[str, str] = {}
    for file in files:
        if file.id in seen:
            file.problems.add(("id",), f"{seen[file.id]} is the workflow {file.id!r} too: give each an id of its own")
        seen.setdefault(file.id, file.document.path)


def _check_names(files: Sequence[_File]) -> None:
    known = {file.id: file.workflow for file in files}
    for file in files:
        for (name, job), place in _named(file.workflow):
            if name not in known:
                file.problems.add(place, f"there is no workflow {name!r}{nearest(name, sorted(known))}")
            elif (parent := known[name]) is not None and job is not None and job not in parent.nodes:
                file.problems.add(place, f"{name!r} has no job {job!r}{nearest(job, sorted(parent.nodes))}")


def _named(workflow: Workflow | None) -> Iterator[tuple[tuple[str, str | None], Place]]:
    """What a workflow names of others, and where."""
    if workflow is not None:
        for after in workflow.afters:
            yield from ((parent, (*after.place, "after")) for parent in after.parents)
        for node in workflow.nodes.values():
            yield from ((parent, (*node.place, "depends_on")) for parent in node.outside)


def _check_waiting(files: Sequence[_File]) -> None:
    """Tell of jobs of several workflows that wait for each other."""
    graph: dict[str, list[str]] = {}
    nodes: dict[str, tuple[_File, Node]] = {}
    for file in files:
        for node in file.workflow.nodes.values() if file.workflow else ():
            name = f"{file.id}.{node.name}"
            nodes[name] = (file, node)
            inside = node.depends_on if node.each is None else (node.each,)
            graph[name] = [*(f"{file.id}.{parent}" for parent in inside), *map(".".join, node.outside)]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        file, node = nodes[error.args[1][0]]
        file.problems.add((*node.place, "depends_on"), f"waits for itself: {' → '.join(error.args[1])}")


def _check_cycles(files: Sequence[_File]) -> None:
    """Tell of workflows whose done tasks start each other, or themselves: they would go on without end."""
    started: dict[str, set[str]] = {file.id: set() for file in files}
    for file in files:
        if file.workflow is None:
            continue
        for match, place in zip(file.workflow.matches, file.match_places, strict=True):
            for other in files:
                made = _made_by(other)
                causes = [name for name, kind, job in made if match.produced_by(kind, job)]
                if causes and other is file:
                    what = f"what its own job {causes[0]!r} makes" if causes[0] else "its own end"
                    file.problems.add(place, f"{what} starts it again, without end: narrow what it matches")
                elif causes:
                    started[file.id].add(other.id)
    try:
        TopologicalSorter(started).prepare()
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
        first = min(cycle)
        path = " → ".join([*cycle[cycle.index(first) : -1], *cycle[: cycle.index(first)], first])
        (file,) = [file for file in files if file.id == first]
        file.problems.add(file.match_places[0], f"each starts the next, without end: {path}")


def _made_by(file: _File) -> list[tuple[str, str, str | None]]:
    """Name, type and job of the done tasks that come of a workflow; its own end has no name."""
    if file.workflow is None:
        return []
    nodes = (*file.workflow.nodes.values(), *file.workflow.undo.values())
    return [*((node.name, node.type, node.job) for node in nodes), ("", file.id, None)]
