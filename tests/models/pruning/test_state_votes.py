"""The importance of states against a loop in fp64 over images, channels, states and steps."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.pruning.registry import create_method
from models.pruning.state_votes import StateImportance, check_states, importance, vote
from models.pruning.units import units_of
from models.ssm.scan import selective_scan
from tests.support.removal import images, small_network


def by_hand(u: Tensor, delta: Tensor, A_log: Tensor, B: Tensor, bias: Tensor | None, *, reverse: bool) -> list[list[float]]:
    """(steps, states), number by number. B: (B, G, N, L)."""
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    rows = [[0.0] * states for _ in range(length)]
    for image in range(batch):
        for channel in range(channels):
            group = channel // (channels // groups)
            for n in range(states):
                a, h = float(A_log[channel, n]), 0.0
                for t in range(length):
                    rows[t][n] += a**2 * h**2
                    at = length - 1 - t if reverse else t
                    step = float(delta[image, channel, at]) + (0.0 if bias is None else float(bias[channel]))
                    step = math.log1p(math.exp(step)) if bias is not None else step
                    h = math.exp(-step * math.exp(a)) * h + step * float(B[image, group, n, at]) * float(u[image, channel, at])
    return rows


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("groups", "softplus"), [(1, False), (1, True), (2, True)])
def test_importance_is_that_of_a_loop(groups, softplus, reverse):
    generator = torch.Generator().manual_seed(0)
    u, delta = torch.randn(2, 4, 5, generator=generator).double(), torch.rand(2, 4, 5, generator=generator).double()
    A_log, B = torch.randn(4, 3, generator=generator).double(), torch.randn(2, groups, 3, 5, generator=generator).double()
    bias = torch.randn(4, generator=generator).double() if softplus else None
    got = importance(u, delta, -A_log.exp(), B if groups > 1 else B[:, 0], delta_bias=bias, delta_softplus=softplus, reverse=reverse)
    torch.testing.assert_close(got, torch.tensor(by_hand(u, delta, A_log, B, bias, reverse=reverse), dtype=torch.float64))
    assert not got[0].any() and got[1:].all()


def directions(mixer: nn.Module, hidden: Tensor) -> dict[str, list[list[float]]]:
    """Of a Vim mixer, from its layers."""
    rows = {}
    for name, suffix, reverse in (("d_state", "", False), ("d_state_b", "_b", True)):
        conv, x_proj, dt_proj = (getattr(mixer, layer + suffix) for layer in ("conv1d", "x_proj", "dt_proj"))
        A_log = mixer.A_log if name == "d_state" else mixer.A_b_log
        x = F.linear(hidden, mixer.in_proj.weight)[..., : mixer.out_proj.in_features]
        x = conv(x.flip(1)).flip(1) if reverse else conv(x)
        dt, B, _ = x_proj(x).split([dt_proj.in_features, A_log.shape[1], A_log.shape[1]], dim=-1)
        delta = F.linear(dt, dt_proj.weight).transpose(1, 2)
        rows[name] = by_hand(x.transpose(1, 2), delta, A_log, B.transpose(1, 2).unsqueeze(1), dt_proj.bias, reverse=reverse)
    return rows


@torch.no_grad()
def test_both_directions_of_vim_have_their_own():
    network, hidden = small_network("vim").double(), torch.randn(2, 3, 16, dtype=torch.float64)
    mixer = network.layers[1].mixer
    with StateImportance(nn.ModuleDict({"mixer": mixer})) as states:
        for image in hidden.split(1):
            mixer(image)
    got = states.totals(lambda tensor: tensor)
    assert mixer.scan is selective_scan
    for name, rows in directions(mixer, hidden).items():
        torch.testing.assert_close(got[f"mixer.{name}"], torch.tensor(rows, dtype=torch.float64))


@pytest.mark.parametrize("variant", ["vim", "vim+mobilenet", "vim, four paths", "mambavision", "vmamba, wider"])
def test_every_selective_scan_is_seen_and_outputs_stay(variant):
    network, pictures = small_network(variant), images()
    with torch.no_grad():
        before = network(pictures)
        with StateImportance(network) as states:
            during = network(pictures)
        after = network(pictures)
    assert torch.equal(before, after)
    torch.testing.assert_close(before, during)
    got = states.totals(lambda tensor: tensor)
    assert list(got) == [units.name for units in units_of(network, ("state",))] and got
    assert all(rows.isfinite().all() and rows[1:].any() for rows in got.values())


@torch.no_grad()
def test_directions_of_vmamba_share_their_states():
    """A map of one row: rows and columns are the same sequence, so two directions see it ahead and two back."""
    mixer = next(module for module in small_network("vmamba, wider").double().modules() if hasattr(module, "x_proj_weight"))
    x = torch.randn(1, mixer.out_proj.in_features, 1, 3, dtype=torch.float64)
    with StateImportance(nn.ModuleDict({"mixer": mixer})) as states:
        mixer.four_ways(x)
    channels, rank, count = x.shape[1], mixer.dt_projs_weight.shape[2], mixer.A_logs.shape[1]
    expected = torch.zeros(3, count, dtype=torch.float64)
    for way in range(4):
        u = x.flatten(2)
        dt, B, _ = (mixer.x_proj_weight[way] @ u).split([rank, count, count], dim=1)
        delta, A_log = mixer.dt_projs_weight[way] @ dt, mixer.A_logs[way * channels : (way + 1) * channels]
        rows = by_hand(u, delta, A_log, B.unsqueeze(1), mixer.dt_projs_bias[way], reverse=way > 1)
        expected += torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(states.totals(lambda tensor: tensor)["mixer.d_state"], expected)


def test_steps_vote_and_the_states_of_most_votes_go():
    sums = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 30.0, 40.0], [9.0, 1.0, 2.0, 30.0], [50.0, 2.0, 60.0, 1.0]])
    assert vote(sums, 0.5).argsort().tolist()[:2] == [1, 0]  # votes 1, 3, 1, 1; of those of one vote, the first is the least important in all
    scores = vote(sums, 0.25)  # votes 1, 1, 0, 1
    assert scores.argsort().tolist() == [1, 0, 3, 2] and scores[2] > 0 > scores[3]
    assert vote(sums, 0.0).argsort().tolist() == [1, 0, 3, 2]


def test_states_that_are_never_reached_and_a_single_step():
    assert vote(torch.zeros(5, 3), 0.3).argsort(stable=True).tolist()[0] == 0
    assert vote(torch.zeros(1, 4), 0.5).isfinite().all()


def test_a_vote_by_brute_force():
    generator = torch.Generator().manual_seed(3)
    sums = torch.rand(40, 8, generator=generator, dtype=torch.float64)
    for ratio, count in ((0.25, 2), (0.5, 4), (0.75, 6)):
        votes = [sum(n in sorted(range(8), key=row.__getitem__)[:count] for row in sums[1:].tolist()) for n in range(8)]
        whole = sums.sum(0).tolist()
        assert vote(sums, ratio).argsort().tolist() == sorted(range(8), key=lambda n: (-votes[n], whole[n]))


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("vim+s4", "cannot score layers.0.mixer.ssm.d_state: S4D has no A_log, and no steps"),
        ("mambavision+s5", "cannot score levels.2.blocks.0.mixer.ssm.d_state: S5 has no A_log"),
        ("vmamba+s4", r"cannot score layers.0.blocks.0.op.ssm.0.d_state: S4D has no A_log"),
        ("vssd", "VSSD has a rate for each head and none for a state, and sums over all tokens at once; choose another"),
    ],
)
def test_states_of_other_state_spaces_are_refused_with_the_reason(variant, said):
    network = small_network(variant)
    with pytest.raises(ValueError, match=said):
        create_method("structured", ratio=0.5, units=("state",), criterion="sparsessm").check(network)
    with pytest.raises(ValueError, match=said):
        StateImportance(network)


def test_selective_scans_are_not_refused():
    for variant in ("vim", "mambavision", "vmamba, wider"):
        network = small_network(variant)
        check_states(network, units_of(network, ("state",)))
