"""Counts from shapes alone, against published and independently counted figures."""

import math

import pytest
import torch
from torch import nn

from models.flops import CONVENTIONS, Tally, count_parameters, tally
from models.registry import MODELS
from tests.support.golden import on_meta

BY_NAME = {each.name: each for each in CONVENTIONS}


def giga(name: str, convention: str) -> float:
    """The figure of a model in a convention."""
    return BY_NAME[convention].figure(tally(on_meta(name), MODELS[name].img_size)) / 1e9


@pytest.mark.parametrize(
    ("name", "products", "attention", "scan"),
    [
        # linear layers and convolutions of both directions; 24 blocks x 2 directions x 9 B L D N
        ("vim_tiny", 1.293, 0.0, 24 * 2 * 9 * 197 * 384 * 16 / 1e9), ("vim_small", 4.851, 0.0, 24 * 2 * 9 * 197 * 768 * 16 / 1e9),
        # linear layers and convolutions, and attention
        ("mambavision_t", 4.460, 0.105, None), ("mambavision_s", 7.482, 0.096, None), ("mambavision_l2", 37.503, 0.377, None),
    ],
)  # fmt: skip
def test_multiply_adds_are_those_counted_on_the_official_code(name: str, products: float, attention: float, scan: float | None) -> None:
    counted = tally(on_meta(name), 224)
    assert counted.products / 1e9 == pytest.approx(products, abs=0.0015) == BY_NAME["scan left out"].figure(counted) / 1e9
    assert counted.attention / 1e9 == pytest.approx(attention, abs=0.0015)
    assert counted.scan > 0
    if scan is not None:
        assert counted.scan / 1e9 == pytest.approx(scan)
        assert counted.skip == counted.gate == counted.scan // (9 * 16)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("vmamba_tiny_s1l8", 4.9), ("vmamba_tiny_s2l5", 4.9), ("vmamba_small_s2l15", 8.7),
        ("vmamba_small_s1l20", 8.6), ("vmamba_base_s2l15", 15.4), ("vmamba_base_s1l20", 15.2),
    ],
)  # fmt: skip
def test_vmamba_s_figures_are_those_of_its_paper_in_its_own_convention(name: str, published: float) -> None:
    assert round(giga(name, "9BLDN + BDL"), 1) == published


@pytest.mark.parametrize(("name", "usual"), [("vim_tiny", 1.823)])
def test_vim_s_figures_are_those_of_the_usual_table(name: str, usual: float) -> None:
    assert giga(name, "9BLDN + BDL") == pytest.approx(usual, abs=5e-4) == giga(name, "ours")


class Small(nn.Module):
    """Two layers that can be counted by hand, one of which runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
        self.twice, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 4)."""
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        tokens = self.twice(self.twice(tokens))
        heads = tokens.unsqueeze(1)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads).squeeze(1)
        return self.norm(mixed @ mixed.transpose(1, 2)[..., :4]).mean(1)


def test_a_network_is_counted_as_by_hand() -> None:
    with torch.device("meta"):
        network = Small()
    counted = tally(network, 8)  # 2 x 2 tokens of 4 channels
    convolution, linear, product, attention = 4 * 4 * 3 * 16, 4 * 4 * 4, 4 * 4 * 4, 2 * 4 * 4 * 4
    want = Tally(
        products=convolution + 2 * linear + product, attention=attention, scan=0, skip=0, gate=0, norms=(2 + 5 + 5) * 16, layers=counted.layers
    )
    assert counted == want
    assert {layer.name: (layer.kind, layer.macs) for layer in counted.layers} == {
        "": ("Small", product + attention),
        "stem.0": ("Conv2d", convolution),
        "stem.1": ("BatchNorm2d", 0),
        "stem.2": ("GroupNorm", 0),
        "twice": ("Linear", 2 * linear),
        "norm": ("LayerNorm", 0),
    }


class Query(nn.Module):
    """Attention of a learned query: a layer is called with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.fc = nn.Parameter(torch.zeros(2, 6)), nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3)."""
        return self.fc(self.query).sum(0) + images.mean((2, 3))


def test_a_layer_that_is_called_with_a_parameter_is_counted_too() -> None:
    with torch.device("meta"):
        network = Query()
    assert tally(network, 8).products == 2 * 6 * 3
    assert network.query.requires_grad and network.fc.weight.requires_grad


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_micro", "vmamba_micro", "vssd_micro_32", "mambaout_micro"])
def test_layers_add_up_to_the_whole(name: str) -> None:
    network = on_meta(name)
    counted = tally(network, 32)
    assert sum(layer.macs for layer in counted.layers) == counted.products + counted.attention
    assert sum(layer.scan_flops for layer in counted.layers) == counted.scan
    assert sum(layer.parameters for layer in counted.layers) == count_parameters(network)
    assert all(layer.macs >= 0 for layer in counted.layers)


def test_a_scan_counts_for_each_of_its_directions() -> None:
    two, four = (tally(on_meta("vim_micro", scan=scan), 32) for scan in (["h", "h_flip"], ["h", "h_flip", "w2", "w2_flip"]))
    assert four.parts == two.parts | {name: 2 * two.parts[name] for name in ("scan", "skip", "gate")} | {"products": four.products}
    directions = 4 * 2 * 65 * 128 * ((4 + 16) + 4 + 4)  # blocks x directions x tokens x inner channels x (x_proj, dt_proj, taps)
    assert four.products - two.products == directions and two.scan == math.prod((4, 2, 9, 65, 128, 8))
