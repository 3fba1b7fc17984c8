"""How fp32 products and convolutions of a GPU are computed."""

import torch


def set_precision(dtype: str) -> None:
    """Makes products and convolutions of fp32 tensors use TF32 (10 bits of mantissa) if `dtype`, a recipe's, is tf32, and fp32 otherwise.

    By torch's own defaults convolutions use TF32 and products do not. A CPU has no TF32.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"


def uses_tf32() -> bool:
    """True if fp32 products and convolutions of this process use TF32 on a GPU."""
    return bool(torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32)
