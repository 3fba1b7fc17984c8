"""Position embeddings of another image size, against timm's own operation and its loading of a checkpoint."""

import pytest
import torch
from torch import Tensor

from models.positions import class_position, resampled, side_of
from models.registry import create_model
from models.torchvision_shim import load_timm


def positions(side: int, dim: int = 6) -> Tensor:
    return torch.randn(1, side**2 + 1, dim, generator=torch.Generator().manual_seed(side))


def timms(given: Tensor, side: int, prefix: int) -> Tensor:
    load_timm()
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(given, [side, side], num_prefix_tokens=prefix)


@pytest.mark.parametrize(("old", "new"), [(14, 24), (14, 27), (27, 14), (3, 4), (8, 1), (1, 3)])
def test_a_vims_patches_are_timms_and_its_class_token_stays_in_the_middle(old: int, new: int) -> None:
    vim, given = create_model("vim_micro", 2, depth=1), positions(old)
    at, new_at = old**2 // 2, new**2 // 2
    result = resampled(given, new, vim)
    assert result.shape == (1, new**2 + 1, 6)
    assert torch.equal(result[:, new_at], given[:, at])
    patches = torch.cat((given[:, :at], given[:, at + 1 :]), 1)
    assert torch.equal(torch.cat((result[:, :new_at], result[:, new_at + 1 :]), 1), timms(patches, new, 0))


@pytest.mark.parametrize(("old", "new"), [(14, 24), (24, 14)])
def test_a_vits_are_timms_with_the_class_token_in_front(old: int, new: int) -> None:
    vit = create_model("vit_micro", 2, depth=1)
    assert torch.equal(resampled(positions(old), new, vit), timms(positions(old), new, 1))


def test_a_smooth_field_stays_where_it_is_in_the_image() -> None:
    """Positions that are a linear function of the patch's place, away from the borders, are that function of the new patch's place."""
    vim = create_model("vim_micro", 2, depth=1)

    def field(side: int) -> Tensor:
        place = (torch.arange(side) + 0.5) / side
        return torch.stack((place[:, None].expand(side, side), place[None].expand(side, side)), -1)

    old = field(14).reshape(1, 196, 2)
    given = torch.cat((old[:, :98], torch.full((1, 1, 2), 9.0), old[:, 98:]), 1)
    result = resampled(given, 24, vim)
    patches = torch.cat((result[:, :288], result[:, 289:]), 1).reshape(24, 24, 2)
    torch.testing.assert_close(patches[4:-4, 4:-4], field(24)[4:-4, 4:-4], rtol=0, atol=1e-3)
    assert torch.equal(result[0, 288], torch.full((2,), 9.0))


def test_timm_loads_the_same_positions_from_a_checkpoint(tmp_path) -> None:
    small = create_model("vit_tiny", 10, 32, depth=1, patch_size=16)
    torch.nn.init.normal_(small.pos_embed)
    torch.save(small.state_dict(), tmp_path / "w.pth")
    ours = create_model("vit_tiny", 10, 64, depth=1, patch_size=16, pretrained=tmp_path / "w.pth")
    theirs = load_timm().create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=1)
    from timm.models.vision_transformer import checkpoint_filter_fn

    theirs.load_state_dict(checkpoint_filter_fn(small.state_dict(), theirs))
    assert torch.equal(ours.pos_embed, theirs.pos_embed) and torch.equal(ours.head.weight, theirs.head.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_a_file_is_kept(dtype: torch.dtype) -> None:
    vim = create_model("vim_micro", 2, depth=1)
    result = resampled(positions(4).to(dtype), 6, vim)
    assert result.dtype == dtype and bool(result.isfinite().all())


def test_what_is_no_square_has_no_side() -> None:
    assert [side_of(torch.zeros(1, tokens, 2)) for tokens in (197, 730, 198, 2, 1)] == [14, 27, None, 1, None]
    with pytest.raises(ValueError, match="60 patches are no square"):
        resampled(torch.zeros(1, 61, 2), 4, create_model("vim_micro", 2, depth=1))


def test_a_class_token_of_an_odd_number_of_patches_stands_before_the_middle_patch() -> None:
    assert class_position(create_model("vim_micro", 2, depth=1), 729) == 364


def test_a_network_with_resampled_positions_sees_the_larger_image(tmp_path) -> None:
    torch.save(create_model("vim_micro", 3, depth=1).state_dict(), tmp_path / "w.pth")
    large = create_model("vim_micro", 3, 48, depth=1, pretrained=tmp_path / "w.pth").eval()
    assert large(torch.randn(2, 3, 48, 48)).shape == (2, 3)


def test_mambavision_has_no_positions_and_loads_at_any_size(tmp_path) -> None:
    small = create_model("mambavision_micro", 3, 32)
    torch.save(small.state_dict(), tmp_path / "w.pth")
    large = create_model("mambavision_micro", 3, 80, pretrained=tmp_path / "w.pth").eval()
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in large.state_dict().items())
    assert large(torch.randn(1, 3, 80, 80)).shape == (1, 3)
