"""Ways to time a network, on a CPU as far as they go there."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from jobs.experiment.specs import ProfileSpec
from jobs.measure.profiling import profile_network
from jobs.measure.protocols import PLAIN, Graphs, NotMeasurable, Protocol, further_protocols, images_for, prepared, tf32_of
from tests.support.networks import toy_net

IMAGES = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_without_a_profile_and_with_a_plain_one_nothing_further_is_measured() -> None:
    assert further_protocols(None) == further_protocols(ProfileSpec()) == ()


def test_every_combination_of_axes_is_a_protocol_but_the_plain_one() -> None:
    profile = ProfileSpec(compile=(False, True), channels_last=(False, True), dtype=("fp32", "bf16"))
    ways = further_protocols(profile)
    assert len(ways) == len(set(ways)) == 7 and PLAIN not in ways
    assert further_protocols(ProfileSpec(compile=(True,), dtype=("fp32", "fp32"))) == (Protocol(compile=True),)
    assert further_protocols(ProfileSpec(tf32=(False, True))) == (Protocol(tf32=False), Protocol(tf32=True))


def test_the_plain_network_is_the_network_itself() -> None:
    network = toy_net().eval()
    assert prepared(network, PLAIN, IMAGES) is network and images_for(PLAIN, IMAGES) is IMAGES


@torch.inference_mode()
def test_another_format_and_layout_compute_the_same_and_leave_the_network_as_it_is() -> None:
    network = toy_net(norm=True).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    way = Protocol(channels_last=True, dtype="bf16")
    images = images_for(way, IMAGES)
    assert images.dtype == torch.bfloat16 and images.is_contiguous(memory_format=torch.channels_last)
    scores = prepared(network, way, images)(images)
    torch.testing.assert_close(scores.float(), network(IMAGES), rtol=0.05, atol=0.05)
    assert all(torch.equal(value, before[name]) and value.dtype == before[name].dtype for name, value in network.state_dict().items())
    assert all(parameter.is_contiguous() for parameter in network.parameters())


@pytest.mark.slow
@torch.inference_mode()
def test_a_compiled_network_computes_the_same() -> None:
    network = toy_net().eval()
    images = IMAGES
    scores = prepared(network, Protocol(compile=True), images)(images)
    torch.testing.assert_close(scores, network(images), rtol=1e-4, atol=1e-4)


def test_graphs_need_a_gpu_and_what_fails_is_told_in_its_own_words() -> None:
    with pytest.raises(NotMeasurable, match="CUDA graphs need a GPU"):
        prepared(toy_net(), Protocol(cuda_graphs=True), IMAGES)

    class Refusing(nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise ValueError("the C++ scan takes fp32, bf16 and fp64, not torch.float16\nmore")

    with pytest.raises(NotMeasurable, match=r"^ValueError: the C\+\+ scan takes fp32, bf16 and fp64, not torch.float16$"):
        prepared(Refusing(1, 1), Protocol(dtype="fp16"), IMAGES)


class PlayedGraph:
    """A CUDA graph that notes what is done with it."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


def test_a_batch_is_captured_once_after_warming_up_and_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def wait_stream(self, other: object) -> None:
            pass

    class Entered:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    for name, played in {"Stream": Stream, "current_stream": Stream, "stream": Entered, "graph": Entered, "CUDAGraph": PlayedGraph}.items():
        monkeypatch.setattr(torch.cuda, name, played)
    calls: list[int] = []
    graphs = Graphs(lambda batch: calls.append(len(batch)), (IMAGES[:1], IMAGES))
    assert calls == [1] * 4 + [4] * 4
    graphs(IMAGES), graphs(IMAGES), graphs(IMAGES[:1])
    assert {size: graph.replays for size, graph in graphs.graphs.items()} == {1: 1, 4: 2} and len(calls) == 8


@pytest.mark.parametrize("tf32", [None, False, True])
def test_tf32_is_set_within_a_protocol_alone(tf32: bool | None) -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with tf32_of(Protocol(tf32=tf32)):
        now = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        assert now == (before if tf32 is None else (tf32, tf32))
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


def test_a_network_is_timed_in_several_ways_in_one_go() -> None:
    network = toy_net().eval()
    ways = (Protocol(dtype="bf16"), Protocol(channels_last=True), Protocol(cuda_graphs=True))
    profile = profile_network(network, img_size=4, masks={}, threads=1, batch_size=2, seconds=0.002, further=ways)
    bf16, last = profile.speeds
    assert bf16 == profile.speed_protocol.replace("fp32", "bf16") and last == profile.speed_protocol.replace("fp32", "fp32, channels last")
    for timed in profile.speeds.values():
        assert timed["latency_ms"] and timed["throughput_img_per_s"] and timed["speedup_measured"] == 1.0
    assert "fp32, CUDA graphs: not measured: CUDA graphs need a GPU" in profile.notes
    plain = profile_network(network, img_size=4, masks={}, threads=1, batch_size=2, seconds=0.002)
    assert plain.speeds == {} and replace(plain, speeds={}).speed_protocol == profile.speed_protocol
