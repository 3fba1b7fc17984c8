"""The optimal brain surgeon against explicit inverses in fp64, one weight at a time and without blocks."""

import pytest
import torch
from torch import Tensor

from models.pruning.second_order import LowestShare, highest_two, inverse_root, prune_columns

DAMPING = 0.01


def draw(rows: int, columns: int, samples: int, seed: int = 0, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Weights, and inputs that go together: (groups, rows, columns), (groups, columns, samples) fp64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(groups, columns, columns, dtype=torch.float64, generator=generator)
    inputs = mixing @ torch.randn(groups, columns, samples, dtype=torch.float64, generator=generator)
    return torch.randn(groups, rows, columns, dtype=torch.float64, generator=generator), inputs


def damped(inputs: Tensor) -> Tensor:
    """H of one group, (columns, columns)."""
    H = inputs @ inputs.T
    return H + DAMPING * H.diagonal().mean() * torch.eye(len(H), dtype=torch.float64)


def surgeon(weight: Tensor, H: Tensor, before: Tensor, sparsity: float | None, block: int) -> tuple[Tensor, Tensor]:
    """(weights, mask) of one matrix by definition: scores w^2 / [H_F^-1]_jj, F the columns from j on, and dw = -w_j / [H_F^-1]_jj H_F^-1[:, j].

    Fractions of the block's living weights are dropped, or two of every four columns.
    """
    weight, mask = weight.clone(), before.clone()
    rows, columns = weight.shape
    inverses = [torch.linalg.inv(H[at:, at:]) for at in range(columns)]
    drops, alive, seen, dropped = max(0, round((sparsity or 0) * mask.numel()) - int((~mask).sum())), int(mask.sum()), 0, 0
    for at in range(columns):
        if at % block == 0:
            part = range(at, min(at + block, columns))
            scores = {(row, to): float(weight[row, to] ** 2 / inverses[to][0, 0]) for row in range(rows) for to in part if mask[row, to]}
            if sparsity is None:
                for row in range(rows):
                    own = sorted((score, to) for (at_row, to), score in scores.items() if at_row == row)
                    for _, to in own[: max(0, len(own) - 2)]:
                        mask[row, to] = False
            else:
                seen += len(scores)
                due = round(drops * seen / alive) - dropped
                dropped += due
                for row, to in sorted(scores, key=scores.get)[:due]:
                    mask[row, to] = False
        for row in range(rows):
            if not mask[row, at]:
                weight[row, at:] -= weight[row, at] / inverses[at][0, 0] * inverses[at][:, 0]
    return weight * mask, mask


def pruned(weight: Tensor, products: Tensor, sparsity: float | None, block: int, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """By the module."""
    before = torch.ones_like(weight, dtype=torch.bool) if before is None else before
    root = inverse_root(products, DAMPING)
    if sparsity is None:
        return prune_columns(weight, root, before, highest_two, block=block, every=4)
    drops = max(0, round(sparsity * before.numel()) - int((~before).sum()))
    return prune_columns(weight, root, before, LowestShare(name="w", drops=drops, alive=int(before.sum())), block=block, every=block)


@pytest.mark.parametrize("samples", [3, 50], ids=["fewer samples than inputs", "many samples"])
@pytest.mark.parametrize("block", [4, 8, 128])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.7, 0.95])
def test_masks_and_weights_are_those_of_explicit_inverses(sparsity, block, samples):
    weight, inputs = draw(5, 18, samples)
    new, mask = pruned(weight, inputs @ inputs.mT, sparsity, block)
    expected, kept = surgeon(weight[0], damped(inputs[0]), torch.ones(5, 18, dtype=torch.bool), sparsity, block)
    assert torch.equal(mask[0], kept) and int((~mask).sum()) == round(sparsity * 90)
    torch.testing.assert_close(new[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("block", [4, 8, 128])
def test_two_of_four_are_those_of_explicit_inverses_at_the_weights_as_they_have_become(block):
    """Weights from before the first four columns would choose others: the scores are of what is left."""
    weight, inputs = draw(6, 20, 60)
    new, mask = pruned(weight, inputs @ inputs.mT, None, block)
    expected, kept = surgeon(weight[0], damped(inputs[0]), torch.ones(6, 20, dtype=torch.bool), None, 4)
    assert torch.equal(mask[0], kept) and (mask.reshape(-1, 4).sum(1) == 2).all()
    torch.testing.assert_close(new[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sparsity", [0.5, None, 0.2])
def test_weights_that_were_masked_stay_zero_and_count(sparsity):
    """Half of the first columns and nearly all of the last are gone before; at 0.2 more than asked, so that no other goes."""
    weight, inputs = draw(5, 16, 40)
    before = torch.rand(1, 5, 16, generator=torch.Generator().manual_seed(1)) > torch.linspace(0.1, 0.7, 16)
    weight = weight * before
    new, mask = pruned(weight, inputs @ inputs.mT, sparsity, 4, before)
    expected, kept = surgeon(weight[0], damped(inputs[0]), before[0], sparsity, 4)
    assert torch.equal(mask[0], kept) and not (mask & ~before).any() and not new[~mask].any()
    if sparsity is not None:
        assert int((~mask).sum()) == max(round(sparsity * 80), int((~before).sum()))
    torch.testing.assert_close(new[0], expected, rtol=1e-9, atol=1e-9)


def test_groups_are_matrices_of_their_own_that_share_the_weights_to_drop():
    """As one matrix whose H is block-diagonal, if a block of columns holds all of each: a column of it is one input of one group."""
    weight, inputs = draw(3, 6, 30, groups=4)
    new, mask = pruned(weight, inputs @ inputs.mT, 0.6, 128)
    assert int((~mask).sum()) == round(0.6 * 72) and len({int((~part).sum()) for part in mask}) > 1
    scores = torch.cat(
        [(weight[g] ** 2 / torch.stack([torch.linalg.inv(damped(inputs[g])[at:, at:])[0, 0] for at in range(6)])).flatten() for g in range(4)]
    )
    assert torch.equal(mask.flatten(), scores > scores.kthvalue(round(0.6 * 72)).values)
    for group in range(4):
        expected = weight[group].clone()
        for at in range(6):
            inverse = torch.linalg.inv(damped(inputs[group])[at:, at:])[:, 0]
            expected[:, at:] -= (expected[:, at] * ~mask[group, :, at] / inverse[0])[:, None] * inverse
        torch.testing.assert_close(new[group], expected * mask[group], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7, None])
@pytest.mark.parametrize("seed", range(3))
def test_outputs_change_less_than_by_magnitude_and_by_wanda(sparsity, seed):
    """Inputs of a layer go together: here 48 of them follow 12, with a tenth of noise. (Where inputs are independent, there is little to make up.)"""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 24, 48, dtype=torch.float64, generator=generator)
    inputs = torch.randn(1, 48, 12, dtype=torch.float64, generator=generator) @ torch.randn(1, 12, 300, dtype=torch.float64, generator=generator)
    inputs += 0.1 * torch.randn(inputs.shape, dtype=torch.float64, generator=generator)

    def error(new: Tensor) -> float:
        return float(((new - weight) @ inputs).square().sum())

    def kept(scores: Tensor, *, by_row: bool) -> Tensor:
        if sparsity is None:
            return weight * highest_two(scores.reshape(1, -1, 4), torch.ones(1, 288, 4, dtype=torch.bool)).view(weight.shape)
        together = scores if by_row else scores.flatten(1).unsqueeze(1)
        threshold = together.kthvalue(round(sparsity * together.shape[-1]), dim=-1, keepdim=True).values
        return weight * (scores > threshold)

    new, _ = pruned(weight, inputs @ inputs.mT, sparsity, 16)
    norms = inputs.norm(dim=-1)[:, None]
    assert error(new) < 0.9 * min(error(kept(weight.abs(), by_row=False)), error(kept(weight.abs() * norms, by_row=True)))


def test_dead_inputs_and_no_input_at_all():
    """A dead input's weights cost nothing but the damping: they go before others of their size, and change no other weight."""
    weight, inputs = draw(4, 8, 30)
    weight = weight.sign()
    inputs[:, 2] = inputs[:, 5] = 0.0
    new, mask = pruned(weight, inputs @ inputs.mT, 0.25, 128)
    assert not mask[..., [2, 5]].any() and mask.sum() == 24
    torch.testing.assert_close(new[mask], weight[mask])
    new, mask = pruned(weight * torch.arange(1.0, 9.0), torch.zeros(1, 8, 8), 0.5, 4)
    assert torch.isfinite(new).all() and torch.equal(new[mask], (weight * torch.arange(1.0, 9.0))[mask]) and mask.sum() == 16


def test_of_equal_scores_the_first_goes():
    _, mask = pruned(torch.ones(1, 2, 8), torch.eye(8).unsqueeze(0), 0.25, 128)
    assert (~mask).flatten().nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_a_root_squares_to_the_inverse():
    _, inputs = draw(1, 12, 5, groups=3)
    root = inverse_root(inputs @ inputs.mT, DAMPING)
    assert torch.equal(root, root.triu())
    for group in range(3):
        torch.testing.assert_close(root[group].T @ root[group], torch.linalg.inv(damped(inputs[group])))


@pytest.mark.parametrize(
    ("products", "damping", "message"),
    [
        (torch.full((1, 2, 2), float("nan")), 0.01, "inputs hold NaN or infinity"),
        (torch.ones(1, 40, 40), 1e-300, "no inverse with damping 1e-300: raise"),
    ],
)
def test_products_that_cannot_be_inverted_are_refused(products, damping, message):
    with pytest.raises(ValueError, match=message):
        inverse_root(products, damping)
