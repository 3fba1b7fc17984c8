import random
import statistics

import pytest
import torch

import jobs.measure.speed
from jobs.measure.speed import Timing, clock_mhz, protocol, race, speedup, speedups, timed, warm_up

CPU = torch.device("cpu")


class Clock:
    """A clock that moves when a contestant runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.ran = 0.0, list[str]()
        monkeypatch.setattr(jobs.measure.speed.time, "perf_counter", lambda: self.now)

    def runner(self, name: str, *pace: float):
        """A contestant whose calls take these seconds, the last for ever."""
        left = list(pace)

        def run() -> None:
            self.ran.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def timing(*turns_s: float, calls_s: tuple[float, ...] = ()) -> Timing:
    return Timing(calls_s=calls_s or turns_s, turns_s=turns_s, stable=True)


def test_warming_up_goes_on_until_two_groups_of_five_calls_agree(clock: Clock) -> None:
    slow_start = [0.5, 0.4, 0.3, 0.2, 0.2, *[0.12] * 5]
    pace, stable = warm_up(clock.runner("a", 9.0, *slow_start, 0.1), CPU, 100.0, alone=True)
    assert (pace, stable) == (pytest.approx(0.1), True) and len(clock.ran) == 1 + 20  # 0.3, 0.12, 0.1, 0.1


def test_a_pace_that_never_settles_ends_at_the_limit_and_says_so(clock: Clock) -> None:
    growing = [0.1 * 1.1**i for i in range(100)]
    _, stable = warm_up(clock.runner("a", *growing), CPU, 3.0, alone=True)
    assert not stable and 3.1 <= clock.now < 3.6


def test_one_long_call_beside_the_first_is_all_the_warming_up_that_its_limit_allows(clock: Clock) -> None:
    assert warm_up(clock.runner("a", 90.0, 60.0), CPU, 1.0, alone=True) == (60.0, False)
    assert clock.ran == ["a", "a"]


def test_contestants_take_turns_of_equal_length_in_a_shuffled_order(clock: Clock) -> None:
    found = race({"a": clock.runner("a", 0.01), "b": clock.runner("b", 0.02)}, CPU, 2.0, alone=True)
    assert [len(found[name].turns_s) for name in "ab"] == [10, 10]
    assert [len(found[name].calls_s) for name in "ab"] == [100, 50]
    ran = clock.ran[22:]  # each was warmed up by one call and ten
    turns = [name for i, name in enumerate(ran) if i == 0 or ran[i - 1] != name]
    assert turns != ["a", "b"] * 10 and turns.count("a") + turns.count("b") < 20  # where one ends a round and begins the next


def test_long_calls_get_three_turns_of_one_call(clock: Clock) -> None:
    found = race({"a": clock.runner("a", 5.0)}, CPU, 1.0, alone=False)
    assert found["a"].calls_s == (5.0, 5.0, 5.0) and not found["a"].stable


def test_a_slow_moment_of_the_machine_does_not_move_the_median_speed_up(clock: Clock) -> None:
    noise = random.Random(1)
    slow = [noise.choice((1.0, 1.0, 3.0)) for _ in range(10)]  # a turn in which everything takes three times as long
    own, dense = timing(*(0.01 * one for one in slow)), timing(*(0.02 * one for one in slow))
    assert speedups(own, dense) == pytest.approx([2.0] * 10)
    assert speedup(own, dense, same_kernels=False) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [((1.2,) * 9 + (1.04,), 1.0), ((0.8,) * 10, 1.0), ((1.2,) * 3, 1.0), ((1.1, 1.2, 1.3, 1.2, 1.2) * 2, 1.2)],
    ids=["one turn was not", "slower", "too few turns", "faster in all"],
)
def test_a_mask_is_faster_only_where_every_one_of_ten_turns_says_so(ratios, expected) -> None:
    assert speedup(timing(*[1.0] * len(ratios)), timing(*ratios), same_kernels=True) == pytest.approx(expected)


def test_a_smaller_network_that_is_slower_is_said_to_be_slower() -> None:
    assert speedup(timing(1.0, 1.0, 1.0), timing(0.8, 0.9, 0.7), same_kernels=False) == pytest.approx(0.8)


def test_percentiles_are_those_of_the_calls_and_need_enough_of_them() -> None:
    calls = tuple(float(i) for i in range(1, 102))
    many = timing(1.0, calls_s=calls)
    assert [many.percentile_s(percent) for percent in (50, 90, 99)] == [51.0, 91.0, 100.0]
    assert statistics.median(calls) == 51.0
    assert timing(1.0, calls_s=calls[:99]).percentile_s(99) is None and timing(1.0, calls_s=calls[:9]).percentile_s(90) is None


def test_the_protocol_names_batch_sizes_dtype_and_timer() -> None:
    told = protocol(CPU, torch.bfloat16, (1, 32))
    assert "bf16, batch 1 and 32;" in told and "perf_counter" in told


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("alone", [True, False])
def test_cuda_events_time_the_kernel_and_not_its_launch(alone: bool) -> None:
    device, work = torch.device("cuda"), torch.randn(4096, 4096, device="cuda")
    timed(lambda: work @ work, device, 3, alone=alone)
    one, three = (statistics.median(timed(lambda count=count: [work @ work for _ in range(count)], device, 20, alone=alone)) for count in (1, 3))
    assert 2.5 < three / one < 3.5


SKEWED = (1.0, 1.0, 1.0, 1.0, 9.0)  # median 1, mean 2.6


def test_the_time_of_a_call_is_the_median_of_turns_that_are_skewed() -> None:
    assert timing(*SKEWED, calls_s=(100.0,) * 5).median_s == 1.0


@pytest.mark.parametrize("same_kernels", [False, True])
def test_the_speed_up_is_the_median_of_turns_that_are_skewed(same_kernels: bool) -> None:
    own, dense = timing(*[1.0] * 10), timing(*(2.0 * turn for turn in SKEWED * 2))
    assert speedup(own, dense, same_kernels=same_kernels) == 2.0
    assert speedup(dense, own, same_kernels=False) == 0.5


def test_a_mask_that_is_faster_in_the_median_alone_is_not_faster() -> None:
    assert speedup(timing(*[1.0] * 10), timing(*[2.0] * 9, 1.0), same_kernels=True) == 1.0


def test_a_gpu_that_does_not_report_its_clock_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A MIG slice, and a virtual GPU without the right to read it."""
    import pynvml

    for code in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION):

        def refuse(device: torch.device, code: int = code) -> None:
            raise pynvml.NVMLError(code)

        monkeypatch.setattr(torch.cuda, "clock_rate", refuse)
        assert clock_mhz(torch.device("cuda", 0)) is None
    monkeypatch.setattr(torch.cuda, "clock_rate", lambda device: 1980)
    assert clock_mhz(torch.device("cuda", 0)) == 1980.0
