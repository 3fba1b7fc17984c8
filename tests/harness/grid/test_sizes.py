"""Entries whose resources cannot be had together, or that change what rows are ranked with."""

import pytest

from tests.support.grids import mistakes, read

HEAD = "name: t\nseeds: [0]\ncluster: {kind: slurm, gpus_per_node: 1}\nrecipe: {batch_size: 64}\n"  # lines 1 to 4
PLAIN = "models: [vim_micro]\npruning: [dense, {method: magnitude, sparsity: [0.5, 0.9], cluster: {timeout_min: 30}}]\n"


def test_resources_enter_no_id(folder: object) -> None:
    wide = "models: [{name: vim_micro, cluster: {gpus_per_node: 4, partition: big, mem_gb: 64}}]\n"
    bare, given = PLAIN.replace(", cluster: {timeout_min: 30}", ""), wide + PLAIN.partition("\n")[2]
    assert [cell.id for cell in read(HEAD + bare).cells] == [cell.id for cell in read(HEAD + given).cells]
    assert read(HEAD + bare).cells == read(HEAD + given).cells, "records, which are made from cells, are the same too"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            "models: [{name: vim_micro, cluster: {gpus_per_node: 3}}]",
            "models[0].cluster: batch_size of the recipe of line 4: 64 cannot be divided by 3",
        ),
        (
            "models: [{name: vim_micro, cluster: {nodes: 5}}]",
            "models[0].cluster: batch_size of the recipe of line 4: 64 cannot be divided by 5 ranks",
        ),
    ],
)
def test_ranks_that_cannot_divide_a_batch_are_refused(folder: object, entry: str, said: str) -> None:
    (found,) = mistakes(HEAD + f"{entry}\npruning: [dense]\n")
    assert found.startswith(f"grid.yaml:5: {said}")


def test_images_that_are_mixed_in_pairs_need_an_even_number_on_each_rank(folder: object) -> None:
    wide = "models: [{name: vim_micro, cluster: {nodes: 64}}]\npruning: [dense]\n"
    (found,) = mistakes(HEAD.replace("64}", "64, mixup: 0.5}") + wide)
    assert "64 images on 64 ranks are 1 each" in found


def test_a_pruning_and_a_model_may_clash_only_together(folder: object) -> None:
    both = "models: [vim_micro, {name: vim_tiny, cluster: {nodes: 3, tasks_per_node: 1}}]\npruning: [dense, {method: rigl, sparsity: 0.5"
    text = HEAD.replace("64", "96") + both + ", cluster: {gpus_per_node: 64}}]\n"
    assert any("pruning[0]" in line or "pruning[1].cluster: batch_size of the recipe of line 4: 96 cannot" in line for line in mistakes(text))
    assert read(text.replace("64}", "32}").replace("96", "192"))


def test_what_exclude_leaves_out_is_not_held_against_the_grid(folder: object) -> None:
    text = HEAD + "models: [vim_micro, {name: vim_tiny, cluster: {nodes: 3}}]\npruning: [dense]\n"
    assert mistakes(text)
    assert read(text + "exclude: [{model: vim_tiny}]\n")


def test_other_ranks_or_threads_are_told_because_tables_rank_them_apart(folder: object) -> None:
    wide = "models: [vim_micro, {name: vim_tiny, cluster: {gpus_per_node: 4}}]\npruning: [dense]\n"
    (note,) = read(HEAD + wide).notes
    assert note.startswith("grid.yaml:5: models[1].cluster: note: its cells keep their ids, but train on other ranks or threads")
    assert read(HEAD + PLAIN).notes == (), "time changes no row"
    alike = "models: [{name: [vim_micro, vim_tiny], cluster: {gpus_per_node: 4}}]\npruning: [dense]\n"
    assert read(HEAD + alike).notes == ()


def test_on_this_machine_resources_do_not_count_and_a_note_says_so(folder: object) -> None:
    grid = read(HEAD.replace("kind: slurm, gpus_per_node: 1", "kind: local") + "models: [{name: vim_micro, cluster: {nodes: 3}}]\npruning: [dense]\n")
    (note,) = grid.notes
    assert note.startswith("grid.yaml:5: models[0].cluster: note: this counts on SLURM alone; here (kind: local) all jobs have the size")
    assert grid.resources(grid.cells[0].model) is None


def test_dense_that_is_given_twice_has_one_size(folder: object) -> None:
    text = HEAD + "models: [vim_micro]\npruning: [dense, {method: dense, cluster: {mem_gb: 8}}]\n"
    (found,) = mistakes(text)
    assert found == "grid.yaml:6: pruning[1].cluster: dense runs once: give it the same cluster as on line 6, or write it once"
