"""YAML with the line of every value, and the mistakes in it.

PyYAML alone forgets lines, takes the last of two equal keys silently, and builds objects from tags. Here every value has a line, a key that is given
twice is a mistake, and tags are refused. Anchors, aliases and merge keys (`<<`) work.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """A mistake of the user's with its line and key. `key` is dotted, as in `models[1].se.ratio`; empty: the whole file."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """One line, as compilers write it."""
        return f"{self.file}:{self.line}: {self.key}: {self.message}" if self.key else f"{self.file}:{self.line}: {self.message}"


class GridError(Exception):
    """Every mistake of a grid at once, sorted by file and line; `str()` has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


class Report:
    """Collects the mistakes of one file, and notes on it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []

    def add(self, line: int, key: str, message: str) -> None:
        """Adds a mistake; the reading goes on."""
        self.problems.append(Problem(file=self.file, line=line, key=key, message=message))

    def note(self, line: int, key: str, message: str) -> None:
        """Adds what the user should know and need not mend."""
        self.notes.append(Problem(file=self.file, line=line, key=key, message=message))


@dataclass(frozen=True, kw_only=True)
class Node:
    """A value and the line in which it, or its key, starts. Mappings keep the file's sequence."""

    value: "None | bool | int | float | str | list[Node] | dict[str, Node]"
    line: int

    @property
    def plain(self) -> Any:
        """The value without lines."""
        if isinstance(self.value, dict):
            return {key: child.plain for key, child in self.value.items()}
        return [child.plain for child in self.value] if isinstance(self.value, list) else self.value

    def line_of(self, path: Iterable[str]) -> int:
        """The line of a key below this node, also under `zip:`. If the path does not exist: the line of its longest part that does."""
        node = self
        for key in path:
            children = node.value if isinstance(node.value, dict) else {}
            zipped = children["zip"].value if "zip" in children else {}
            pairs = zipped if isinstance(zipped, list) else [Node(value=zipped, line=node.line)]
            for pair in pairs:
                children = (pair.value if isinstance(pair.value, dict) else {}) | children
            if key not in children:
                break
            node = children[key]
        return node.line


def read_yaml(path: Path) -> tuple[str, Node]:
    """The file's text and its tree. Raises GridError if the file is missing, no text, no YAML, empty or no mapping, or has a key twice."""
    report = Report(str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GridError([Problem(file=str(path), line=1, key="", message="no such file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise GridError([Problem(file=str(path), line=1, key="", message=f"cannot be read: {error}")]) from None
    root = parse_yaml(text, report)
    if report.problems:
        raise GridError(report.problems)
    return text, root


def parse_yaml(text: str, report: Report) -> Node:
    """The tree of a text that must be a mapping; if it is not one, an empty mapping, and the reason goes to the report."""
    nothing = Node(value={}, line=1)
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        report.add(line, "", f"not YAML: {error.problem}{_tab(text, line)}")
        return nothing
    except yaml.YAMLError as error:
        report.add(1, "", f"not YAML: {error}")
        return nothing
    if root is None:
        report.add(1, "", "the file is empty")
        return nothing
    if not isinstance(root, yaml.MappingNode):
        report.add(root.start_mark.line + 1, "", "expected `key: value` lines at the top of the file")
        return nothing
    return _Tree(report).node(root, "")


def _tab(text: str, line: int) -> str:
    lines = text.split("\n")
    return " (a tab; YAML indents with spaces)" if line <= len(lines) and "\t" in lines[line - 1] else ""


class _Tree:
    """Turns PyYAML's nodes into ours, an aliased node once."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.done: dict[yaml.Node, Node] = {}
        self.open: set[yaml.Node] = set()
        self.scalars = yaml.constructor.SafeConstructor()

    def node(self, node: yaml.Node, key: str) -> Node:
        if node in self.open:
            self.report.add(node.start_mark.line + 1, key, "the anchor contains itself")
            return Node(value=None, line=node.start_mark.line + 1)
        if node not in self.done:
            self.open.add(node)
            self.done[node] = Node(value=self.value(node, key), line=node.start_mark.line + 1)
            self.open.discard(node)
        return self.done[node]

    def value(self, node: yaml.Node, key: str) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.node(item, f"{key}[{index}]") for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self.scalar(node, key)

    def mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        merges: list[int] = []
        for name, child in node.value:
            line = name.start_mark.line + 1
            if name.tag == TAG + "merge":
                merges.append(line)
                merged |= self.merge(child, key)
            elif not isinstance(name, yaml.ScalarNode):
                self.report.add(line, key, "a key must be a name")
            else:
                path = f"{key}.{name.value}" if key else name.value
                if name.value in own:
                    self.report.add(line, path, f"given twice; first in line {own[name.value].line}")
                own[name.value] = Node(value=self.node(child, path).value, line=line)
        if len(merges) > 1:
            self.report.add(merges[1], f"{key}.<<".lstrip("."), "given twice; write <<: [*a, *b]")
        return merged | own

    def merge(self, child: yaml.Node, key: str) -> Mapping[str, Node]:
        """The keys that `<<` brings; if several mappings have a key, the first counts."""
        sources = child.value if isinstance(child, yaml.SequenceNode) else [child]
        merged: dict[str, Node] = {}
        for source in sources:
            value = self.node(source, key).value if isinstance(source, yaml.MappingNode) else None
            if isinstance(value, dict):
                merged = value | merged
            else:
                self.report.add(source.start_mark.line + 1, f"{key}.<<".lstrip("."), "expected a mapping or a list of mappings")
        return merged

    def scalar(self, node: yaml.ScalarNode, key: str) -> Any:
        kind = node.tag.removeprefix(TAG)
        if kind in ("str", "timestamp") or (kind in ("int", "float") and ":" in node.value):  # 12:30:00 is a time, not the number 45000
            return node.value
        if kind not in ("null", "bool", "int", "float"):
            self.report.add(node.start_mark.line + 1, key, f"the tag {node.tag} is not supported")
            return None
        try:
            return getattr(self.scalars, f"construct_yaml_{kind}")(node)
        except ValueError:
            return node.value
