"""Files with a JSON object on each line."""

from pathlib import Path

from analysis.lines import json_lines


def test_whole_objects_are_read_and_all_else_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n[2]\n\xff\n\n{"b": 2}\n{"c"')
    assert json_lines(path) == [{"a": 1}, {"b": 2}]
    assert json_lines(tmp_path / "none") == [] and json_lines(Path("\0")) == []
