from benchmarks.token_merging import networks, operations, race, ratio, share_of_merging, tokens_at_the_end
from tests.support.removal import images


def test_rows_hold_networks_of_the_same_weights_with_fewer_tokens():
    made = networks("vim_micro", 32, [{"r": 0.25, "layers": "all"}])
    assert list(made) == ["dense", "(r=0.25, layers=all)"]
    dense, merging = made.values()
    assert all((merging.get_parameter(name) == weight).all() for name, weight in dense.named_parameters())
    assert (tokens_at_the_end(dense), tokens_at_the_end(merging)) == ("", "64 to 27")
    assert operations(merging, 32) < operations(dense, 32)
    assert 0 < share_of_merging(merging, images(), 1) < 1


def test_the_tokens_of_each_level_have_their_own_numbers():
    assert tokens_at_the_end(networks("mambavision_micro", 32, [{"r": 0.25}])["(r=0.25)"]) == "16 to 12, 4 to 3"


def test_every_network_runs_once_in_every_turn_after_the_warm_up():
    calls = []
    times = race({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert {name: len(turns) for name, turns in times.items()} == {"a": 3, "b": 3} and calls.count("a") == calls.count("b") == 4
    assert ratio([2.0, 3.0, 8.0], [1.0, 2.0, 2.0]) == "2.00 (1.50 to 4.00)"
