"""Every family and variant learns: on a few handwritten digits the loss falls."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.registry import create_model

CASES: list[tuple[str, dict[str, object]]] = [
    *(("vim_micro", options) for options in ({}, {"se": {}}, {"mobilenet": {}}, {"s4": {}}, {"s5": {}})),
    *(
        ("mambavision_micro", options)
        for options in (
            {},
            {"swa": {"window": 3}},
            {"s4": {}},
            {"s5": {}},
            {"attention_pool": {"downsample": True}},
            {"convnext": {}},
            {"se": {}},
            {"mobilenet": {}},
        )
    ),
    ("vit_micro", {}),
    ("mambaout_micro", {}),
]
NARROW: dict[str, dict[str, object]] = {  # every kind of block of the row, few of them and narrow
    "vim_micro": {"depth": 2, "dim": 32},
    "mambavision_micro": {"dim": 16, "in_dim": 16, "depths": [1, 1, 2, 2], "heads": [1, 1, 2, 4]},
    "vit_micro": {"depth": 2, "dim": 48},
    "mambaout_micro": {"depths": [1, 1, 1, 1], "dims": [16, 16, 32, 32]},
}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """(images (32, 3, 32, 32), labels (32,)) of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images[:32], dtype=torch.float32).unsqueeze(1) / 8 - 1
    return F.interpolate(images, size=(32, 32)).expand(-1, 3, -1, -1).contiguous(), torch.tensor(data.target[:32])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: value if isinstance(value, str) else "+".join(value))
def test_the_loss_falls_on_digits(name: str, options: dict[str, object], digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    images, labels = digits
    model = create_model(name, num_classes=10, **NARROW[name], **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = loss = F.cross_entropy(model(images), labels)
    for _ in range(50):  # attention starts slowly; the others are through after twenty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = F.cross_entropy(model(images), labels)
        if loss < 0.85 * first:
            return
    pytest.fail(f"the loss went from {first.item():.2f} to {loss.item():.2f} alone")
