"""The logs of several ranks together."""

import pytest

from harness.monitor.rank_logs import LEAST, Ranks, chosen, column_size


def test_in_a_wide_terminal_ranks_stand_side_by_side() -> None:
    lines = list(Ranks(width=83).lines({0: "one\ntwo\n", 1: "x" * 50 + "\n"}, [0, 1], last=True))
    assert lines == [
        "rank 0".ljust(40) + " | rank 1",
        "-" * 40 + " | " + "-" * 40,
        "one".ljust(40) + " | " + "x" * 40,
        " " * 40 + " | " + "x" * 10,
        "two".ljust(40) + " |",
    ]


def test_in_a_narrow_one_and_in_a_file_each_line_has_its_rank() -> None:
    for width in (40, None):
        lines = list(Ranks(width=width).lines({0: "one\ntwo\n", 1: "1\n2\n3"}, [0, 1], last=True))
        assert lines == ["rank 0: one", "rank 1: 1", "rank 0: two", "rank 1: 2", "rank 1: 3"]


@pytest.mark.parametrize(("width", "ranks", "size"), [(80, 2, 38), (80, 3, None), (2 * LEAST + 3, 2, LEAST), (2 * LEAST + 2, 2, None), (99, 1, None)])
def test_columns_are_wide_enough_to_read(width: int, ranks: int, size: int | None) -> None:
    assert column_size(width, ranks) == size


def test_a_line_is_shown_when_it_is_whole_and_a_new_rank_gets_its_column() -> None:
    ranks = Ranks(width=200)
    assert list(ranks.lines({0: "be"}, [0, 1])) == []
    assert [line.split() for line in ranks.lines({0: "gun\nmo"}, [0, 1])][2:] == [["begun", "|"]]
    assert [line.split() for line in ranks.lines({2: "here\n"}, [0, 1, 2])] == [
        ["rank", "0", "|", "rank", "1", "|", "rank", "2"],
        ["-" * 64, "|", "-" * 64, "|", "-" * 64],
        ["|", "|", "here"],
    ]
    assert [line.split() for line in ranks.lines({}, [0, 1, 2], last=True)] == [["mo", "|", "|"]]


def test_a_log_cannot_act_on_the_terminal_nor_break_the_columns() -> None:
    text = "10%\r20%\r100%\r\n\x1b[2J\tend\n\u6f22" + "\u5b57" * 40 + "\n"
    lines = list(Ranks(width=83).lines({0: text, 1: "a\nb\nc\nd\n"}, [0, 1], last=True))[2:]
    assert lines[0].split() == ["100%", "|", "a"] and "\x1b" not in "".join(lines)
    wide = "\u5b57"  # two columns
    assert [line.split() for line in lines[2:]] == [["\u6f22" + wide * 19, "|", "c"], [wide * 20, "|"], [wide, "|"], ["|", "d"]]


def test_ranks_are_chosen_by_a_list() -> None:
    assert chosen("all", range(4)) == [0, 1, 2, 3] and chosen("3, 0-1,0", range(4)) == [3, 0, 1]
    with pytest.raises(ValueError, match="no log of rank 4; there are those of ranks 0 to 3"):
        chosen("2-5", range(4))
    for wrong in ("", "a", "1-", "-1", "1,,2", "1-x"):
        with pytest.raises(ValueError, match="takes a list such as 0,2-4"):
            chosen(wrong, range(4))
