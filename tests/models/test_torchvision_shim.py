"""torchvision and timm import with or without CUDA."""

import importlib
from types import ModuleType

import pytest
import torch

from models import torchvision_shim
from models.torchvision_shim import load_timm, load_torchvision


def test_torchvision_loads_with_its_detection_operators_declared() -> None:
    assert load_torchvision().__name__ == "torchvision" and load_torchvision() is load_torchvision()
    assert "iou_threshold" in str(torch.ops.torchvision.nms.default._schema)


def test_timm_loads_and_lists_its_models() -> None:
    assert "vit_tiny_patch16_224" in load_timm().list_models("vit_tiny*")


def test_another_error_of_torchvision_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("torchvision was compiled for another torch")

    monkeypatch.setattr(torchvision_shim.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="compiled for another torch"):
        load_torchvision()


def test_operators_that_are_missing_are_declared_before_the_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []
    tries: list[str] = []

    class Library:
        def __init__(self, namespace: str, kind: str) -> None:
            assert (namespace, kind) == ("torchvision", "FRAGMENT")

        def define(self, schema: str) -> None:
            declared.append(schema.partition("(")[0])

    def imported(name: str) -> ModuleType:
        tries.append(name)
        if len(tries) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")
        return ModuleType(name)

    monkeypatch.setattr(torchvision_shim.importlib, "import_module", imported)
    monkeypatch.setattr(torch.library, "Library", Library)
    monkeypatch.setattr(torchvision_shim, "_definitions", [])
    monkeypatch.setattr(torchvision_shim.sys, "modules", {"torchvision": importlib, "torchvision.ops": importlib, "torch": torch})
    assert load_torchvision().__name__ == "torchvision"
    assert declared == ["nms", "qnms"] and tries == ["torchvision"] * 2 and len(torchvision_shim._definitions) == 1
    assert set(torchvision_shim.sys.modules) == {"torch"}  # no half-imported module is left
