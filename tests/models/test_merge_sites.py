"""Networks whose tokens merge: what they compute, against the same blocks called one by one, and where merging is refused."""

import copy

import pytest
import torch

from models.blocks import take_out
from models.flops import costs
from models.merge_sites import Span, merge_tokens, merging_of, spans
from models.registry import create_model
from models.token_merging import Merging, Tokens
from tests.support.removal import images, small_network

VIM, VIT, WINDOWS = {1: (40, 64)}, {0: (50, 64), 1: (33, 50)}, {1: (10, 16), 2: (3, 4), 3: (2, 3)}
TOKENS = {"vim": VIM, "vit": VIT, "mambavision": WINDOWS}


def merging_network(variant, tokens=None, plain=None, **how):
    network = small_network(variant) if plain is None else copy.deepcopy(plain)
    merge_tokens(network, Merging(tokens=TOKENS[variant.split("+")[0]] if tokens is None else tokens, **how))
    return network


def test_the_blocks_with_tokens_of_every_family():
    assert spans(create_model("vim_micro")) == (Span(first=0, blocks=4, tokens=64),)
    assert spans(create_model("vit_micro")) == (Span(first=0, blocks=4, tokens=64),)
    assert spans(create_model("mambavision_micro")) == (Span(first=0, blocks=4, tokens=16), Span(first=4, blocks=2, tokens=4))


@pytest.mark.parametrize("mode", ["merge", "prune"])
@pytest.mark.parametrize("variant", ["vim", "vim+se", "vim+mobilenet", "vim+s4", "vim+s5"])
def test_vim_merges_branch_and_sum_alike_before_its_blocks(variant, mode):
    network, x = merging_network(variant, mode=mode), images()
    patches = network.patch_embed(x)
    hidden = torch.cat((patches[:, :32], network.cls_token.expand(len(x), -1, -1), patches[:, 32:]), dim=1) + network.pos_embed
    hidden, residual = network.layers[0](hidden, None)
    tokens = Tokens(network.merging, hidden, range(32, 33))
    hidden, residual = network.layers[1](*tokens.before(1, hidden, residual))
    assert hidden.shape[1] == residual.shape[1] == 41
    token = (hidden + residual)[torch.arange(len(x)), tokens.apart[:, 0]]
    torch.testing.assert_close(network(x), network.head(network.norm_f(token)))


def test_vims_tokens_can_merge_before_the_first_block():
    network = merging_network("vim", {0: (60, 64), 1: (50, 60)})
    assert network(images()).shape == (len(images()), 10)


def test_by_timescale_the_tokens_of_the_smallest_delta_leave():
    plain, x = small_network("vim"), images()
    network = merging_network("vim", plain=plain, score="timescale")
    seen = {}
    mixer = network.layers[0].mixer
    mixer.dt_proj.register_forward_hook(lambda layer, _, delta: seen.update(delta=torch.nn.functional.softplus(delta + layer.bias).mean(-1)))
    network.layers[1].register_forward_pre_hook(lambda layer, given: seen.update(given=given))
    network(x)
    assert mixer.dt_proj.timescale is None  # nothing is left behind
    plain.layers[1].register_forward_pre_hook(lambda layer, given: seen.update(plain=given))
    plain(x)
    tokens = Tokens(network.merging, seen["plain"][0], range(32, 33))
    expected = tokens.before(1, *seen["plain"], timescale=seen["delta"])
    assert all(torch.equal(one, other) for one, other in zip(seen["given"], expected, strict=True))
    leaving = seen["delta"][:, [p for p in range(65) if p != 32]].sort(dim=1).values[:, 23]
    assert all(seen["delta"][i, tokens.matchings[0].source[i]].max() == leaving[i] for i in range(len(x)))


def test_a_vit_weighs_tokens_by_their_sizes():
    plain, x = small_network("vit"), images()
    network = merging_network("vit", plain=plain)
    features = plain.norm_pre(plain._pos_embed(plain.patch_embed(x)))
    tokens = Tokens(merging_of(network), features, range(1))
    for number, block in enumerate(plain.blocks):
        (features,) = tokens.before(number, features)
        branch = block.norm1(features)
        heads = [part.unflatten(-1, (4, -1)).transpose(1, 2) for part in block.attn.qkv(branch).chunk(3, dim=-1)]
        weights = (heads[0] @ heads[1].transpose(-1, -2) / 2).exp() * tokens.sizes[:, None, None]  # heads of 4 channels
        features = features + block.attn.proj(((weights / weights.sum(-1, keepdim=True)) @ heads[2]).transpose(1, 2).flatten(2))
        features = features + block.mlp(block.norm2(features))
    assert features.shape[1] == 34 and (tokens.apart == 0).all()
    torch.testing.assert_close(network(x), plain.head(plain.norm(features)[:, 0]), rtol=1e-4, atol=1e-5)
    assert network.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("variant", ["mambavision", "mambavision+se", "mambavision+s5", "mambavision+attention_pool", "mambavision+mobilenet"])
def test_mambavision_merges_within_windows_and_gives_each_position_its_token_again(variant):
    plain, x = small_network(variant), images()
    network = merging_network(variant, plain=plain)
    maps = plain.levels[1](plain.levels[0](plain.patch_embed(x)))
    level, batch = plain.levels[2], len(x)
    windows = maps.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, maps.shape[1])
    tokens = Tokens(merging_of(network), windows, range(0))
    windows = level.blocks[0](windows, None)
    (windows,) = tokens.before(1, windows)
    windows = tokens.spread(block_with_sizes(level.blocks[1], windows, tokens.sizes))
    per_side = maps.shape[2] // 4
    maps = windows.reshape(batch, per_side, per_side, 4, 4, -1).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
    seen = {}
    network.levels[2].downsample.register_forward_pre_hook(lambda layer, given: seen.update(maps=given[0]))
    assert torch.isfinite(network(x)).all()
    torch.testing.assert_close(seen["maps"], maps, rtol=1e-4, atol=1e-5)


def block_with_sizes(block, x, sizes):
    """A block of attention over as many copies of each token as it stands for."""
    attention, branch = block.mixer, block.norm1(x)
    query, key, value = (part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for part in attention.qkv(branch).chunk(3, dim=-1))
    weights = (query @ key.transpose(-1, -2) / attention.head_dim**0.5).exp() * sizes[:, None, None]
    x = x + block.se(attention.proj(((weights / weights.sum(-1, keepdim=True)) @ value).transpose(1, 2).flatten(2)))
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize(("variant", "block"), [("vim", "layers.0"), ("vit", "blocks.1"), ("mambavision", "levels.2.blocks.0")])
def test_blocks_keep_their_numbers_when_others_are_removed(variant, block):
    network = small_network(variant)
    take_out(network, (block,), ())
    merge_tokens(network, Merging(tokens=TOKENS[variant]))
    whole = merging_network(variant, plain=network)
    assert torch.equal(network(images()), whole(images()))


@pytest.mark.parametrize("variant", ["vim", "vit", "mambavision"])
def test_a_network_computes_in_bf16_and_learns(variant):
    network = merging_network(variant).train()
    network(images()).square().mean().backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    narrow = copy.deepcopy(network).to(torch.bfloat16).eval()
    scores = narrow(images().bfloat16())  # other pairs may be the closest ones after rounding, so other scores
    assert scores.dtype == torch.bfloat16 and torch.isfinite(scores).all()


@pytest.mark.parametrize("variant", ["vim", "vit", "mambavision"])
def test_every_shape_is_known_without_data(variant):
    network = merging_network(variant)
    assert network.to("meta")(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (("vmamba_micro", {}), "tokens of VMamba cannot merge: every block has a 3x3 convolution"),
        (("vssd_micro_32", {}), "tokens of VSSD cannot merge: every block has 3x3 convolutions"),
        (("mambaout_micro", {}), "tokens of MambaOut cannot merge: its blocks are convolutions"),
        (("mambavision_micro", {"swa": {"window": 3}}), "with swa cannot merge: sliding windows"),
    ],
)
def test_networks_that_need_the_map_are_refused_by_name(network, reason):
    with pytest.raises(ValueError, match=reason):
        merge_tokens(create_model(network[0], 10, **network[1]), Merging(tokens={1: (1, 2)}))


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ({2: (60, 64)}, "no block 2 with tokens; it has 2"),
        ({0: (60, 64), 1: (50, 64)}, "64 tokens were to be before block 1, but the network has 60"),
    ],
)
def test_a_merging_of_another_network_is_refused(tokens, reason):
    with pytest.raises(ValueError, match=reason):
        merging_network("vim", tokens)


@pytest.mark.parametrize("leaving", [None, 5, 20])
def test_multiply_adds_of_vim_are_those_of_the_tokens_that_run(leaving):
    network = create_model("vim_micro", 10)
    if leaving:
        merge_tokens(network, Merging(tokens={2: (64 - leaving, 64), 3: (64 - 2 * leaving, 64 - leaving)}))
    lengths, pairs = [65] * 4, 0
    if leaving:
        lengths = [65, 65, 65 - leaving, 65 - 2 * leaving]
        pairs = 32 * 32 * 64 + (-(-(64 - leaving) // 2)) * ((64 - leaving) // 2) * 64 + 2 * 2 * leaving**2 * 64  # similarities, sums of two streams
    inner, rank, states = 128, 4, 8
    token = 64 * 2 * inner + 2 * (inner * (rank + 2 * states) + rank * inner + 4 * inner) + inner * 64
    patches = 64 * 3 * 4 * 4 * 64
    assert counted(network).macs == patches + sum(lengths) * token + 64 * 10 + pairs
    assert counted(network).scan_flops == sum(lengths) * 2 * 9 * inner * states


@pytest.mark.parametrize("leaving", [None, 7])
def test_multiply_adds_of_a_vit_are_those_of_the_tokens_that_run(leaving):
    network = create_model("vit_micro", 10)
    lengths, pairs = [65] * 4, 0
    if leaving:
        merge_tokens(network, Merging(tokens={1: (64 - leaving, 64), 2: (64 - 2 * leaving, 64 - leaving)}))
        lengths = [65, 65 - leaving, 65 - 2 * leaving, 65 - 2 * leaving]
        pairs = 32 * 32 * 64 + 29 * 28 * 64 + 2 * leaving**2 * 64
    blocks = sum(length * (4 + 8) * 64 * 64 + 2 * length**2 * 64 for length in lengths)
    assert counted(network).macs == 64 * 3 * 4 * 4 * 64 + blocks + 64 * 10 + pairs


def counted(network):
    return costs(network.to("meta"), 32)
