import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.experiment.specs import ModelSpec
from jobs.parallel.engine import rendezvous
from jobs.train.evaluation import WeightsError, evaluate, load_masks, load_model
from models.registry import create_model
from tests.support.networks import ToySamples, global_batch, toy_net
from tests.support.processes import run_ranks


def test_scores_are_those_counted_one_sample_at_a_time():
    model, ranks = toy_net(norm=True, dropout=0.5), rendezvous(threads=1)
    scores = evaluate(model, ToySamples(ranks).batches(), ranks)
    images, labels = global_batch(999_999, 30)
    first = fifth = loss = 0.0
    for image, label in zip(images, labels, strict=True):
        ranking = model.eval()(image[None])[0].argsort(descending=True).tolist()
        first += label.item() == ranking[0]
        fifth += label.item() in ranking[:5]
        loss -= functional.log_softmax(model(image[None])[0], 0)[label].item()
    assert scores.samples == 30
    assert scores.top1 == pytest.approx(100 * first / 30)
    assert scores.top5 == pytest.approx(100 * fifth / 30)
    assert scores.loss == pytest.approx(loss / 30, rel=1e-5)


class Reads(TorchDispatchMode):
    """Counts the numbers that the host reads from tensors; on a GPU, each waits for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("batches", [1, 20])
def test_no_batch_makes_the_host_wait_for_the_device(batches):
    ranks, model = rendezvous(threads=1), toy_net()
    with Reads() as reads:
        evaluate(model, [global_batch(0, 8)] * batches, ranks)
    assert reads.count <= 5  # the sums at the end


def test_top5_says_nothing_with_five_classes():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    images, labels = global_batch(0, 8)
    scores = evaluate(model, [(images, labels % 5)], rendezvous(threads=1))
    assert scores.top5 is None


def test_an_empty_split_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        evaluate(toy_net(), [], rendezvous(threads=1))


def evaluate_shares(folder):
    ranks = rendezvous(threads=1)
    batches = list(ToySamples(ranks).batches()) if ranks.rank < 2 else []
    scores = evaluate(toy_net(), batches, ranks)
    whole = global_batch(999_999, 30)
    kept = [tensor[[index for index in range(30) if index % 3 < 2]] for tensor in whole]
    alone = evaluate(toy_net(), [tuple(kept)], type(ranks)(rank=0, local_rank=0, world=1, device=ranks.device))
    assert scores.samples == 20
    assert (scores.top1, scores.top5) == pytest.approx((alone.top1, alone.top5))
    assert scores.loss == pytest.approx(alone.loss)


@pytest.mark.slow
def test_counts_are_summed_over_ranks_even_where_one_has_nothing(tmp_path):
    run_ranks("tests.jobs.train.test_evaluation:evaluate_shares", 3, tmp_path)


VIM = ModelSpec(name="vim_micro", options={"depth": 2, "dim": 16}, label="vim_micro(depth=2,dim=16)")


def test_a_saved_network_is_loaded_with_its_weights(tmp_path):
    torch.manual_seed(3)
    network = create_model(VIM.name, 10, 32, **VIM.options)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    loaded = load_model(VIM, classes=10, img_size=32, scan="auto", weights=tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 32, 32)
    assert not loaded.training
    assert torch.equal(loaded(images), network.eval()(images))


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    save_file(create_model(VIM.name, 12, 32, **VIM.options).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors does not hold the weights of vim_micro\(depth=2,dim=16\)(.|\n)*head"):
        load_model(VIM, classes=10, img_size=32, scan="auto", weights=tmp_path / "model.safetensors")


def test_masks_are_bools_and_a_dense_network_has_none(tmp_path):
    assert load_masks(tmp_path) == {}
    save_file({"weight": torch.tensor([1, 0, 1], dtype=torch.uint8)}, tmp_path / "masks.safetensors")
    assert load_masks(tmp_path)["weight"].tolist() == [True, False, True]
