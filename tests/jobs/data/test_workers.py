"""Workers: they end when the process that forked them does, and when one of them fails. tests/jobs/data/test_writing.py kills them."""

import os
from pathlib import Path

import pytest

from jobs.data import shards, workers, writing
from jobs.data.prepare import prepare
from jobs.experiment.specs import DataSpec
from tests.support.waiting import wait_until

DATA = DataSpec(source="synthetic", samples=400, img_size=16, loader="torch")


@pytest.mark.slow
def test_what_one_worker_raises_ends_the_others_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SAMPLES", 4)
    parent = os.getpid()

    def encoded_sample(data: DataSpec, part: object, sample: int) -> object:
        if os.getpid() != parent and sample < 4:
            raise RuntimeError("a mistake in the code")
        if os.getpid() != parent:
            wait_until(lambda: bool(workers._stop.value), "the workers to be told to end")
        return encode(data, part, sample)  # type: ignore[arg-type]

    encode = writing.encoded_sample
    monkeypatch.setattr(writing, "encoded_sample", encoded_sample)
    with pytest.raises(RuntimeError, match="a mistake in the code"):
        prepare(DATA, tmp_path, workers=3)
    assert len(list(tmp_path.glob("*.shards/*.npy"))) <= 2, "each of the two others ends at its shard; there are 125"
