"""The files of verifications."""

from pathlib import Path

from jobs.experiment.files import write_json
from jobs.experiment.verification import Verification, verifications, verified_dir
from tests.support.records import fake_record, fake_verification


def test_a_verification_is_read_as_it_was_written_and_a_damaged_one_is_left_out(tmp_path: Path) -> None:
    kept = fake_verification(fake_record(97.0), "pass", by="Ada")
    folder = verified_dir(tmp_path, kept.cell)
    write_json(folder / "b.json", kept.model_dump(mode="json"))
    (folder / "a.json").write_text("{")
    (folder / "lock").write_text("")
    (folder / "unfinished-1/cells").mkdir(parents=True)
    assert list(verifications(tmp_path)) == [kept] and list(verifications(tmp_path / "nothing")) == []


def test_a_verification_fits_the_numbers_that_it_was_about_and_no_others() -> None:
    record = fake_record(97.0)
    kept: Verification = fake_verification(record, "fail")
    assert kept.fits(record)
    for other in (fake_record(97.0, seed=1), fake_record(96.0), fake_record(97.0).model_copy(update={"weights_sha256": "b" * 64}), fake_record(None)):
        assert not kept.fits(other)
