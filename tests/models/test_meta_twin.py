import torch

from models.meta_twin import meta_twin
from models.registry import create_model


def test_a_twin_has_the_shapes_and_no_memory_and_the_network_stays_as_it_is() -> None:
    network = create_model("mambavision_micro", 10, 32, dim=8, in_dim=8, depths=(1, 1, 2, 2)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    twin = meta_twin(network)
    assert {name: tensor.shape for name, tensor in twin.state_dict().items()} == {name: tensor.shape for name, tensor in before.items()}
    assert all(tensor.is_meta for tensor in (*twin.parameters(), *twin.buffers())) and all(weight.requires_grad for weight in twin.parameters())
    assert twin(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10) and not twin.training and network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
