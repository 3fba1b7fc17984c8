import pytest

from models.pruning.sparsity_schedule import sparsity_at


@pytest.mark.parametrize(("p", "sparsity"), [(0.0, 0.2), (1 / 3, 0.35), (0.5, 0.5), (2 / 3, 0.65), (1.0, 0.8)])
def test_the_cosine_schedule_has_the_values_of_its_formula(p, sparsity):
    assert sparsity_at("cosine", p, 0.2, 0.8) == pytest.approx(sparsity, abs=1e-12)


@pytest.mark.parametrize(("p", "sparsity"), [(0.0, 0.0), (0.25, 0.9 * (1 - 27 / 64)), (0.5, 0.9 * 7 / 8), (0.75, 0.9 * 63 / 64), (1.0, 0.9)])
def test_the_cubic_schedule_has_the_values_of_zhu_and_gupta(p, sparsity):
    assert sparsity_at("cubic", p, 0.0, 0.9) == pytest.approx(sparsity, abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "cubic"])
def test_outside_its_course_a_schedule_holds_its_ends_exactly(schedule):
    assert sparsity_at(schedule, -0.1, 0.1, 0.7) == 0.1 and sparsity_at(schedule, 1.1, 0.1, 0.7) == 0.7


@pytest.mark.parametrize("schedule", ["cosine", "cubic"])
def test_a_schedule_never_falls(schedule):
    values = [sparsity_at(schedule, step / 100, 0.1, 0.95) for step in range(101)]
    assert values == sorted(values)
