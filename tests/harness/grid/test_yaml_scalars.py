"""Numbers that read as others than they look are refused wherever they stand; words that read as they look are kept."""

from pathlib import Path

import pytest

from harness.grid.yaml_scalars import remark
from tests.support.grids import START, mistakes, read

# A word, and what the message says before and after "write"
SPELLINGS = {
    "leading zero": ("020", "020 is 16 in YAML 1.1 and 20 in YAML 1.2; write 16 or 20"),
    "leading zero and a sign": ("-030", "-030 is -24 in YAML 1.1 and -30 in YAML 1.2; write -24 or -30"),
    "leading zeros that change nothing": ("005", "005 is octal in YAML 1.1 and decimal in YAML 1.2; write 5"),
    "two zeros": ("00", "00 is octal in YAML 1.1 and decimal in YAML 1.2; write 0"),
    "leading zero, no octal digit": ("09", "09 is text in YAML 1.1 and 9 in YAML 1.2; write 9"),
    "leading zero and underscore": ("0_20", "0_20 is 16 in YAML 1.1 and 20 in YAML 1.2; write 16 or 20"),
    "base 16": ("0x2F", "0x2F is 47 in YAML, in base 16; write 47"),
    "base 16, large letter": ("0X2f", "0X2f is text in YAML; as a number in base 16 it is 47; write 47"),
    "base 8 of YAML 1.2": ("0o20", "0o20 is text in YAML 1.1 and 16 in YAML 1.2, in base 8; write 16"),
    "base 2": ("0b101", "0b101 is 5 in YAML 1.1 and text in YAML 1.2, in base 2; write 5"),
    "underscore": ("12_000", "12_000 is 12000 in YAML 1.1 and text in YAML 1.2; write 12000"),
    "underscore at the end": ("12_", "12_ is 12 in YAML 1.1 and text in YAML 1.2; write 12"),
    "underscore in a fraction": ("0.1_5", "0.1_5 is 0.15 in YAML 1.1 and text in YAML 1.2; write 0.15"),
}
# Where a word can stand, and the key that the message names
POSITIONS = {
    "seeds": ("seeds: {}", "seeds"),
    "a seed": ("seeds: [1, {}]", "seeds[1]"),
    "a whole number": ("recipe: {{batch_size: {}}}", "recipe.batch_size"),
    "a number": ("recipe: {{lr: {}}}", "recipe.lr"),
    "a list that expands": ("recipe: {{lr: [0.1, {}]}}", "recipe.lr[1]"),
    "a list of lists": ("recipe: [{{betas: [[0.5, {}]]}}]", "recipe[0].betas[0][1]"),
    "zip": ("recipe: {{zip: {{lr: [{}], epochs: [3]}}}}", "recipe.zip.lr[0]"),
    "an option of a model": ("models: [{{name: vim_micro, se: {{ratio: {}}}}}]", "models[0].se.ratio"),
    "a knob of a method": ("pruning: [{{method: magnitude, sparsity: {}}}]", "pruning[0].sparsity"),
    "a pattern": ("exclude: [{{seed: {}}}]", "exclude[0].seed"),
    "a field of a pattern": ("exclude: [{{recipe: {{epochs: [{}]}}}}]", "exclude[0].recipe.epochs[0]"),
    "the cluster": ("cluster: {{timeout_min: {}}}", "cluster.timeout_min"),
    "a parameter of SLURM": ("cluster: {{kind: slurm, slurm: {{account: {}}}}}", "cluster.slurm.account"),
    "a variable": ("cluster: {{kind: slurm, environment: {{A: {}}}}}", "cluster.environment.A"),
    "a label": ("models: [{{name: vim_micro, label: {}}}]", "models[0].label"),
    "the name": ("name: {}", "name"),
    "room for anchors": ("x-a: &a {{lr: {}}}", "x-a.lr"),
}


def with_line(added: str) -> str:
    """A good grid in which `added` takes the line of its key."""
    key = added.split(":")[0]
    return "".join(f"{line}\n" for line in [*(line for line in START.splitlines() if line.split(":")[0] != key), added])


@pytest.mark.parametrize("word, said", SPELLINGS.values(), ids=SPELLINGS)
def test_a_number_that_reads_as_another_is_refused_with_both_readings(folder: Path, word: str, said: str) -> None:
    (line,) = mistakes(with_line(f"seeds: [3, {word}]"))
    assert line == f"grid.yaml:4: seeds[1]: {said} ('{word}', in quotes, is text)"


@pytest.mark.parametrize("added, key", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("word", ["020", "0x2F", "0o20", "12_000"])
def test_it_is_refused_wherever_it_stands(folder: Path, added: str, key: str, word: str) -> None:
    (line,) = mistakes(with_line(added.format(word)))
    assert f": {key}: {word} is " in line


def test_it_is_refused_in_a_profile(folder: Path) -> None:
    Path("gpu.yaml").write_text("kind: slurm\nmem_gb: 020\n")
    assert mistakes(START + "cluster: gpu.yaml\n") == [
        "gpu.yaml:2: mem_gb: 020 is 16 in YAML 1.1 and 20 in YAML 1.2; write 16 or 20 ('020', in quotes, is text)"
    ]


def test_in_quotes_it_is_text(folder: Path) -> None:
    grid = read(START + "cluster: {kind: slurm, account: '020', environment: {A: '0x2F', B: !!str 020}}\n")
    assert grid.cluster.slurm == {"account": "020"} and grid.cluster.environment == {"A": "0x2F", "B": "020"}


@pytest.mark.parametrize("number", ["1,000", "10,050", "-3,007"])
def test_a_comma_within_a_number_of_a_list_is_explained(folder: Path, number: str) -> None:
    first, second = number.split(",")
    (line,) = mistakes(with_line(f"seeds: [{number}]"))
    assert line.startswith(f"grid.yaml:4: seeds[1]: {number} in a list is two items, {first} and {second}; write {first}{second}, or ")


def test_items_of_three_digits_are_items(folder: Path) -> None:
    assert [cell.seed for cell in read(with_line("seeds: [1,100,200, 0]")).cells] == [1, 100, 200, 0]


@pytest.mark.parametrize("number, advice", [("1,000", "1000 or 1.000"), ("0,5", "05 or 0.5")])
def test_a_comma_within_a_number_of_a_mapping_is_explained(folder: Path, number: str, advice: str) -> None:
    first, second = number.split(",")
    (line,) = mistakes(START + f"recipe: {{lr: {number}}}\n")
    assert line == f"grid.yaml:5: recipe.{second}: the comma ends the number {first}, and {second} is a key without a value; write {advice}"


@pytest.mark.parametrize(
    "added",
    ["seeds: [2:30]", "seeds: 2:30", "recipe: {epochs: 2:30}", "recipe: {lr: [2:30]}", "recipe: {betas: [0.9, 2:30]}", "exclude: [{seed: 2:30}]"],
)
def test_a_time_where_a_number_belongs_is_refused_with_both_readings(folder: Path, added: str) -> None:
    (line,) = mistakes(with_line(added))
    assert line.endswith("; 2:30 is 150 in YAML 1.1, in base 60, and text in YAML 1.2 and here; write 150")


def test_a_time_is_text_where_text_belongs(folder: Path) -> None:
    grid = read(with_line("models: [{name: vim_micro, label: 2:30}]") + "cluster: {kind: slurm, time: 1:30:00}\n")
    assert grid.cells[0].model.label == "2:30" and grid.cluster.slurm == {"time": "1:30:00"}


@pytest.mark.parametrize("word, is_true", [("yes", True), ("On", True), ("true", True), ("no", False), ("OFF", False), ("false", False)])
def test_a_switch_takes_every_boolean_of_yaml(folder: Path, word: str, is_true: bool) -> None:
    assert read(START + f"data: {{flip: {word}}}\n").cells[0].data.flip is is_true


@pytest.mark.parametrize("word", ["y", "n", "Y", "1", "'yes'"])
def test_a_switch_takes_nothing_else(folder: Path, word: str) -> None:
    (line,) = mistakes(START + f"data: {{flip: {word}}}\n")
    assert line.startswith("grid.yaml:5: data.flip: expected true or false, got ")


@pytest.mark.parametrize("added", ["data: {name: no}", "cluster: {kind: slurm, comment: no}", "cluster: {cache: no}"])
def test_a_boolean_where_text_belongs_is_refused_with_both_readings(folder: Path, added: str) -> None:
    (line,) = mistakes(START + added + "\n")
    assert line.endswith("; no is false in YAML 1.1 and text in YAML 1.2 ('no', in quotes, is text)")


def test_dates_and_signs_are_text(folder: Path) -> None:
    for word in ("2024-01-01", "=", "<<", "2024-01-01 10:00:00"):
        assert read(with_line(f"models: [{{name: vim_micro, label: {word}}}]")).cells[0].model.label == word


@pytest.mark.parametrize("word", [".inf", "-.INF", ".nan", "1.0e+400", "1e400", "٣"])
def test_a_number_is_finite_and_of_ascii_digits(folder: Path, word: str) -> None:
    (line,) = mistakes(START + f"recipe: {{lr: {word}}}\n")
    assert line.startswith("grid.yaml:5: recipe.lr: expected a number, got ")


@pytest.mark.parametrize(
    "value, text, said",
    [
        ("1:30.5", "1:30.5", "; 1:30.5 is 90.5 in YAML 1.1, in base 60, and text in YAML 1.2 and here; write 90.5"),
        ("-1:00:30", "-1:00:30", "; -1:00:30 is -3630 in YAML 1.1, in base 60, and text in YAML 1.2 and here; write -3630"),
        (True, "true", ""),
        ("1:75", "1:75", ""),
        (90, "90", ""),
    ],
)
def test_a_remark_says_how_yaml_reads_the_word(value: str | bool | int, text: str, said: str) -> None:
    assert remark(value, text) == said
