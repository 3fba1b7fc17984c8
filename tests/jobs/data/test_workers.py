"""Workers: they end when the process that forked them does, and when one of them fails. tests/jobs/data/test_writing.py kills them."""

import os
import time
from pathlib import Path

import pytest

from jobs.data import shards, writing
from jobs.data.prepare import prepare
from jobs.experiment.specs import DataSpec

DATA = DataSpec(source="synthetic", samples=400, img_size=16, loader="torch")


@pytest.mark.slow
def test_what_one_worker_raises_ends_the_others_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SAMPLES", 4)
    began, parent = time.monotonic(), os.getpid()

    def encoded_sample(data: DataSpec, part: object, sample: int) -> object:
        if os.getpid() != parent and sample < 4:
            raise RuntimeError("a mistake in the code")
        time.sleep(1 if os.getpid() != parent else 0)
        return encode(data, part, sample)  # type: ignore[arg-type]

    encode = writing.encoded_sample
    monkeypatch.setattr(writing, "encoded_sample", encoded_sample)
    with pytest.raises(RuntimeError, match="a mistake in the code"):
        prepare(DATA, tmp_path, workers=3)
    assert time.monotonic() - began < 100, "500 images of a second each were left"
