"""The rules by number, and what is found against them. `docs/rules.md` has the same list."""

from dataclasses import dataclass
from typing import Final, Literal

Weight = Literal["fault", "note", "unchecked"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What must hold, and why."""

    text: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something against a rule, or that a reader should know of it.

    fault       the rule is broken                 note   it holds, but read this
    unchecked   this part could not be looked at on this machine
    """

    rule: int
    where: str  # a cell, a row, a file
    text: str
    weight: Weight = "fault"


RULES: Final[dict[int, Rule]] = {
    1: Rule(
        text="Every record is whole, of this version's schema, and lies in the folder of its own id.",
        reason="A record that is torn or was moved says nothing about the cell that it stands for.",
    ),
    2: Rule(
        text="The id of a cell is the hash of the settings in its record, which also give its names and its stages.",
        reason="Who changes a setting after the run, such as a sparsity or a seed, changes the id.",
    ),
    3: Rule(
        text="Every planned cell has a record, done or failed.",
        reason="A table without its failures and without the cells that were not run shows what somebody chose to show.",
    ),
    4: Rule(
        text="The numbers of a record can be, and agree with each other and with its stages.",
        reason="An accuracy is a whole number of images; zeros, parameters and multiply-adds follow from each other.",
    ),
    5: Rule(
        text="The saved files are those that were measured: SHA-256 and size are the recorded ones, and the last stage left the same.",
        reason="Else the numbers are those of another network.",
    ),
    6: Rule(
        text="Every weight that a mask drops is zero in the saved file, and sparsity is that of the masks.",
        reason="A weight that is not zero was not pruned.",
    ),
    7: Rule(
        text="Parameters and multiply-adds, counted again from the saved file, are the recorded ones.",
        reason="They are the axes of the table, and depend on no machine.",
    ),
    8: Rule(
        text="Cells with the same data settings saw the same images: one content hash, and one number of test images, all of them where it is known.",
        reason="A path may hold other images on another day.",
    ),
    9: Rule(
        text="The test set is read once, by the finished network: no stage has seen it, and choices are made on held-out training images.",
        reason="Who chooses by test accuracy reports the luck of the choice.",
    ),
    10: Rule(
        text="No cell trained for more epochs than its recipe grants to every cell, unless a dense network beside it trained as long.",
        reason="A method that trains longer than the others wins by training.",
    ),
    11: Rule(
        text="The cells of a table were trained and measured on equal machines, in the same way, with the same versions.",
        reason="Speeds compare machines otherwise, and accuracies compare libraries.",
    ),
    12: Rule(
        text="For every model of a table with pruned cells there are the dense network and random masks.",
        reason="Without them, nobody sees what pruning costs, or that a method is better than none.",
    ),
    13: Rule(
        text="All rows of a table have the same seeds, each once, with a network of its own.",
        reason="The best three of five seeds are not three seeds.",
    ),
    14: Rule(
        text="All cells of a table ran the same code, which is known.",
        reason="A fix between two cells is a difference between two methods.",
    ),
    15: Rule(
        text="The tables, the report and the model cards in the folder are those that its records give.",
        reason="A CSV can be edited.",
    ),
    16: Rule(
        text="Cells that are evaluated again give the recorded accuracy (with --evaluate).",
        reason="This is the one check that a consistent forgery does not pass.",
    ),
    17: Rule(
        text="Tuned cells tried what their space and budget give, and chose by validation accuracy; the test set saw the chosen one alone.",
        reason="Who tunes one method longer, or chooses by test accuracy, ranks the effort.",
    ),
}
