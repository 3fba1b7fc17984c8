"""What the pages say of keys."""

from harness.schemas.descriptions import meanings, plain, rows_of


def test_links_and_marks_go_and_their_words_stay() -> None:
    assert plain("a folder, such as `$TMPDIR`: copied; see [data first](cluster.md#data-first)") == "a folder, such as $TMPDIR: copied"
    assert plain("a [plug-in's source](plugins.md) or `a \\| b`") == "a plug-in's source or a | b"


def test_a_row_has_its_heading_name_and_meaning() -> None:
    assert meanings("grid.md", "Recipe")["finetune_lr"] == "peak learning rate of fine-tuning; by default a tenth of lr"
    assert meanings("grid.md", "Distillation")["temperature"] == "above 0"
    variants = [row.cells[1] for row in rows_of("models.md") if row.name == "mobilenet" and row.heading == "Options"]
    assert variants == ["Vim", "MambaVision, VMamba, VSSD"]
