"""Refuses YAML that is nested too deeply, or whose aliases stand for too much, before anything recurses into it."""

from dataclasses import dataclass

import yaml

MOST_LEVELS = 50  # of mappings and lists; a grid has about six
MOST_ALIASED = 100_000  # values for which all aliases together stand


@dataclass(kw_only=True)
class _Extent:
    """How many values a node stands for, and how many levels it has; aliases count as what they stand for."""

    values: int = 1
    levels: int = 0
    anchor: str | None = None


def excess(text: str) -> tuple[int, str] | None:
    """The line and the reason why a text is too deep or too large; None if it is neither. Raises yaml.YAMLError."""
    anchors: dict[str, _Extent] = {}
    above: list[_Extent] = [_Extent()]  # the document, then the open mappings and lists
    aliased = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.CollectionStartEvent):
            above.append(_Extent(levels=1, anchor=event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            _close(above.pop(), above[-1], anchors)
        elif isinstance(event, yaml.ScalarEvent):
            _close(_Extent(anchor=event.anchor), above[-1], anchors)
        elif isinstance(event, yaml.AliasEvent):
            extent = anchors.get(str(event.anchor), _Extent())  # without its anchor: composing reports it
            aliased += extent.values
            _close(_Extent(values=extent.values, levels=extent.levels), above[-1], anchors)
        if aliased > MOST_ALIASED:
            return line, f"the aliases up to this line stand for more than {MOST_ALIASED} values; write out the few that are meant"
        if len(above) - 1 + max(0, above[-1].levels - 1) > MOST_LEVELS:
            return line, f"nested more than {MOST_LEVELS} levels deep; a grid needs about six"
    return None


def _close(extent: _Extent, parent: _Extent, anchors: dict[str, _Extent]) -> None:
    parent.values += extent.values
    parent.levels = max(parent.levels, extent.levels + 1)
    if extent.anchor is not None:
        anchors[extent.anchor] = extent
