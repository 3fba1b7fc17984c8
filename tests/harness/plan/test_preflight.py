"""The problems that the login node reports after the grid has been read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models.registry
from harness.grid.read import Grid, read_grid
from harness.plan.preflight import check_machine, model_problems, preflight
from models.registry import create_model
from models.ssm import kernel
from tests.support.fake_slurm import FakeSlurm
from tests.support.images import write_folder

START = "name: t\nseeds: [0]\nrecipe: {epochs: 2}\n"  # lines 1 to 3


def read(folder: Path, text: str, start: str = START) -> Grid:
    path = folder / "grid.yaml"
    path.write_text(start + text)
    return read_grid(path)


def problems(folder: Path, text: str) -> list[str]:
    """Problems without the folder's name."""
    grid = read(folder, text)
    return [line.removeprefix(f"{folder}/") for line in preflight(grid, grid.cells).problems]


PROBLEMS = {
    "a network of timm's that cannot be built": (
        "models: [{name: timm/test_vit, num_heads: 5}]\npruning: [dense]",
        "grid.yaml:4: models[0]: model timm/test_vit(num_heads=5): timm does not build it for images of 32 px with num_heads 5: ",
    ),
    "a network of timm's that gives maps": (
        "models: [{name: timm/test_convnext, global_pool: ''}]\npruning: [dense]",
        "grid.yaml:4: models[0]: model timm/test_convnext(global_pool=): timm/test_convnext gives an output of shape 1 x 10 x 1 x 1, not",
    ),
    "images that are too small for one of timm's": (
        "models: [timm/inception_v4]\npruning: [dense]",
        "grid.yaml:4: models[0]: model timm/inception_v4: timm/inception_v4 does not run on images of 32 px: ",
    ),
    "group that is not there": (
        "models: [vim_micro]\npruning:\n- dense\n- {method: magnitude, sparsity: 0.5, groups: [attention]}",
        "grid.yaml:7: pruning[1]: magnitude(0.5, groups=attention) on vim_micro: the model has no parameter in attention; it has A_log,",
    ),
    "a layer without a weight": (
        "models: [vim_micro]\npruning: [{method: magnitude, sparsity: 0.9999, scope: layer, groups: [conv1d, in_proj]}]",
        "grid.yaml:5: pruning[0]: magnitude(0.9999, groups=conv1d+in_proj, scope=layer) on vim_micro: "
        "sparsity 0.9999 of every layer drops all 512 weights of 'layers.0.mixer.conv1d.weight' and 7 more: lower the sparsity",
    ),
    "ERK without a weight": (
        "models: [vim_micro]\npruning: [{method: rigl, sparsity: 0.9999}]",
        "grid.yaml:5: pruning[0]: rigl(0.9999) on vim_micro: sparsity 0.9999 with distribution: erk drops all ",
    ),
    "2:4 without a matrix": (
        "models: [vim_micro]\npruning: [{method: semi_structured, groups: [conv1d, patch_embed]}]",
        "grid.yaml:5: pruning[0]: semi_structured(groups=conv1d+patch_embed) on vim_micro: 0 of 9 prunable parameters are matrices whose inputs are "
        "a multiple of 4: patch_embed.proj.weight (",
    ),
    "short rows": (
        "models: [vim_micro]\npruning: [{method: wanda, sparsity: 0.9, groups: [conv1d]}]",
        "grid.yaml:5: pruning[0]: wanda(0.9, groups=conv1d) on vim_micro: sparsity 0.9 is out of reach: 3072 of 4096 prunable weights, 0.75, can go",
    ),
    "too many rounds": (
        "models: [vim_micro]\npruning: [{method: iterative_magnitude, rounds: 60, groups: [dt_proj]}]",
        "grid.yaml:5: pruning[0]: iterative_magnitude(0.999998, groups=dt_proj, rounds=60) on vim_micro: "
        "round 34 of 60 would drop 0 of the 2 weights that are left of 4096",
    ),
    "a group without a unit": (
        "models: [mambavision_micro]\npruning: [{method: structured, ratio: 0.9}]",
        "grid.yaml:5: pruning[0]: structured(ratio=0.9) on mambavision_micro: ratio 0.9 removes all 4 units of levels.2.blocks.2.mixer.heads, and "
        "one stays, so that ratio must be below 0.875",
    ),
    "more units than there are": (
        "models: [mambavision_micro]\npruning: [{method: early_bird, ratio: 0.9, units: [heads]}]",
        "grid.yaml:5: pruning[0]: early_bird(ratio=0.9, units=heads) on mambavision_micro: ratio 0.9 removes 14 of the network's 16 units, and "
        "one of each of its 3 groups stays, so that ratio can be at most 0.812",
    ),
    "units that are not there": (
        "models: [vim_micro]\npruning: [{method: structured, ratio: 0.5, units: [heads, mlp]}]",
        "grid.yaml:5: pruning[0]: structured(ratio=0.5, units=heads+mlp) on vim_micro: the network has no units of the kinds heads, mlp",
    ),
    "an image that does not fit": (
        "models:\n- {name: vim_micro, patch_size: 64}\npruning: [dense]",
        "grid.yaml:5: models[0]: model vim_micro(patch_size=64): patch_size 64 is larger than the image, 32 px",
    ),
    "weights that are not there": (
        "models:\n- name: vim_micro\n  pretrained: seed0/best.pth\npruning: [dense]",
        "grid.yaml:6: models[0].pretrained: there is no file ",
    ),
    "files that are not there": (
        "data:\n- {source: cifar10, path: /nowhere}\nmodels: [vim_micro]\npruning: [dense]",
        "grid.yaml:5: data[0]: ",
    ),
}


def test_batches_and_rewinds_are_held_against_the_images_that_a_folder_has(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_folder(tmp_path / "images" / part, count=10)
    text = """data: {source: imagefolder, path: images, img_size: 32, val_fraction: 0.2}
recipe: [{epochs: 2, batch_size: 17}, {epochs: 2, batch_size: 16}]
models: [vim_micro]
pruning: [dense, {method: iterative_magnitude, rounds: 2, rewind_step: 3}]"""
    grid = read(tmp_path, text, start="name: t\nseeds: [0, 1]\n")
    assert preflight(grid, grid.cells).problems == [
        f"{tmp_path}/grid.yaml:4: recipe[0].batch_size: 17 is more than the 16 training images of imagefolder (val_fraction 0.2 is held out); "
        "use at most 16",
        f"{tmp_path}/grid.yaml:6: pruning[1].rewind_step: rewinds to step 3, but train ends at step 2 (on the 16 training images of imagefolder)",
    ]


def test_notes_on_data_have_their_line(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_folder(tmp_path / "images" / part, count=10)
    (tmp_path / "images" / "train" / "cat" / "a.gif").touch()
    text = "data:\n- {source: imagefolder, path: images, img_size: 32}\nrecipe: {batch_size: 4}\nmodels: [vim_micro]\npruning: [dense]"
    grid = read(tmp_path, text, start="name: t\nseeds: [0]\n")
    (note,) = preflight(grid, grid.cells).notes
    assert note.startswith(f"{tmp_path}/grid.yaml:4: data[0]: note: {tmp_path}/images/train: files that are not read") and note.endswith("1 .gif")


@pytest.mark.parametrize(("text", "start"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_a_network_or_this_machine_cannot_do_is_refused_with_its_line_and_numbers(tmp_path: Path, text: str, start: str) -> None:
    lines = problems(tmp_path, text)
    assert lines and all(line.startswith(start) for line in lines), lines  # of a data set, a line for each file that is not there


def test_what_can_be_reached_passes(tmp_path: Path) -> None:
    methods = "".join(f", {{method: {name}, sparsity: [0.5, 0.9, 0.95]}}" for name in ("random", "magnitude", "dynamic", "gradient", "rigl", "wanda"))
    models = "[vim_micro, {name: vim_micro, s5: true}, mambavision_micro, {name: mambavision_micro, attention_pool: true}, vit_micro]"
    more = ", {method: random, sparsity: 0.9, ratios: erk}, {method: iterative_magnitude, rounds: 13}, semi_structured"
    assert problems(tmp_path, f"models: {models}\npruning: [dense{methods}{more}]") == []


def test_ten_thousand_cells_build_each_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import models.registry

    built: list[str] = []
    create = models.registry.create_model
    monkeypatch.setattr(models.registry, "create_model", lambda name, *given, **options: built.append(name) or create(name, *given, **options))
    sparsities = ", ".join(str(n / 100) for n in range(1, 51))
    grid = read(tmp_path, f"models: [vim_micro, vit_micro]\npruning: {{method: [magnitude, rigl], sparsity: [{sparsities}]}}\n")
    cells = grid.cells * 50
    assert len(cells) == 10_000
    assert model_problems(grid, cells) == []
    assert built == ["vim_micro", "vit_micro"]


def saved(folder: Path, content: object) -> None:
    torch.save(content, folder / "w.pth")


WEIGHTS: dict[str, tuple[Callable[[], object], str]] = {
    "of another depth": (lambda: create_model("vim_micro", 10, depth=3).state_dict(), "w.pth does not fit the model: missing layers.3."),
    "of whole numbers": (
        lambda: {name: tensor.int() for name, tensor in create_model("vim_micro", 10).state_dict().items()},
        "w.pth: cls_token is int32, and weights must be",
    ),
    "none": (lambda: {"epoch": 3}, "w.pth holds no state dict"),
}


@pytest.mark.parametrize(("content", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit_are_refused_with_their_line(tmp_path: Path, content: Callable[[], object], message: str) -> None:
    saved(tmp_path, content())
    (line,) = problems(tmp_path, "models: [{name: vim_micro, pretrained: w.pth}]\npruning: [dense]")
    assert line.startswith(f"grid.yaml:4: models[0]: model vim_micro(pretrained=w.pth): pretrained: {tmp_path}/{message}")


def test_weights_that_fit_pass(tmp_path: Path) -> None:
    saved(tmp_path, create_model("vim_micro", 1000).state_dict())
    assert problems(tmp_path, "models: [{name: vim_micro, pretrained: w.pth}]\npruning: [dense]") == []


def test_a_folder_is_no_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "w.pth").mkdir()
    (line,) = problems(tmp_path, "models: [{name: vim_micro, pretrained: w.pth}]\npruning: [dense]")
    assert line == f"grid.yaml:4: models[0].pretrained: {tmp_path}/w.pth is a folder: give the file in it"


def test_a_network_is_planned_where_its_weights_are_not(tmp_path: Path) -> None:
    grid = read(tmp_path, "models: [{name: vim_micro, pretrained: w.pth}]\npruning: [dense]")
    assert model_problems(grid, grid.cells) == []  # as a dry run does on a machine without the cluster's files
    assert len(check_machine(grid, grid.cells).problems) == 1


@pytest.mark.parametrize("error", [AttributeError("no attribute 'x'"), RuntimeError("shapes\nclash"), TypeError()])
def test_a_row_that_cannot_be_built_is_a_problem_with_its_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def build(*given: object) -> None:
        raise error

    monkeypatch.setitem(models.registry.MODELS, "vim_micro", replace(models.registry.MODELS["vim_micro"], build=build))
    (line,) = problems(tmp_path, "models: [vim_micro, vit_micro]\npruning: [dense]")
    message = " ".join(str(error).split()) or "no message"
    assert line.startswith(f"grid.yaml:4: models[0]: model vim_micro: cannot be built: {type(error).__name__}: {message} (in {__file__}, line ")


def test_a_row_whose_weight_decay_cannot_be_told_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Undecided(torch.nn.Linear):
        no_weight_decay = 3

    monkeypatch.setitem(models.registry.MODELS, "vit_micro", replace(models.registry.MODELS["vit_micro"], build=lambda *given: Undecided(2, 2)))
    (line,) = problems(tmp_path, "models: [vit_micro]\npruning: [dense]")
    assert line.startswith("grid.yaml:4: models[0]: model vit_micro: cannot be built: TypeError: ")


def test_layer_decay_needs_an_order_of_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "models: [vim_micro, vit_micro]\npruning: [dense]"
    monkeypatch.setitem(models.registry.MODELS, "vit_micro", replace(models.registry.MODELS["vit_micro"], build=lambda *given: torch.nn.Linear(2, 2)))
    path = tmp_path / "grid.yaml"
    path.write_text(f"name: t\nseeds: [0]\nrecipe:\n  layer_decay: 0.7\n{text}")
    grid = read_grid(path)
    (line,) = model_problems(grid, grid.cells)
    assert line.startswith(f"{path}:4: recipe.layer_decay: vit_micro: layer_decay needs a network whose blocks have numbers")


def test_a_cache_that_cannot_be_there_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = "models: [vim_micro]\npruning: [dense]\n"
    (tmp_path / "file").touch()
    (line,) = problems(tmp_path, f"{cells}cluster: {{kind: local, cache: {tmp_path}/file/cache}}")
    assert line == (
        f"grid.yaml: cluster.cache: {tmp_path}/file/cache cannot hold data: {tmp_path}/file is no folder: "
        "set cluster.cache to a folder that can be written"
    )
    (line,) = problems(tmp_path, f"{cells}cluster: {{kind: local, cache: ~nobody-of-this-name/cache}}")
    assert "~nobody-of-this-name/cache: the system knows no such home folder" in line
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    (line,) = problems(tmp_path, f"{cells}cluster: {{kind: local, cache: {tmp_path}/new/cache}}")
    assert f"{tmp_path} cannot be written: set cluster.cache" in line


def test_a_containers_image_that_is_not_there_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.preflight.scheduler_problems", lambda cluster: [])
    container = f"{{kind: slurm, container: {{image: {tmp_path}/vssm.sif, runtime: apptainer}}}}"
    (line,) = problems(tmp_path, f"models: [vim_micro]\npruning: [dense]\ncluster: {container}")
    assert line.startswith(f"grid.yaml: cluster.container.image: {tmp_path}/vssm.sif is not there")


def test_without_a_home_folder_the_cache_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)  # as in a container that runs with a number that is no user's
    (line,) = problems(tmp_path, "models: [vim_micro]\npruning: [dense]")
    assert line == (
        "grid.yaml: cluster.cache: ~/.cache/vssm-bench: the system knows no such home folder (HOME is not set): "
        "set HOME, or cluster.cache to a folder that can be written"
    )
    assert problems(tmp_path, f"models: [vim_micro]\npruning: [dense]\ncluster: {{kind: local, cache: {tmp_path}}}") == []


def test_more_gpus_than_the_machine_has_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.cluster.gpus.installed_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    (line,) = problems(tmp_path, "models: [vim_micro]\npruning: [dense]\ncluster: {kind: local, gpus_per_node: 2, tasks_per_node: 2}")
    assert line == "grid.yaml: cluster.gpus_per_node: a job needs 2, and this machine has 1, by CUDA_VISIBLE_DEVICES='1' and NVML"


def test_a_teachers_file_is_there_and_fits(tmp_path: Path) -> None:
    def lines(model: str) -> list[str]:
        (tmp_path / "grid.yaml").write_text(f"name: t\nseeds: [0]\nrecipe: {{distill: {{teacher: w.pth}}}}\nmodels: [{model}]\npruning: [dense]\n")
        grid = read_grid(tmp_path / "grid.yaml")
        return preflight(grid, grid.cells).problems

    (line,) = lines("vim_micro")
    assert line.startswith(f"{tmp_path}/grid.yaml:3: recipe.distill.teacher: there is no file ") and line.endswith("; or write `teacher: dense`")
    saved(tmp_path, create_model("vim_micro", 10).state_dict())
    assert lines("vim_micro") == []
    (line,) = lines("vit_micro")
    assert line.startswith(f"{tmp_path}/grid.yaml:3: recipe.distill.teacher: vit_micro: {tmp_path}/w.pth does not fit the model: missing ")


def test_a_kernel_that_does_not_load_is_a_problem_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_kernel.so").write_bytes(b"no library")
    monkeypatch.setattr(kernel, "kernel_path", lambda variant: tmp_path / "_kernel.so")
    monkeypatch.setattr(kernel, "load_kernel", kernel.load_kernel.__wrapped__)
    (line,) = problems(tmp_path, "models: [vim_micro]\npruning: [dense]\ncluster: {kind: local}")
    assert line.startswith(f"grid.yaml: recipe.scan: {tmp_path}/_kernel.so does not load (") and "scan: reference" in line


def test_positions_that_will_be_resampled_are_told_before_anything_is_queued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, create_model("vim_micro", 7, 64).state_dict())
    assert problems(tmp_path, "models: [{name: vim_micro, pretrained: w.pth}]\npruning: [dense, {method: magnitude, sparsity: 0.5}]") == []
    notes = capsys.readouterr().err.splitlines()
    told = "models[0].pretrained: note: vim_micro(pretrained=w.pth): position embeddings were resampled from 16 x 16 to 8 x 8 patches, bicubic"
    assert notes == [f"{tmp_path}/grid.yaml:4: {told}"]


def test_a_file_without_a_head_needs_an_epoch_that_trains_one(tmp_path: Path) -> None:
    saved(tmp_path, {name: weight for name, weight in create_model("vim_micro", 7).state_dict().items() if not name.startswith("head")})
    path = tmp_path / "grid.yaml"
    path.write_text("""
name: t
seeds: [0]
models: [{name: vim_micro, pretrained: w.pth}]
pruning: [dense]
recipe: {epochs: 0, finetune_epochs: [1, 0]}
""")
    grid = read_grid(path)
    assert preflight(grid, [cell for cell in grid.cells if cell.recipe.finetune_epochs]).problems == []
    (line,) = preflight(grid, grid.cells).problems
    assert "the head is fresh, because the file has none, and no epoch trains it: give a file with a head, or raise finetune_epochs" in line


def test_slurm_is_asked_about_jobs_of_every_size_and_the_entry_is_named(tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.preflight.has_slurm", lambda: True)
    slurm.says("sinfo", "main|4|5000|(null)")
    slurm.says("scontrol", "PartitionName=main Default=YES State=UP MaxTime=01:00:00 MaxNodes=UNLIMITED TotalNodes=2")
    long = "models:\n- vim_micro\n- {name: vit_micro, cluster: {timeout_min: 600}}\npruning: [dense]\ncluster: {kind: slurm, timeout_min: 60}\n"
    assert problems(tmp_path, long) == ["grid.yaml:6: models[1].cluster.timeout_min: 600 minutes asked for; main up to 60; no partition has more"]
    assert len(slurm.calls("sbatch")) == 1, "the profile was tried as a whole"


def test_jobs_of_minutes_are_told_to_leave_checkpoints_in_time(tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.preflight.has_slurm", lambda: True)
    monkeypatch.setattr("harness.plan.preflight.scheduler_problems", lambda cluster: [])
    text = "models: [{name: vit_micro, cluster: {timeout_min: 10}}]\npruning: [dense]\ncluster: {kind: slurm}\n"
    grid = read(tmp_path, text)
    (note,) = check_machine(grid, grid.cells).notes
    assert "grid.yaml:4: models[0]: note: jobs end after 10 min and are queued again" in note and note.endswith("or set checkpoint_steps")
    grid = read(tmp_path, text.replace("10}", "10, checkpoint_steps: 50}"))
    assert not check_machine(grid, grid.cells).notes


def test_a_scheduler_out_of_reach_is_told_once_however_many_sizes_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.preflight.scheduler_problems", lambda cluster: ["cluster: SLURM's controller does not answer"])
    text = "models: [vim_micro, {name: vit_micro, cluster: {mem_gb: 9}}]\npruning: [dense]\ncluster: {kind: slurm}\n"
    assert problems(tmp_path, text) == ["grid.yaml: cluster: SLURM's controller does not answer"]
