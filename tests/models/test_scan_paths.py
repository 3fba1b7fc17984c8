"""The paths of a scan, against lists that loops write and gathers of the reference scan."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.registry import OptionError, create_model, effective_options, model_config, model_label
from models.scan_paths import VIM, directions_of, tokens_along
from models.ssm.scan import scan_reference
from models.vim import BidirectionalMixer
from tests.support.golden import on_meta
from tests.support.triton_device import DEVICE, needs_triton

FOUR = ["h", "h_flip", "w2", "w2_flip"]
SMALL = {"num_classes": 10, "dim": 4, "depth": 1, "d_state": 3, "patch_size": 8}  # 4 x 4 patches


def written_by_loops(path: str, side: int) -> list[int]:
    """The patches of a path, by nested loops over rows and columns."""
    if path == "h":
        return [row * side + column for row in range(side) for column in range(side)]
    if path == "v":
        return [row * side + column for column in range(side) for row in range(side)]
    window, patches = int(path[1:]), []
    for top in range(0, side, window):
        for left in range(0, side, window):
            for row in range(top, top + window):
                patches += [row * side + column for column in range(left, left + window)]
    return patches


def with_class_token(patches: list[int]) -> list[int]:
    """Positions in Vim's sequence: patches behind the middle are one further, and the class token is in the middle of both."""
    middle = len(patches) // 2
    tokens = [patch if patch < middle else patch + 1 for patch in patches]
    tokens.insert(middle, middle)
    return tokens


@pytest.mark.parametrize(("path", "side"), [("h", 3), ("v", 3), ("v", 4), ("w2", 4), ("w2", 14), ("w7", 14), ("w3", 9), ("w8", 8)])
def test_a_path_reads_every_token_once_as_loops_write_it(path: str, side: int) -> None:
    tokens = tokens_along(path, side)
    assert tokens == with_class_token(written_by_loops(path, side))
    assert sorted(tokens) == list(range(side * side + 1)) and tokens[side * side // 2] == side * side // 2


def test_windows_of_two_on_four_by_four_patches() -> None:
    assert tokens_along("w2", 4) == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 13, 14, 11, 12, 15, 16]  # 8 is the class token


def by_hand(mixer: BidirectionalMixer, scan: list[str], hidden: Tensor, side: int) -> Tensor:
    """The mixer's output: each direction gathers all its tokens, runs ahead over them by the reference scan, and puts them back."""
    x, z = mixer.in_proj(hidden).chunk(2, dim=-1)
    total = torch.zeros_like(x)
    for number, name in enumerate(scan):
        weights = {key.replace(f"_{number}", ""): value for key, value in mixer.named_parameters() if f"_{number}" in key}
        tokens = with_class_token(written_by_loops(name.removesuffix("_flip"), side))
        tokens = tokens[::-1] if name.endswith("_flip") else tokens
        u, gate = x[:, tokens].transpose(1, 2), z[:, tokens].transpose(1, 2)
        u = F.silu(F.conv1d(F.pad(u, (3, 0)), weights["conv1d.weight"], weights["conv1d.bias"], groups=u.shape[1]))
        rank, states = weights["dt_proj.weight"].shape[1], weights["A_log"].shape[1]
        dt, B, C = (weights["x_proj.weight"] @ u).split([rank, states, states], dim=1)
        y, _ = scan_reference(
            u, weights["dt_proj.weight"] @ dt, -weights["A_log"].exp(), B.unsqueeze(1), C.unsqueeze(1), weights["D"], gate, weights["dt_proj.bias"],
            True, False)  # fmt: skip
        for at, token in enumerate(tokens):
            total[:, token] = total[:, token] + y[:, :, at]
    out: Tensor = mixer.out_proj(total / len(scan))
    return out


def mixer_of(scan: list[str], backend: str, **options: object) -> BidirectionalMixer:
    """A mixer over 4 x 4 patches with no parameter at a special value."""
    torch.manual_seed(0)
    model = create_model("vim_micro", scan=scan, scan_backend=backend, **SMALL | options)
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    mixer: BidirectionalMixer = model.layers[0].mixer
    return mixer


@pytest.mark.parametrize("scan", [[*FOUR, "v_flip"], ["v"]], ids="-".join)
@pytest.mark.parametrize("backend", ["reference", "cpu", pytest.param("triton", marks=needs_triton)])
def test_every_backend_computes_a_gather_of_the_reference_scan_and_its_gradients(scan: list[str], backend: str) -> None:
    device = DEVICE if backend == "triton" else "cpu"
    mixer = mixer_of(scan, backend).double()
    hidden = torch.randn(1, 17, 4, dtype=torch.double, requires_grad=True)
    want = by_hand(mixer, scan, hidden, 4)
    wanted = torch.autograd.grad(want.square().sum(), [hidden, *mixer.parameters()])
    mixer, moved = mixer.to(device), hidden.detach().to(device).requires_grad_()
    y = mixer(moved)
    gradients = torch.autograd.grad(y.square().sum(), [moved, *mixer.parameters()])
    torch.testing.assert_close(y.cpu(), want, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close([gradient.cpu() for gradient in gradients], list(wanted), rtol=1e-7, atol=1e-9)


@needs_triton
def test_triton_scans_a_path_from_both_ends_in_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[int] = []
    both = BidirectionalMixer._both
    monkeypatch.setattr(BidirectionalMixer, "_both", lambda self, x, z, ways: launches.append(len(ways)) or both(self, x, z, ways))
    mixer_of([*FOUR, "v"], "triton").to(DEVICE)(torch.randn(1, 17, 4, device=DEVICE))
    assert launches == [2, 2]  # h and w2; v has one direction


def test_a_path_twice_has_two_sets_of_parameters() -> None:
    mixer, hidden = mixer_of(["w2", "w2", "h"], "cpu"), torch.randn(1, 17, 4)
    torch.testing.assert_close(mixer(hidden), by_hand(mixer, ["w2", "w2", "h"], hidden, 4), rtol=1e-4, atol=1e-6)


def test_vims_own_paths_have_vims_names_and_any_others_those_of_localmamba() -> None:
    own, others = on_meta("vim_tiny", scan=list(VIM)).state_dict(), on_meta("vim_tiny", scan=FOUR).state_dict()
    assert own.keys() == on_meta("vim_tiny").state_dict().keys() and "layers.0.mixer.A_b_log" in own
    mixer = {name.removeprefix("layers.0.mixer."): tuple(tensor.shape) for name, tensor in others.items() if name.startswith("layers.0.mixer.")}
    each = {"A_log_{}": (384, 16), "D_{}": (384,), "conv1d_{}.weight": (384, 1, 4), "conv1d_{}.bias": (384,), "x_proj_{}.weight": (44, 384),
            "dt_proj_{}.weight": (384, 12), "dt_proj_{}.bias": (384,)}  # fmt: skip
    shared = {"in_proj.weight": (768, 192), "out_proj.weight": (192, 384)}
    assert mixer == shared | {name.format(number): shape for number in range(4) for name, shape in each.items()}


def test_an_extra_pair_starts_as_vims_own_two_directions_do() -> None:
    torch.manual_seed(0)
    mixer = create_model("vim_micro", scan=FOUR, num_classes=10).layers[0].mixer
    for each in directions_of(FOUR):
        bias = mixer.get_parameter(f"dt_proj{each.ending}.bias").detach()
        delta = F.softplus(bias)
        assert not bias.any() if each.reverse else 0.99e-3 <= delta.min() <= delta.max() <= 0.1001
    decaying = {f"{name}_{number}" for name in ("A_log", "D") for number in range(4)}
    assert set(mixer.ssm_parameters) == decaying


def test_labels_and_identities_name_the_paths_unless_they_are_vims_own() -> None:
    assert model_label("vim_micro", {"scan": FOUR}) == "vim_micro(scan=h-h_flip-w2-w2_flip)"
    assert effective_options("vim_micro", {"scan": ["h", "h_flip"]}) == {}
    assert effective_options("vim_micro", {"scan": ["h_flip", "h"]}) == {"scan": ["h_flip", "h"]}  # which has other names


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        (["h", "x"], "scan: must be h, v, or w and the side of a window .*, got x"),
        (["w1"], "got w1"),
        (["w02"], "got w02"),
        (["hflip"], "got hflip"),
        ([], "scan must name at least one path"),
        ("h", "expected a list of texts, got text 'h'"),
    ],
)
def test_what_is_no_path_is_refused(scan: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model_config("vim_micro", {"scan": scan})


def test_windows_that_do_not_divide_the_grid_are_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"scan: windows of 7 x 7 do not divide 8 x 8 patches; windows that do: w2, w4, w8"):
        on_meta("vim_micro", scan=["h", "w7"])
    on_meta("vim_tiny", scan=["w2", "w7"])


def test_a_path_of_the_grid_needs_all_of_its_tokens() -> None:
    with pytest.raises(ValueError, match="the path 'v' reads the whole grid, 17 tokens with the class token, and got 11"):
        mixer_of(["h", "v"], "cpu")(torch.randn(1, 11, 4))
    mixer_of(["h", "h"], "cpu")(torch.randn(1, 11, 4))


def test_weights_of_other_directions_are_refused_by_name(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.pth" for name in ("own", "four")}
    for name, options in (("own", {}), ("four", {"scan": FOUR})):
        torch.save(create_model("vim_micro", **SMALL, **options).state_dict(), files[name])
    create_model("vim_micro", pretrained=files["four"], scan=FOUR, **SMALL)
    with pytest.raises(ValueError, match=r"Vim's own directions, \[h, h_flip\], and the model scans \[h, h_flip, w2, w2_flip\]: give the scan that"):
        create_model("vim_micro", pretrained=files["own"], scan=FOUR, **SMALL)
    with pytest.raises(ValueError, match=r"hold 4 directions of another scan, and the model scans \[h, h_flip\]"):
        create_model("vim_micro", pretrained=files["four"], **SMALL)
    with pytest.raises(ValueError, match="hold 4 directions of another scan"):
        create_model("vim_micro", pretrained=files["four"], scan=["h", "v"], **SMALL)
