import pytest

from models.pruning.registry import METHODS, create_method, method_label


@pytest.mark.parametrize(
    ("name", "knobs", "label"),
    [
        ("dense", {}, "dense"),
        ("magnitude", {"sparsity": 0.9}, "magnitude(0.9)"),
        ("magnitude", {"sparsity": 0.9, "scope": "global"}, "magnitude(0.9)"),
        ("magnitude", {"scope": "layer", "sparsity": 0.9}, "magnitude(0.9, scope=layer)"),
        ("magnitude", {"sparsity": 0.5, "groups": ("in_proj", "mlp")}, "magnitude(0.5, groups=in_proj+mlp)"),
        ("dynamic", {"sparsity": 0.95, "schedule": "cubic", "interval": 4}, "dynamic(0.95, interval=4, schedule=cubic)"),
        ("iterative_magnitude", {"rounds": 3}, "iterative_magnitude(0.488, rounds=3)"),
        ("random", {"sparsity": 0.5, "at": "init"}, "random(0.5, at=init)"),
        ("semi_structured", {}, "semi_structured"),
    ],
)
def test_a_label_has_the_sparsity_and_what_differs_from_the_defaults(name, knobs, label):
    assert method_label(create_method(name, **knobs)) == label


def test_every_row_is_named_as_its_class_says():
    assert all(name == method.name for name, method in METHODS.items())


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("magnitud", {}, "unknown pruning method 'magnitud'; did you mean 'magnitude'.*dense, random, magnitude, dynamic"),
        ("magnitude", {"sparsty": 0.5}, "magnitude has no knob 'sparsty'; did you mean 'sparsity'.*groups, sparsity, scope"),
        ("dense", {"sparsity": 0.5}, "dense has no knob 'sparsity'.*rounds"),
        ("magnitude", {}, "magnitude needs sparsity"),
        ("magnitude", {"sparsity": 1.0}, r"sparsity must be in \[0, 1\), got 1"),
        ("magnitude", {"sparsity": -0.1}, r"sparsity must be in \[0, 1\), got -0.1"),
        ("magnitude", {"sparsity": 0.5, "groups": ("heads",)}, "unknown group 'heads'; did you mean 'head'"),
    ],
)
def test_a_mistake_is_named_with_what_is_valid(name, knobs, message):
    with pytest.raises(ValueError, match=message):
        create_method(name, **knobs)


def test_pydantic_checks_types_choices_and_ranges_of_knobs():
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(METHODS["magnitude"])
    assert adapter.validate_python({"sparsity": 0.5, "groups": ["mlp"]}) == create_method("magnitude", sparsity=0.5, groups=("mlp",))
    for wrong in ({"sparsity": "much"}, {"sparsity": 0.5, "scope": "all"}, {"sparsity": 1.5}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
