"""The room that files need, told before they are written."""

from pathlib import Path

import pytest

from jobs.data.prepare import prepare
from jobs.data.sources import READERS
from jobs.data.space import checked_space, needed_bytes, shown
from jobs.experiment.specs import DataSpec
from tests.support.images import write_folder


@pytest.mark.parametrize("write_mode", ["raw", "jpg"])
def test_the_files_take_about_as_much_as_was_told(tmp_path: Path, write_mode: str) -> None:
    for part in ("train", "val"):
        write_folder(tmp_path / "data" / part, count=25, size=(300, 240))
    data = DataSpec(source="imagefolder", path=str(tmp_path / "data"), img_size=32, loader="torch", write_mode=write_mode)  # type: ignore[arg-type]
    told = needed_bytes(data, READERS["imagefolder"].read(data, 32))
    dataset = prepare(data, tmp_path / "cache")
    taken = dataset.train.stat().st_size + dataset.test.stat().st_size
    assert taken <= told <= 2 * taken  # a shard, here a whole file, is there twice for a moment


def test_what_is_written_already_needs_no_room(tmp_path: Path) -> None:
    data = DataSpec(source="synthetic", samples=80)
    content = READERS["synthetic"].read(data, 32)
    whole, half = (checked_space(data, content, tmp_path / "not" / "there", written).needed_bytes for written in (0, 50))
    assert half == round(whole / 2)


@pytest.mark.parametrize(("count", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (150_400_000_000, "150 GB"), (2.5e12, "2.5 TB")])
def test_bytes_are_shown_in_three_digits(count: float, said: str) -> None:
    assert shown(count) == said
