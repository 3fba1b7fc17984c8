"""Networks without some of their blocks and state spaces: equal to the bit to networks that were built without them."""

import copy

import pytest
import torch
from torch import nn

from models.blocks import Absent, blocks_of, scans_of, take_out, without
from models.registry import create_model
from tests.support.removal import images, moved, small_network

DEEP = {  # options of a network with a block to spare, and of the one without it: that without blocks `gone`, whose others move up
    "vim": ("vim_micro", {"dim": 16, "depth": 4}, {"depth": 3}, r"layers"),
    "vim+s4": ("vim_micro", {"dim": 16, "depth": 3, "s4": True}, {"depth": 2}, r"layers"),
    "vit": ("vit_micro", {"dim": 12, "depth": 3}, {"depth": 2}, r"blocks"),
    "mambavision": (
        "mambavision_micro",
        {"dim": 8, "in_dim": 6, "depths": [1, 1, 4, 2]},
        {"depths": [1, 1, 3, 2]},
        r"levels.2.blocks",
    ),  # of 2 with attention
    "vmamba": ("vmamba_micro", {"dim": 8, "depths": [1, 1, 3, 1]}, {"depths": [1, 1, 2, 1]}, r"layers.2.blocks"),
    "vssd": ("vssd_micro_32", {"dim": 8, "depths": [1, 1, 3, 1], "heads": [2, 4, 4, 4], "d_state": 4}, {"depths": [1, 1, 2, 1]}, r"layers.2.blocks"),
    "mambaout": ("mambaout_femto", {"dims": [8, 8, 8, 8], "depths": [1, 1, 3, 1]}, {"depths": [1, 1, 2, 1]}, r"stages.2.blocks"),
}


def moved_up(weights: dict[str, torch.Tensor], blocks: str, gone: int) -> dict[str, torch.Tensor]:
    """Weights under the names that they have in the network without block `gone`."""
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith(f"{blocks}."):
            number, rest = name.removeprefix(f"{blocks}.").split(".", 1)
            name = f"{blocks}.{int(number) - (int(number) > gone)}.{rest}"
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize(("family", "gone"), [*((family, 1) for family in DEEP), ("vim", 0), ("vim", 3)])
def test_removal_of_a_block_gives_the_network_that_is_built_without_it(family, gone):
    name, options, fewer, blocks = DEEP[family]
    gone += 2 * (family == "mambavision")  # a level of three blocks has two state spaces and one attention
    whole = moved(create_model(name, 10, 32, **options))
    take_out(whole, (f"{blocks}.{gone}",), ())
    built = create_model(name, 10, 32, **options | fewer).eval()
    built.load_state_dict(moved_up(whole.state_dict(), blocks, gone), strict=True)
    with torch.no_grad():
        assert torch.equal(whole(images()), built(images()))


@pytest.mark.parametrize("family", ["vim", "mambavision", "vmamba"])
def test_every_block_can_go_but_one(family):
    name, options, *_ = DEEP[family]
    network = create_model(name, 10, 32, **options).eval()
    names = blocks_of(network)
    assert len(names) == sum(options["depths"]) if "depths" in options else options["depth"]
    take_out(network, names[:-1], ())
    assert blocks_of(network) == names[-1:] and network(images()).isfinite().all()
    with pytest.raises(ValueError, match="all 1 blocks would go; at least one must stay"):
        take_out(network, names[-1:], ())
    with pytest.raises(ValueError, match=f"the network has no block '{names[0]}'; it has {names[-1]}"):
        take_out(network, names[:1], ())


@pytest.mark.parametrize("variant", ["vim+s5", "mambavision+se", "vit"])
def test_a_copy_without_parts_shares_the_weights_that_stay(variant):
    network = small_network(variant)
    before, kept = network(images()), copy.deepcopy(network.state_dict())
    twin = without(network, blocks_of(network)[:1], ())
    named = dict(network.named_parameters())
    assert all(parameter is named[name] for name, parameter in twin.named_parameters()) and len(dict(twin.named_parameters())) < len(named)
    assert torch.equal(network(images()), before) and network.state_dict().keys() == kept.keys()


SCANS = ["vim", "vim+s4", "vim, four paths", "mambavision", "mambavision+s5", "vmamba", "vmamba+s4", "vssd"]


@pytest.mark.parametrize("variant", SCANS)
def test_a_state_space_is_removed_alone(variant):
    """Against the whole network whose scans are made to give their input: by hand, through what the scans are called with."""
    network = small_network(variant)
    mixers = scans_of(network)
    twin = without(network, (), mixers)
    assert mixers and not scans_of(twin) and blocks_of(twin) == blocks_of(network)
    gone = network.state_dict().keys() - twin.state_dict().keys()
    assert gone and all(any(name.startswith(f"{mixer}.") for mixer in mixers) for name in gone)
    for name in mixers:
        give_inputs(network.get_submodule(name))
    with torch.no_grad():
        assert torch.equal(twin(images()), network(images()))


def give_inputs(mixer: nn.Module) -> None:
    """Makes the scans of a whole mixer give their input."""

    def scan(u, delta, A, B, C, D, z=None, **_):
        return u if z is None else u * nn.functional.silu(z)

    if hasattr(mixer, "scan"):
        mixer.scan = scan
    for part in mixer.modules():
        if type(part).__name__ in ("S4D", "S5"):
            part.forward = lambda x, *, reverse=False: x
    if type(mixer).__name__ == "SSD":
        mixer.mix = lambda maps, dt: maps[:, : mixer.out_proj.in_features]


def test_a_network_without_state_spaces_has_none():
    assert scans_of(small_network("vit")) == ()
    with pytest.raises(ValueError, match="no state space 'blocks.0'; it has none"):
        take_out(small_network("vit"), (), ("blocks.0",))


class Residual(nn.Module):
    """x + conv(x), with a ReLU after it if asked for; widened, if asked for, so that the sum is not of its input."""

    def __init__(self, relu: bool = False, shortcut: bool = True) -> None:
        super().__init__()
        self.conv, self.relu, self.shortcut = nn.Conv2d(4, 4, 3, padding=1), relu, shortcut

    def forward(self, x):
        y = self.conv(x) + (x if self.shortcut else 0)
        return y.relu() if self.relu else y


class Foreign(nn.Module):
    """A network that no table knows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 1), Residual())  # a stem never goes, as in EfficientViT
        self.stages = nn.ModuleList(
            [nn.Sequential(Residual(), Residual(relu=True)), nn.Sequential(Residual(shortcut=False), nn.Sequential(Residual()))]
        )
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


def test_the_residual_blocks_of_any_network_are_found_by_what_they_do_without_weights():
    network = Foreign()
    assert blocks_of(network) == ("stages.0.0", "stages.0.1", "stages.1.1.0")
    take_out(network, ("stages.0.1",), ())
    assert blocks_of(network) == ("stages.0.0", "stages.1.1.0") and isinstance(network.stages[0][1], Absent)


COUNTS = {"resnet18": 5, "test_convnext": 9, "regnetx_002": 9, "mobilenetv2_035": 10}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_networks_of_timm_have_their_residual_blocks_found(name, count):
    from models.torchvision_shim import load_timm

    load_timm()
    import timm

    with torch.device("meta"):
        network = timm.create_model(name, num_classes=10)
    names = blocks_of(network)
    assert len(names) == count, names
    assert name != "test_convnext" or names[0] == "stages.0.blocks.0"
    assert not any("downsample" in part or "head" in part for part in names)
