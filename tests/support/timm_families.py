"""One model of each of ten families of timm, with arguments that make it small; it runs at 32 and at 64 pixels."""

from typing import Any

FAMILIES: dict[str, dict[str, Any]] = {
    "timm/resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8},
    "timm/deit_tiny_patch16_224": {"depth": 1, "embed_dim": 12, "num_heads": 2},
    "timm/swin_tiny_patch4_window7_224": {"depths": [1, 1], "embed_dim": 8, "num_heads": [2, 2], "window_size": 4},
    "timm/convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
    "timm/test_efficientnet": {},
    "timm/mobilenetv3_small_050": {},
    "timm/mixer_s32_224": {},
    "timm/regnetx_002": {"depth": 7, "stem_width": 8},
    "timm/poolformer_s12": {},
    "timm/mobilevit_xxs": {"num_features": 16},
}
