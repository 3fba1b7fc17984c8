"""YAML with the line of every value, and the mistakes in it.

PyYAML alone forgets lines, takes the last of two equal keys silently, and builds objects from tags. Here every value has a line, a key that is given
twice is a mistake, and tags are refused, as are words that read as another value than they look (`harness.grid.yaml_scalars`) and YAML that is
nested too deeply (`harness.grid.yaml_size`). Anchors, aliases and merge keys (`<<`) work.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.grid.labels import visible
from harness.grid.yaml_scalars import TAG, Misspelled, read_scalar, remark, wrong_tag
from harness.grid.yaml_size import excess
from models.text import did_you_mean

THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},0\d\d", re.ASCII)  # 1,000; 10,100 may be two seeds


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """A mistake of the user's with its line and key. `key` is dotted, as in `models[1].se.ratio`; empty: the whole file."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """One line, as compilers write it; control characters of the file leave their numbers."""
        return visible(f"{self.file}:{self.line}: {self.key}: {self.message}" if self.key else f"{self.file}:{self.line}: {self.message}")


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
    text: str = ""  # of a single value, as written

    @property
    def as_written(self) -> Any:
        """The value without lines, numbers and booleans as the text that the file has."""
        if isinstance(self.value, dict):
            return {key: child.as_written for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.as_written for child in self.value]
        return None if self.value is None else self.text

    @property
    def remark(self) -> str:
        """What to add to a message that the value, or an item of it, is of the wrong type: how YAML reads the word. Empty for most values."""
        if isinstance(self.value, dict | list):
            children = self.value.values() if isinstance(self.value, dict) else self.value
            return "".join(dict.fromkeys(child.remark for child in children))
        return remark(self.value, self.text)

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
    report, text = Report(str(path)), read_text(path)
    root = parse_yaml(text, report)
    if report.problems:
        raise GridError(report.problems)
    return text, root


def read_text(path: Path) -> str:
    """The file's text. Raises GridError if the file is missing or no text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        message = "no such file" + did_you_mean(path.name, (other.name for other in path.parent.glob("*.y*ml")))
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot be read: {error}"
    raise GridError([Problem(file=str(path), line=1, key="", message=message)])


def parse_yaml(text: str, report: Report) -> Node:
    """The tree of a text that must be a mapping; if it is not one, an empty mapping, and the reason goes to the report."""
    nothing = Node(value={}, line=1)
    try:
        if too_much := excess(text):
            report.add(too_much[0], "", too_much[1])
            return nothing
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

    def node(self, node: yaml.Node, key: str) -> Node:
        if node in self.open:
            self.report.add(node.start_mark.line + 1, key, "the anchor contains itself")
            return Node(value=None, line=node.start_mark.line + 1)
        if node not in self.done:
            self.open.add(node)
            text = node.value if isinstance(node, yaml.ScalarNode) else ""
            self.done[node] = Node(value=self.value(node, key), line=node.start_mark.line + 1, text=text)
            self.open.discard(node)
        return self.done[node]

    def value(self, node: yaml.Node, key: str) -> Any:
        self.check_tag(node, key)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return self.sequence(node, key)
        assert isinstance(node, yaml.ScalarNode)
        try:
            return read_scalar(node)
        except Misspelled as error:
            self.report.add(node.start_mark.line + 1, key, str(error))
            return None

    def check_tag(self, node: yaml.Node, key: str) -> None:
        """Reports a tag that a mapping or list has besides its natural one."""
        if isinstance(node, yaml.CollectionNode) and node.tag != TAG + ("map" if isinstance(node, yaml.MappingNode) else "seq"):
            self.report.add(node.start_mark.line + 1, key, f"the tag {node.tag} is not supported")

    def sequence(self, node: yaml.SequenceNode, key: str) -> list[Node]:
        items = []
        for index, item in enumerate(node.value):
            path, number = f"{key}[{index}]", self.thousands(node.value[index - 1], item) if index else ""
            if number:
                line, advice = item.start_mark.line + 1, f"write {number.replace(',', '')}, or the second item without leading zeros"
                self.report.add(line, path, f"{number} in a list is two items, {' and '.join(number.split(','))}; {advice}")
            else:
                items.append(self.node(item, path))
        return items

    @staticmethod
    def thousands(before: yaml.Node, item: yaml.Node) -> str:
        """A number such as 1,000 that two items of a list make as written; empty if they make none."""
        if not (isinstance(before, yaml.ScalarNode) and isinstance(item, yaml.ScalarNode)) or before.style or item.style:
            return ""
        adjacent = (before.end_mark.line, before.end_mark.column + 1) == (item.start_mark.line, item.start_mark.column)
        number = f"{before.value},{item.value}"
        return number if adjacent and THOUSANDS.fullmatch(number) else ""

    def mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        merges: list[int] = []
        before = ""  # the word before a key, if it is a number in the same braces
        for name, child in node.value:
            line = name.start_mark.line + 1
            if name.tag == TAG + "merge" and name.value == "<<":
                merges.append(line)
                merged |= self.merge(child, key)
            elif not isinstance(name, yaml.ScalarNode):
                self.report.add(line, key, "a key must be a name")
            else:
                path = f"{key}.{name.value}" if key else name.value
                self.check_key(name, child, before, path)
                if name.value in own:
                    self.report.add(line, path, f"given twice; first in line {own[name.value].line}")
                content = self.node(child, path)
                own[name.value] = Node(value=content.value, line=line, text=content.text)
            before = child.value if node.flow_style and isinstance(child, yaml.ScalarNode) and child.value[-1:].isdigit() else ""
        if len(merges) > 1:
            self.report.add(merges[1], f"{key}.<<".lstrip("."), "given twice; write <<: [*a, *b]")
        return merged | own

    def merge(self, child: yaml.Node, key: str) -> Mapping[str, Node]:
        """The keys that `<<` brings; if several mappings have a key, the first counts."""
        if isinstance(child, yaml.SequenceNode):
            self.check_tag(child, f"{key}.<<".lstrip("."))
        sources = child.value if isinstance(child, yaml.SequenceNode) else [child]
        merged: dict[str, Node] = {}
        for source in sources:
            value = self.node(source, key).value if isinstance(source, yaml.MappingNode) else None
            if isinstance(value, dict):
                merged = value | merged
            else:
                self.report.add(source.start_mark.line + 1, f"{key}.<<".lstrip("."), "expected a mapping or a list of mappings")
        return merged

    def check_key(self, name: yaml.ScalarNode, child: yaml.Node, before: str, path: str) -> None:
        """Reports a key with a tag, and digits that are a key because a comma ended the number before them."""
        if wrong := wrong_tag(name):
            self.report.add(name.start_mark.line + 1, path, wrong)
        empty = isinstance(child, yaml.ScalarNode) and not child.value and not child.style
        if before and empty and name.value.isdigit():
            advice = f"write {before}{name.value} or {before}.{name.value}"
            self.report.add(
                name.start_mark.line + 1, path, f"the comma ends the number {before}, and {name.value} is a key without a value; {advice}"
            )
