"""The ranks of a job, and the DeepSpeed engine that trains a network on all of them.

DeepSpeed never compiles anything here: its shared-memory collective is switched off, and the optimizer is a torch or timm object.
"""

import atexit
import logging
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed import HashStore  # type: ignore[attr-defined]  # torch exports it, but not to type checkers
from torch.utils.hooks import RemovableHandle

from jobs.cluster.surroundings import forget_outer_ranks
from jobs.experiment.limits import batch_conflict, lamb_conflict
from jobs.experiment.specs import RecipeSpec
from jobs.parallel.bf16 import Masters, keep_statistics_in_fp32
from jobs.parallel.devices import check_own_gpus, check_slices, gpu_name, own_device
from jobs.parallel.losses import training_loss
from jobs.parallel.memory import keep_freed_memory
from jobs.parallel.rendezvous import meet
from models.layer_order import layer_scales
from models.without_compiler import start_optimizers, start_step

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

TIMEOUT = timedelta(minutes=10)  # a collective that waits longer for another rank fails
BUCKET_NUMEL = 50_000_000  # DeepSpeed's own default reserves 2 GB
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "tf32": torch.float32}
Term = Callable[[Tensor, Tensor, Tensor], Tensor]  # images, logits, the loss so far -> the loss with this term


class RendezvousError(RuntimeError):
    """The environment does not define where the other ranks are."""


class BatchError(ValueError):
    """The global batch cannot be cut into equal micro-batches."""


# ranks


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among all ranks. Every method is a collective: all ranks call it, or none."""

    rank: int
    local_rank: int  # within the node
    world: int
    device: torch.device
    done_together: ClassVar[bool] = False  # all ranks have reached the end of their job

    def finish(self) -> None:
        """To be called at the end of a job that went well: the ranks wait for each other, and may then leave their group. A collective."""
        self.barrier()
        Ranks.done_together = True

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank. It can be anything that pickles."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def barrier(self) -> None:
        """Returns when every rank has called it."""
        if self.world > 1:
            distributed.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def share(self, tensor: Tensor) -> Tensor:
        """Rank 0's `tensor` (contiguous, on `device`), on every rank, in place."""
        if self.world > 1:
            distributed.broadcast(tensor, src=0)
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` (any shape, on `device`), summed over ranks in place."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor


def rendezvous(threads: int, *, gpus: bool = False) -> Ranks:
    """This process's rank, after all ranks have met. torch computes with `threads` threads. A second call only returns the rank.

    `gpus`: the job was promised GPUs, so that without one this raises GpuMissing. Otherwise a rank without a GPU takes the CPU.

    The environment defines several ranks by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, as torchrun sets them. Our own jobs set
    MEETING_FILE instead of the last two: the file to which rank 0 writes its address. Without WORLD_SIZE, or with 1, there is a single rank, and no
    port is opened. Raises RendezvousError where a variable is missing, MeetingError where a rank is.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        forget_outer_ranks()  # DeepSpeed reads them too
    rank, local_rank = (rank_variable("RANK"), rank_variable("LOCAL_RANK")) if world > 1 else (0, 0)
    check_slices(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    device = own_device(local_rank, promised=gpus)
    if device.type == "cpu":
        keep_freed_memory()
    if not distributed.is_initialized():
        join_group(rank, world, "nccl" if device.type == "cuda" else "gloo")
        atexit.register(leave_group)
        if device.type == "cuda" and world > 1:
            check_own_gpus(distributed.distributed_c10d._get_default_store(), rank, world, gpu_name(device))
    return Ranks(rank=rank, local_rank=local_rank, world=world, device=device)


def rank_variable(name: str) -> int:
    """A number from the environment."""
    if name not in os.environ:
        remedy = "set RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, as torchrun does"
        raise RendezvousError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {name} is not set; {remedy}")
    return int(os.environ[name])


def join_group(rank: int, world: int, backend: str) -> None:
    """Makes torch's process group, whose ranks meet as `rendezvous` says."""
    if world == 1:
        distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=TIMEOUT)
        return
    if "MEETING_FILE" in os.environ:
        one_node = os.environ.get("NNODES", "1") == "1"
        store = meet(Path(os.environ["MEETING_FILE"]), rank=rank, world=world, one_node=one_node, timeout=TIMEOUT)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RendezvousError(f"WORLD_SIZE is {world} but {' and '.join(missing)} is not set; give the address and a free port of rank 0's host")
    distributed.init_process_group(backend, init_method="env://", rank=rank, world_size=world, timeout=TIMEOUT)


def leave_group() -> None:
    """Ends gloo's threads before the interpreter ends, because threads that are left then sometimes abort the process.

    NCCL would wait here for a collective that a failed rank never joins, so its group is left only once all ranks have said that they are done.
    """
    if distributed.is_initialized() and (distributed.get_backend() == "gloo" or Ranks.done_together):
        distributed.destroy_process_group()


# DeepSpeed


def load_deepspeed() -> ModuleType:
    """The deepspeed module, which prints no messages and compiles nothing at run time."""
    os.environ.setdefault("LOCAL_RANK", "0")  # deepspeed.initialize does not start without it
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")  # DeepSpeed calls torch by older names, at every step
    import deepspeed
    from deepspeed import ops
    from deepspeed.runtime import compiler

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # DeepSpeed believes that it can compile nothing. Otherwise it would run the compiler to find out, and then build a collective of its own.
    ops.__compatible_ops__ = defaultdict(bool)
    # ZeRO decorates an optimizer that is not used here with this function, which imports torch's compiler: four CPU seconds of each rank.
    compiler.compile = lambda *_, **__: lambda function: function
    module: ModuleType = deepspeed
    return module


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How the images of one optimizer step are divided: `batch = ranks x accumulation x micro`."""

    micro: int  # images of one forward pass of one rank
    accumulation: int  # forward passes before the optimizer steps


def batching(recipe: RecipeSpec, world: int) -> Batching:
    """The micro-batches of a recipe on `world` ranks. Raises BatchError, with the numbers, where the batch cannot be divided equally."""
    if conflict := batch_conflict(recipe.batch_size, recipe.micro_batch_size, world):
        raise BatchError(f"batch_size {conflict}")
    micro = recipe.micro_batch_size or recipe.batch_size // world
    return Batching(micro=micro, accumulation=recipe.batch_size // (world * micro))


class Engine:
    """A network in training on all ranks: DeepSpeed's engine, the torch optimizer within it, and one step of both."""

    def __init__(self, model: nn.Module, recipe: RecipeSpec, *, no_decay: Iterable[str], ranks: Ranks) -> None:
        """Takes `model` over: DeepSpeed casts and shards its weights as the recipe says. `no_decay`: parameters without weight decay."""
        self.ranks, self.recipe, self.batching = ranks, recipe, batching(recipe, ranks.world)
        self._loss = training_loss(recipe)
        # DeepSpeed's ZeRO optimizers step once with zero gradients to allocate their state. At a rate of 0 this leaves the weights unchanged.
        model = model.to(ranks.device)
        optimizer = make_optimizer(model, recipe, frozenset(no_decay))
        self.masters: Masters | None = None
        if recipe.dtype == "bf16":
            keep_statistics_in_fp32(model)
            if recipe.zero_stage == 0:
                self.masters = Masters(optimizer, clip_grad=largest_norm(recipe), by_layer=recipe.optimizer == "lamb", ranks=ranks)
        deepspeed = load_deepspeed()
        self.deepspeed: DeepSpeedEngine = deepspeed.initialize(
            args=SimpleNamespace(device_rank=ranks.device.index or 0),
            model=model,
            optimizer=optimizer if self.masters is None else self._get_masters,
            config=deepspeed_config(model, recipe, self.batching, ranks.world),
        )[0]
        if self.masters:
            self.deepspeed.enable_backward_allreduce = False
        self.module: nn.Module = self.deepspeed.module
        wrapper = self.deepspeed.optimizer
        self.optimizer: torch.optim.Optimizer = getattr(wrapper, "optimizer", wrapper)
        self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group.pop("step", None)

    def _get_masters(self, _: object) -> Masters | None:
        """What DeepSpeed calls for an optimizer of another kind than torch's."""
        return self.masters

    def forward_backward(self, images: Tensor, targets: Tensor, *, last: bool, terms: Sequence[Term] = ()) -> Tensor:
        """The loss, a detached scalar, of one micro-batch. `last`: the last one of its step.

        images (b, 3, H, W) float32; targets (b,) int64, or (b, classes) float32 with the smoothing in them. `terms` change the loss, one by one; they
        get the images in the dtype of the training.
        """
        images = images.to(self.ranks.device, DTYPES[self.recipe.dtype], non_blocking=True)
        logits = self.deepspeed(images)
        loss = self.loss(logits, targets.to(self.ranks.device, non_blocking=True))
        for term in terms:
            loss = term(images, logits.float(), loss)
        self.deepspeed.backward(loss)
        if self.masters:
            self.masters.collect(last=last)
        if not last:
            self.deepspeed.step()  # DeepSpeed counts micro-batches in step(); only the last one updates the weights
        return loss.detach()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a micro-batch, a scalar: logits (b, classes) of any dtype, targets as in `forward_backward`."""
        return self._loss(logits.float(), targets)

    def step(self, lr: float) -> bool:
        """Updates the weights at learning rate `lr`. False where the gradient was not finite; the weights may then be unusable."""
        norm = self.update(lr)
        return norm is None or is_norm(float(norm))

    def update(self, lr: float) -> Tensor | float | None:
        """`step`, without waiting for the device: the norm of the gradient (see `is_norm`); None where DeepSpeed takes none."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self.deepspeed.step()
        norm: Tensor | float | None = self.deepspeed.get_global_grad_norm()
        return norm

    def after_optimizer_step(self, hook: Callable[[], None]) -> RemovableHandle:
        """Calls `hook` after the fp32 masters are updated and before DeepSpeed copies them to the parameters. Returns the handle that removes it."""
        return self.optimizer.register_step_post_hook(lambda *_: hook())

    def before_optimizer_step(self, hook: Callable[[], None]) -> RemovableHandle:
        """Calls `hook` before the fp32 masters are updated: once, or with ZeRO once for each group of them. Returns the handle that removes it."""
        return self.optimizer.register_step_pre_hook(lambda *_: hook())

    def close(self) -> None:
        """Frees DeepSpeed's buffers and hooks, so that one process can train several stages in turn."""
        self.deepspeed.destroy()
        restore_linear()


def is_norm(norm: float) -> bool:
    """False for the norm of a gradient that is not finite; DeepSpeed then returns -1."""
    return 0 <= norm < math.inf


def restore_linear() -> None:
    """Gives torch its linear function back. DeepSpeed replaces it in the whole process at ZeRO 3, and networks that run later would be slower."""
    from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses

    nn.functional.linear = getattr(InsertPostInitMethodToModuleSubClasses, "linear_bk", nn.functional.linear)


def make_optimizer(model: nn.Module, recipe: RecipeSpec, no_decay: frozenset[str]) -> torch.optim.Optimizer:
    """The recipe's optimizer. Its rate is 0, because every step sets it, times a group's `lr_scale`.

    Raises ValueError for lamb with ZeRO, and for layer_decay of a network without an order of layers.
    """
    start_optimizers()
    groups = parameter_groups(model, recipe, no_decay)
    if recipe.optimizer == "adamw":
        return start_step(torch.optim.AdamW(groups, lr=0.0, betas=recipe.betas, eps=recipe.opt_eps or 1e-8))
    if recipe.optimizer == "sgd":
        return start_step(torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.nesterov))
    if conflict := lamb_conflict(recipe):
        raise ValueError(f"{conflict}; set zero_stage: 0")
    from models.torchvision_shim import load_timm

    load_timm()
    from timm.optim.lamb import Lamb

    return Lamb(groups, lr=0.0, betas=recipe.betas, eps=recipe.opt_eps or 1e-6, max_grad_norm=None)  # DeepSpeed clips


def parameter_groups(model: nn.Module, recipe: RecipeSpec, no_decay: frozenset[str]) -> list[dict[str, Any]]:
    """The parameters, those with weight decay first; with layer_decay, a group for each layer and decay, with its `lr_scale`."""
    scales = layer_scales(model, recipe.layer_decay) if recipe.layer_decay is not None else {}
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, parameter in sorted(named, key=lambda pair: pair[0] in no_decay):
        decay = 0.0 if name in no_decay else recipe.weight_decay
        empty = {"params": [], "weight_decay": decay} | ({"lr_scale": scales[name]} if scales else {})
        groups.setdefault((name in no_decay, scales.get(name, 1.0)), empty)["params"].append(parameter)
    return list(groups.values())


def largest_norm(recipe: RecipeSpec) -> float | None:
    """The norm to which a recipe clips all gradients together; None where it does not."""
    return recipe.clip_grad if recipe.clip_mode == "norm" else None


def deepspeed_config(model: nn.Module, recipe: RecipeSpec, batches: Batching, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a recipe."""
    bucket = min(BUCKET_NUMEL, sum(parameter.numel() for parameter in model.parameters()) + world)
    bf16 = recipe.dtype == "bf16" and recipe.zero_stage > 0  # at stage 0 `Masters` takes DeepSpeed's part
    stage = 2 if bf16 and recipe.zero_stage == 1 else recipe.zero_stage  # at 1 DeepSpeed's fp32 sums cannot be reached; the results are the same
    sharding: dict[str, Any] = {"stage": stage, "overlap_comm": False, "reduce_bucket_size": bucket}
    if recipe.zero_stage == 3:
        sharding["stage3_prefetch_bucket_size"] = bucket
    config: dict[str, Any] = {
        "train_batch_size": recipe.batch_size,
        "train_micro_batch_size_per_gpu": batches.micro,
        "gradient_accumulation_steps": batches.accumulation,
        "gradient_clipping": 0.0 if recipe.dtype == "bf16" and not bf16 else largest_norm(recipe) or 0.0,
        "zero_optimization": sharding,
        "zero_allow_untested_optimizer": True,  # SGD
        "steps_per_print": None,
        "bf16": {"enabled": bf16, "check_grad_overflow": False},  # the norm tells of a gradient that is not finite, without a check of each parameter
        "timers": {"throughput": {"enabled": False}},  # it would wait for the GPU at the start and the end of every micro-batch
    }
    if bf16:
        config |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return config
