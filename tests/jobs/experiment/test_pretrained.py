"""The digest of a pretrained file, and the check that a job makes before it trains from it."""

import hashlib
import os
from pathlib import Path

import pytest

import jobs.experiment.pretrained
from jobs.experiment.files import sha256_of
from jobs.experiment.pretrained import PretrainedError, check_pretrained, pretrained_sha256
from jobs.experiment.specs import ModelSpec


def spec(path: Path, digest: str | None) -> ModelSpec:
    return ModelSpec(name="vim_micro", label="x", options={"pretrained": str(path)}, pretrained_sha256=digest)


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"abc")
    assert pretrained_sha256(tmp_path / "w") == hashlib.sha256(b"abc").hexdigest()
    assert pretrained_sha256(tmp_path / "absent") is None
    assert pretrained_sha256(tmp_path) is None


def test_a_file_is_read_once_until_its_size_or_time_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(jobs.experiment.pretrained, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    os.utime(path, ns=(1, 1))
    first = pretrained_sha256(path)
    assert pretrained_sha256(path) == first and len(read) == 1
    path.write_bytes(b"abd")
    os.utime(path, ns=(2, 2))
    assert pretrained_sha256(path) == hashlib.sha256(b"abd").hexdigest() and len(read) == 2


def test_a_job_refuses_a_file_that_was_replaced_or_removed_after_the_launch(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    planned = spec(path, pretrained_sha256(path))
    check_pretrained(planned)
    path.write_bytes(b"other")
    with pytest.raises(PretrainedError, match="w has changed since the launch: bring back the file with sha256 ba7816bf"):
        check_pretrained(planned)
    path.unlink()
    with pytest.raises(PretrainedError, match="there is no file .*w that can be read"):
        check_pretrained(planned)


def test_the_digest_of_a_large_file_is_remembered_by_a_job_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(jobs.experiment.pretrained, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    monkeypatch.setattr(jobs.experiment.pretrained, "ALWAYS_HASHED_BYTES", 2)
    cache, path = tmp_path / "cache", tmp_path / os.fsdecode(b"w\xff")
    path.write_bytes(b"abc")
    digest = pretrained_sha256(path, cache)
    assert len(read) == 1 and not cache.exists(), "a launch, which may be a dry run, only reads"
    check_pretrained(spec(path, digest), cache)
    assert len(read) == 2
    for process in range(2):
        jobs.experiment.pretrained._digest.cache_clear()
        assert pretrained_sha256(path, cache) == digest and len(read) == 2, f"process {process}"
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    assert pretrained_sha256(path, cache) == hashlib.sha256(b"abd").hexdigest() and len(read) == 3
    (memory,) = (cache / "hashed").iterdir()
    memory.write_text('{"sha')
    jobs.experiment.pretrained._digest.cache_clear()
    assert pretrained_sha256(path, cache, remember=True) == hashlib.sha256(b"abd").hexdigest() and len(read) == 4
    jobs.experiment.pretrained._digest.cache_clear()
    assert pretrained_sha256(path, cache) == hashlib.sha256(b"abd").hexdigest() and len(read) == 4


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.experiment.pretrained, "ALWAYS_HASHED_BYTES", 2)
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    assert pretrained_sha256(path, path / "no folder", remember=True) == hashlib.sha256(b"abc").hexdigest()


def test_models_without_a_digest_pass(tmp_path: Path) -> None:
    check_pretrained(spec(tmp_path / "absent", None))
    check_pretrained(ModelSpec(name="vim_micro", label="x"))
