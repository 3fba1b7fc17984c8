"""Controls from timm, which show whether the state space matters: ViT (attention) and MambaOut (gated blocks without a scan)."""

from torch import nn

from models.configs import MambaOutConfig, ViTConfig
from models.torchvision_shim import load_timm


def build_vit(config: ViTConfig, img_size: int, num_classes: int) -> nn.Module:
    """timm's VisionTransformer with a class token and learned positions."""
    load_timm()
    from timm.models.vision_transformer import VisionTransformer

    network: nn.Module = VisionTransformer(
        img_size=img_size,
        patch_size=config.patch_size,
        embed_dim=config.dim,
        depth=config.depth,
        num_heads=config.heads,
        drop_path_rate=config.drop_path,
        num_classes=num_classes,
    )
    return network


def build_mambaout(config: MambaOutConfig, num_classes: int) -> nn.Module:
    """timm's MambaOut."""
    load_timm()
    from timm.models.mambaout import MambaOut

    network: nn.Module = MambaOut(depths=config.depths, dims=config.dims, drop_path_rate=config.drop_path, num_classes=num_classes)
    return network
