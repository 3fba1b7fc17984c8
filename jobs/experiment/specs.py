"""The settings that decide what a stage is. No torch: the launcher validates ten thousand cells with these.

The fields of `ModelSpec`, `DataSpec` and `RecipeSpec` decide a result and enter a cell's id (fields at their default are left out, so that a new
field keeps old ids). `ClusterSpec` says where a stage runs and on how many ranks; it never enters an id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

from jobs.experiment.ids import StageId
from jobs.experiment.sources import SOURCES, typed_options
from models.plugins.installed import installed_names
from models.pruning.base import Stage
from models.typed import ABOVE_0, Limit, RowOf

DENSE = "dense"  # as a teacher
PRETRAINED = ("pretrained", "pretrained_key")  # options that name weights
GPU_OPTIONS = ("gpus", "num_gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket")  # of submitit and sbatch


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model of `models.registry.MODELS` and the options that change it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str
    pretrained_sha256: str | None = None  # of the file that options name; it takes the place of the path in ids

    @property
    def architecture(self) -> dict[str, Any]:
        """The options of the network alone: those that decide its parameters, without the file that fills them."""
        return {key: value for key, value in self.options.items() if key not in PRETRAINED}


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A data set, how it is split, and how its images become tensors."""

    source: Annotated[str, RowOf(table=SOURCES, others=partial(installed_names, "data"))] = "digits"
    path: str | None = None  # cifar*, imagefolder: folder; huggingface, webdataset: folder or pattern; beton: the training file
    test_path: str | None = None  # beton: the test file; imagefolder: the test folder, default path/val; huggingface, webdataset: the test files
    test_labels: str | None = None  # imagefolder: a file that tells the class of each image of a test folder without class folders
    name: str | None = None  # takes the place of the paths in ids, so that two clusters can keep the set in different folders
    img_size: int | None = None  # pixels; None: the source's own
    val_fraction: float = 0.1  # of the training images, held out for validation
    split_seed: int = 0
    samples: int = 1024  # synthetic only: training images; the test set has a quarter as many
    classes: int = 10  # synthetic only
    loader: Literal["ffcv", "torch"] = "ffcv"
    augment: Literal["none", "shift", "crop"] = "none"  # shift: zero-pad and crop back; crop: random resized crop
    shift_px: int = 4
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = False  # horizontal, with probability 1/2
    eval_crop: float = 0.875  # fraction of the shorter side that evaluation keeps; 1.0 if images already have img_size
    interpolation: Literal["area", "bilinear", "bicubic"] = "area"  # how boxes are resized; the last two as PIL and timm do it
    decode: Literal["full", "scaled"] = "full"  # scaled: large training crops of JPEGs are decoded at 1/2, 1/4 or 1/8 of their size
    write_mode: Literal["raw", "jpg"] = "raw"  # how the .beton holds images that are larger than img_size; small ones are raw
    max_resolution: int | None = None  # pixels; larger images are shrunk when the .beton is written
    options: Any = None  # of a plug-in's source: an object of its dataclass, or a mapping, from which it is made

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", typed_options(self.source, self.options))


def image_size(data: DataSpec) -> int:
    """Width and height, in pixels, of the images that a network is given."""
    return SOURCES[data.source].img_size if data.img_size is None else data.img_size


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Knowledge distillation (Hinton et al., arXiv 1503.02531): loss = (1 - weight) * loss + weight * T^2 * KL(teacher at T, network at T)."""

    teacher: str  # dense: the trained network before its pruning, which every method's cells share; else a file of weights of the same architecture
    key: str | None = None  # the name of the weights in a file that holds several
    weight: Annotated[float, Limit(words="above 0 and at most 1", holds=lambda value: 0 < value <= 1)] = 0.5
    temperature: Annotated[float, ABOVE_0] = 1.0
    teacher_sha256: str | None = None  # of the file, which takes the place of its path in ids

    @property
    def file(self) -> str | None:
        """The path of the teacher's weights; None if the dense network teaches."""
        return None if self.teacher == DENSE else self.teacher


@dataclass(frozen=True, kw_only=True)
class RecipeSpec:
    """How a network is trained. Epochs and batch size are global: they do not depend on the number of ranks."""

    epochs: int = 12
    finetune_epochs: int = 4  # further epochs of every cell; the dense control trains them without a mask
    batch_size: int = 64  # images of one optimizer step, over all ranks and accumulated micro-batches
    micro_batch_size: int | None = None  # images of one forward pass of one rank; None: batch_size / ranks
    optimizer: Literal["adamw", "lamb", "sgd"] = "adamw"
    lr: float = 1.0e-3
    finetune_lr: float | None = None  # None: lr / 10
    min_lr: float = 1.0e-5
    lr_every: Literal["step", "epoch"] = "step"  # when the rate changes
    warmup_epochs: float = 1.0
    warmup_lr: float | None = None  # of the first step; None: its share of lr
    warmup_prefix: bool = True  # True: the cosine begins after the warm-up; False: with the first step, and the warm-up hides its beginning
    cooldown_epochs: int = 0  # of `epochs`, the last ones, at min_lr
    weight_decay: float = 0.05
    decay_ssm: bool = False  # True: A_log takes weight decay, as in the official runs, where timm ignored its mark; D is a vector and never does
    layer_decay: float | None = None  # factor of the rate from a layer to the layer below it; the head has the whole rate
    betas: tuple[float, float] = (0.9, 0.999)
    opt_eps: float | None = None  # adamw and lamb; None: the optimizer's own, 1e-8 and 1e-6
    momentum: float = 0.9  # sgd only
    nesterov: bool = False  # sgd only
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    bce_threshold: float | None = None  # bce only: targets above it become 1, the others 0
    bce_sum: bool = False  # bce only: the sum over classes instead of the mean
    label_smoothing: float = 0.1
    drop_path: float | None = None  # stochastic depth; None: the model's own rate
    clip_grad: float | None = 1.0  # largest norm, or largest value
    clip_mode: Literal["norm", "value"] = "norm"  # norm: of all gradients together; value: of each element
    ema: float | None = None  # decay of the averaged weights that are evaluated and saved; None: the last weights
    ema_warmup: Literal["tf", "timm", "none"] = "tf"  # how the decay grows to `ema`; see jobs.parallel.averaging.decay_at
    ema_buffers: bool = False  # True: BatchNorm's statistics are averaged with the weights
    distill: Distillation | None = None  # in every stage but the dense training
    mesa: float = 0.0  # weight of a term that holds the network to its average (self-distillation); it needs `ema`; 0: none
    mesa_start: float = 0.25  # fraction of the epochs, without the cool-down, after which the term counts
    mesa_loss: Literal["kl", "cross_entropy"] = "kl"  # see jobs.train.distillation
    dtype: Literal["fp32", "bf16", "tf32"] = "fp32"
    zero_stage: Literal[0, 1, 2, 3] = 0
    scan: Literal["auto", "cpu", "cuda", "triton", "reference"] = "auto"  # backend of the selective scan
    auto_augment: str | None = None  # timm's words, such as rand-m9-mstd0.5-inc1 or original
    color_jitter: float | None = None  # brightness, contrast and saturation change by a factor in 1 +- it; not beside auto_augment, as in timm
    random_erase: float = 0.0  # probability that rectangles of an image are erased
    random_erase_mode: Literal["pixel", "rand", "const"] = "pixel"  # normal noise in each pixel, in each rectangle, or zero
    random_erase_count: int = 1  # the greatest number of rectangles
    mixup: float = 0.0  # alpha: lambda ~ Beta(alpha, alpha); 0: none
    cutmix: float = 0.0  # alpha likewise
    mixup_prob: float = 1.0  # that a batch or pair is mixed at all
    mixup_switch_prob: float = 0.5  # that cutmix is chosen where both are on
    mixup_mode: Literal["batch", "pair"] = "batch"  # what shares a lambda
    mixup_off_epoch: int | None = None  # from this epoch on, nothing is mixed
    repeated_augment: int = 1  # times that an epoch shows each of its images, each time drawn anew; it then has fewer of them


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage of one or more cells. `id` is the hash of everything that decides the stage, its parents included."""

    id: StageId
    model: ModelSpec
    data: DataSpec
    recipe: RecipeSpec
    seed: int
    stage: Stage
    parent: StageId | None = None  # id of the stage whose exported weights (and masks) it starts from
    rewind: StageId | None = None  # id of the stage whose weights at the rewind step it takes, under the parent's masks
    teacher: StageId | None = None  # id of the stage whose exported network teaches it
    trials: tuple[tuple[StageId, ...], ...] = ()  # of a stage that trains nothing and chooses among these paths
    tuned: str = ""  # the tuned values that it trains with, in words; they are in `recipe` and decide nothing here

    @property
    def needed(self) -> tuple[StageId, ...]:
        """The stages that must be done before this one starts."""
        return tuple(stage for stage in (self.parent, self.rewind, self.teacher) if stage is not None)

    @property
    def before(self) -> tuple[StageId, ...]:
        """The stages that this one comes after: those that it needs, and the last ones of its trials, which may have failed."""
        return (*self.needed, *(path[-1] for path in self.trials))


@dataclass(frozen=True, kw_only=True)
class PrepareSpec:
    """The SLURM jobs that write data, on CPUs. What is None is that of the profile around it."""

    jobs: int = 4  # of an array; they share the shards of a data set
    cpus_per_task: int | None = None  # processes of a job; None: the CPUs that a training has on a node
    mem_gb: float | None = None
    timeout_min: int | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)  # partition, account, qos, constraint, ...


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """The image in which the tasks of SLURM jobs run. `jobs.experiment.containers` has the rules."""

    image: str  # the absolute path of a .sif (apptainer) or .sqsh (pyxis) file; pyxis also takes an image's name, which enroot imports
    runtime: Literal["pyxis", "apptainer"]
    mounts: tuple[str, ...] = ()  # folders and files that tasks see beside those of the run: SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro


@dataclass(frozen=True, kw_only=True)
class ProfileSpec:
    """Further ways to time a finished network: every combination of the values of its axes. The plain way is always measured too."""

    compile: tuple[bool, ...] = (False,)  # by torch.compile
    cuda_graphs: tuple[bool, ...] = (False,)  # launches captured once and replayed
    channels_last: tuple[bool, ...] = (False,)  # memory layout of images and convolution weights
    tf32: tuple[bool, ...] = ()  # of fp32 products and convolutions; empty: as the recipe trains
    dtype: tuple[Literal["fp32", "bf16", "fp16"], ...] = ("fp32",)


@dataclass(frozen=True, kw_only=True)
class NotifySpec:
    """A command that tells somebody of a launch."""

    command: str  # for /bin/sh, run in the folder from which the grid was launched
    on: tuple[Literal["end", "first_failure"], ...] = ("end", "first_failure")  # the events, for each of which it is run once
    timeout_s: float = 60.0  # seconds after which it is ended


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """Where stages run. Names are submitit's; `slurm` holds further parameters of submitit's SLURM executor, unchanged."""

    kind: Literal["local", "debug", "slurm"] = "local"  # debug: in the launcher's own process
    max_parallel: int | None = None  # local: jobs at a time, None: as many as the cores hold; slurm: array_parallelism
    nodes: int = 1
    tasks_per_node: int = 1  # ranks; on GPUs, each has one
    cpus_per_task: int = 1  # torch's and the loader's threads
    gpus_per_node: int = 0
    mem_gb: float | None = None
    timeout_min: int = 24 * 60
    stages_per_job: int = 1  # stages that one process runs in sequence, so that it starts only once
    checkpoint_steps: int | None = None  # optimizer steps between checkpoints, besides the one after each epoch
    profile_s: float = 2.0  # for timing each finished network beside its dense one; more seconds give more exact figures
    profile_batch: int = 32  # images of the batch whose throughput is measured
    profile: ProfileSpec | None = None  # further measuring protocols of every finished network; None: none
    container: ContainerSpec | None = None  # slurm: the image in which the tasks of the jobs run; None: the nodes' own system
    setup: tuple[str, ...] = ()  # slurm: shell lines before the job
    environment: Mapping[str, str] = field(default_factory=dict)  # slurm: variables of the job
    slurm: Mapping[str, Any] = field(default_factory=dict)  # partition, account, qos, constraint, gres, exclude, ...
    cache: str = "~/.cache/vssm-bench"  # .beton files
    cache_local: str | None = None  # folder of a node's own disk, to which .beton files are copied before they are read; $NAME is the node's
    prepare: PrepareSpec | None = None  # slurm: the jobs that write data; None: PrepareSpec()
    notify: NotifySpec | None = None  # a command that is run when all jobs have ended, or when a stage has failed; None: none
    hash_data: bool = False  # True: every job reads all files of a data set to see whether they changed; False: size and time of change tell

    @property
    def ranks(self) -> int:
        """Processes of one job."""
        return self.nodes * self.tasks_per_node

    @property
    def promised_gpus(self) -> bool:
        """True if the jobs ask for GPUs, here or in SLURM's own words (gres, gpus_per_task, ...). Such a job never computes on the CPU instead."""
        if self.kind != "slurm":
            return self.gpus_per_node > 0
        given = {**self.slurm, **(self.slurm.get("additional_parameters") or {})}
        options = {name.removeprefix("slurm_").replace("-", "_"): str(value) for name, value in given.items() if value}
        counted = any(options.get(name, "0") != "0" for name in GPU_OPTIONS)
        return self.gpus_per_node > 0 or counted or any("gpu" in options.get(name, "") for name in ("gres", "tres_per_node", "tres_per_task"))
