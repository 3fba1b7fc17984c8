"""Labels and names that people can tell apart: no blanks, nothing that cannot be seen, no two that look the same."""

from pathlib import Path

import pytest

from harness.grid.labels import MOST_NAME, label_problem, look, name_problem, visible
from tests.support.grids import START, mistakes, read

# A label as YAML writes it in double quotes, and the beginning of the message
REFUSED = {
    "nothing": ("", "must not be blank, got ''"),
    "blanks": ("  ", "must not be blank, got '  '"),
    "no-break space alone": (r"\u00a0", "must not be blank, got "),
    "blank before": (" wide", "must not begin or end with a space, got ' wide'; write 'wide'"),
    "blank after": ("wide ", "must not begin or end with a space, got 'wide '; write 'wide'"),
    "wide blank after": (r"wide\u3000", "must not begin or end with a space, got "),
    "line feed": (r"a\nb", "must have no line breaks and no control or invisible characters, got U+000A in 'a<U+000A>b'"),
    "line feed at the end": (r"a\n", "must have no line breaks and no control or invisible characters, got U+000A in 'a<U+000A>'"),
    "carriage return": (r"a\rb", "must have no line breaks and no control or invisible characters, got U+000D "),
    "tab": (r"a\tb", "must have no line breaks and no control or invisible characters, got U+0009 "),
    "escape": (r"\e[31mred", "must have no line breaks and no control or invisible characters, got U+001B in '<U+001B>[31mred'"),
    "escape of 8 bits": (r"\x9b31mred", "must have no line breaks and no control or invisible characters, got U+009B "),
    "zero byte": (r"a\0", "must have no line breaks and no control or invisible characters, got U+0000 "),
    "line separator": (r"a\u2028b", "must have no line breaks and no control or invisible characters, got U+2028 (LINE SEPARATOR)"),
    "next line": (r"a\Nb", "must have no line breaks and no control or invisible characters, got U+0085 "),
    "zero width": (r"a\u200bb", "must have no line breaks and no control or invisible characters, got U+200B (ZERO WIDTH SPACE)"),
    "right to left": (r"a\u202eb", "must have no line breaks and no control or invisible characters, got U+202E (RIGHT-TO-LEFT OVERRIDE)"),
    "byte order mark": (r"\ufeffa", "must have no line breaks and no control or invisible characters, got U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
    "soft hyphen": (r"a\u00adb", "must have no line breaks and no control or invisible characters, got U+00AD (SOFT HYPHEN)"),
    "Hangul filler": (r"\u3164", "must have no line breaks and no control or invisible characters, got U+3164 (HANGUL FILLER)"),
    "blank Braille": (r"\u2800", "must have no line breaks and no control or invisible characters, got U+2800 (BRAILLE PATTERN BLANK)"),
    "variation selector": (r"a\ufe0f", "must have no line breaks and no control or invisible characters, got U+FE0F (VARIATION SELECTOR-16)"),
}
ALIKE = {
    "case": ("wide", "Wide"),
    "blanks": ("very wide", "very  wide"),
    "no-break space": ("very wide", "very\u00a0wide"),
    "full width": ("wide", "ｗｉｄｅ"),
    "accent apart": ("café", "cafe\u0301"),
    "ligature": ("final", "ﬁnal"),
    "sharp s": ("groß", "GROSS"),
    "Cyrillic": ("Base", "Ваse"),
    "Greek": ("ABO", "ΑΒΟ"),
}
SPOTS = {
    "model": ('models: [{{name: vim_micro, label: "{}"}}]', "2: models[0].label"),
    "pruning": ('pruning: [{{method: dense, label: "{}"}}]', "3: pruning[0].label"),
    "data": ('data: {{name: "{}"}}', "5: data.name"),
}


def with_line(added: str) -> str:
    """A good grid in which `added` takes the line of its key, or follows."""
    key = added.split(":")[0]
    lines = [added if line.split(":")[0] == key else line for line in START.splitlines()]
    return "\n".join(lines if added in lines else [*lines, added]) + "\n"


@pytest.mark.parametrize("label, said", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("added, spot", SPOTS.values(), ids=SPOTS)
def test_a_label_that_cannot_be_seen_is_refused(folder: Path, added: str, spot: str, label: str, said: str) -> None:
    (line,) = mistakes(with_line(added.format(label)))
    assert line.startswith(f"grid.yaml:{spot}: {said}") and line.isprintable() | ("\u00a0" in line) | ("\u3000" in line)


@pytest.mark.parametrize("first, second", ALIKE.values(), ids=ALIKE)
def test_labels_that_look_alike_are_refused_with_both_lines(folder: Path, first: str, second: str) -> None:
    models = f"\n- {{name: vim_micro, label: '{first}'}}\n- {{name: vim_micro, se: true, label: '{second}'}}"
    (line,) = mistakes(START.replace("[vim_micro]", models))
    assert line.startswith(f"grid.yaml:4: models[1]: the label {second!r} looks like {first!r} of line 3; labels must differ in more than case")


def test_a_label_must_not_look_like_a_made_label_either(folder: Path) -> None:
    (line,) = mistakes(START.replace("[vim_micro]", "[vim_micro, {name: vim_micro, se: true, label: VIM_micro}]"))
    assert line.startswith("grid.yaml:2: models[1]: the label 'VIM_micro' looks like 'vim_micro' of line 2")


def test_methods_that_look_alike_are_refused(folder: Path) -> None:
    pruning = "[{method: magnitude, sparsity: 0.5, label: Half}, {method: wanda, sparsity: 0.5, label: half}]"
    (line,) = mistakes(START.replace("[dense]", pruning))
    assert line.startswith("grid.yaml:3: pruning[1]: the label 'half' looks like 'Half' of line 3")


def test_names_of_data_that_look_alike_are_refused_and_equal_names_are_not(folder: Path) -> None:
    entry = "data: [{source: digits, name: Ours}, {source: digits, name: %s, flip: true}]\n"
    assert len(read(START + entry % "Ours").cells) == 2
    (line,) = mistakes(START + entry % "ours")
    assert line.startswith("grid.yaml:5: data[1].name: the name 'ours' looks like 'Ours' of line 5")


def test_a_path_that_names_the_data_is_a_label_too(folder: Path) -> None:
    (line,) = mistakes(START + 'data: {source: imagefolder, path: "a\\nb"}\n')
    assert line.startswith("grid.yaml:5: data.path: must have no line breaks") and line.endswith(
        "or give the data a name, which takes the place of the paths"
    )
    assert read(START + 'data: {source: imagefolder, path: "a\\nb", name: ours}\n').cells


@pytest.mark.parametrize("label", ["magnitude 50%", "σ = 0.9", "naïve", "幅", "a/b", "x,y", "=1", "wide (2×)", "no", "0.9"])
def test_what_people_write_is_a_label(folder: Path, label: str) -> None:
    assert read(START.replace("[vim_micro]", f"[{{name: vim_micro, label: '{label}'}}]")).cells[0].model.label == label


@pytest.mark.parametrize("first, second", [("a", "b"), ("0.5", "0.50"), ("a b", "ab"), ("α", "a"), ("x1", "xl"), ("e", "é")])
def test_labels_that_can_be_told_apart_look_different(first: str, second: str) -> None:
    assert look(first) != look(second) and label_problem(first) is None


def test_a_label_that_is_no_text_is_named_with_the_quotes_that_it_needs(folder: Path) -> None:
    (line,) = mistakes(START.replace("[vim_micro]", "[{name: vim_micro, label: 1.10}]"))
    assert line == "grid.yaml:2: models[0].label: expected text, got 1.1; write '1.10', in quotes"
    (line,) = mistakes(START.replace("[vim_micro]", "[{name: vim_micro, label: on}]"))
    assert "expected text, got true; on is true in YAML 1.1" in line


@pytest.mark.parametrize("name", ['"a b"', '" a"', '"a\\n"', '"a\\u200b"', '".."', '"-a"', '"é"', '""', "", "on"])
def test_a_name_that_is_no_folder_is_refused(folder: Path, name: str) -> None:
    (line,) = mistakes(START.replace("name: t", f"name: {name}"))
    assert line.startswith("grid.yaml:1: name: m")


def test_a_name_may_be_as_long_as_a_folder_and_its_neighbours_allow(folder: Path) -> None:
    assert read(START.replace("name: t", f"name: {'n' * MOST_NAME}")).name == "n" * MOST_NAME
    assert mistakes(START.replace("name: t", f"name: {'n' * (MOST_NAME + 1)}")) == [
        f"grid.yaml:1: name: has {MOST_NAME + 1} characters, and a folder's name may have at most {MOST_NAME}; shorten it"
    ]
    assert name_problem("t") is None


def test_characters_that_cannot_be_seen_leave_their_numbers() -> None:
    assert visible("a\x1b\n\u200bé") == "a<U+001B><U+000A><U+200B>é"
