"""A network in training: its engine, the masks and averages of its weights, the units removed from it, and a whole fp32 copy."""

import copy
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from jobs.experiment.specs import StageSpec
from jobs.parallel.averaging import Average
from jobs.parallel.checkpoints import restore_training, training_state
from jobs.parallel.engine import Engine, Ranks, Term
from jobs.parallel.fragments import Fragments
from jobs.parallel.masking import Masking
from jobs.parallel.snapshot import Snapshot
from jobs.train.distillation import MESA_LOSSES, FrozenNetwork, distilled, mesa_counts
from jobs.train.removal import Removal
from models.blocks import without
from models.pruning.base import NetworkView, Solve
from models.pruning.inputs import InputNorms
from models.pruning.masks import living
from models.pruning.products import visit_layers
from models.pruning.state_votes import StateImportance
from models.pruning.structure import Structure
from models.pruning.structure_json import structure_from_json, structure_to_json


class Batches(Protocol):
    """Micro-batches of this rank: images (b, 3, H, W) float32, labels (b,) int64."""

    steps_per_epoch: int

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Tensor]]:
        """The micro-batches of one epoch, from optimizer step `first_step` on."""


class Samples(Protocol):
    """This rank's part of a split; each sample is on one rank alone."""

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (b, 3, H, W) float32, labels (b,) int64."""


class TrainedNetwork:
    """The network of one stage on all ranks, and the view of it that the stage's method gets. Its methods are collectives."""

    def __init__(
        self, spec: StageSpec, model: nn.Module, training: Batches, *, no_decay: list[str], ranks: Ranks, teacher: nn.Module | None = None
    ) -> None:
        """Takes `model` over. `training`: batches on which a method may calibrate. `no_decay`: parameters without weight decay.

        teacher: of the recipe's distillation.
        """
        self.spec, self.training, self.ranks = spec, training, ranks
        self.removal = Removal(spec, model)
        self.no_decay = [*no_decay, *self.removal.gates.values()]
        self.snapshot = Snapshot(copy.deepcopy(model), ranks)
        self.teacher = None if teacher is None else FrozenNetwork(teacher.to(ranks.device), spec.recipe)
        self.pruned = False  # by this stage's method, since the process began
        self._set_up(model)
        self.calibration: Mapping[str, Tensor] | None = None  # gradients by parameter, while a method calibrates
        self.view = self._view()

    def _set_up(self, model: nn.Module) -> None:
        """Builds the engine, which takes `model` over, and the objects that work on it."""
        method = self.spec.stage.method
        self.engine = Engine(model, self.spec.recipe, no_decay=self.no_decay, ranks=self.ranks)
        self.fragments = Fragments(self.engine)
        self.masking = Masking(self.engine, self.fragments, keeps_dense=method is not None and method.keeps_dense)
        self.average: Average | None = None
        self.averaged: FrozenNetwork | None = None  # the network of the average, where the recipe holds the network in training to it

    def _average(self) -> Average | None:
        recipe = self.spec.recipe
        if recipe.ema is None:
            return None
        warmup = recipe.ema_warmup if self.spec.stage.schedule == "train" else "tf"
        return Average(recipe.ema, self.fragments, self.masking, warmup=warmup, buffers=recipe.ema_buffers)

    def _view(self) -> NetworkView | None:
        method = self.spec.stage.method
        if method is None:
            return None
        from models.pruning.knobs import groups_of
        from models.pruning.scope import prunable_names

        return NetworkView(
            names=prunable_names(self.snapshot.model, groups_of(method)),
            module=self.snapshot.model,
            seed=self.spec.seed,
            losses=self.losses,
            say=self.say,
            read_weight=lambda name: self.masking.weight(name),  # of the current engine: removing units makes a new one
            read_gradient=lambda name: self.gradient(name),
            input_norms=self.input_norms,
            rewrite=self.rewrite,
            state_importance=self.state_importance,
            apply=self.apply_masks,
            groups=self.removal.groups,
            gates=self.removal.gates,
            remove=self.remove_units,
            add_l1=lambda name, strength: self.fragments.add_l1(name, strength),
        )

    # For a stage and its method

    def begin(self, masks: Mapping[str, Tensor]) -> None:
        """Starts training from the weights and buffers of the copy, under `masks`."""
        self.snapshot.copy_buffers_to(self.engine.module)
        self.fragments.write(self.snapshot.weights())
        self.masking.apply(masks)
        self.average = self._average()
        if self.view is not None:
            self.view.masks = self.view.inherited = dict(self.masking.masks)

    def apply_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Replaces the masks, in the averaged weights too."""
        self.pruned = True
        self.masking.apply(masks)
        if self.average is not None:
            self.masking.zero(self.average.flats)

    def inherit(self, structure: Structure, *, finished: bool = False) -> None:
        """Makes the whole network as small as a stage before this one left it. `finished`: this stage's method has removed its units too."""
        self.removal.inherit(self.snapshot.model, structure, finished=finished)
        self._rebuild({})

    def remove_units(self, structure: Structure) -> None:
        """Removes units and goes on with the smaller network, on the same schedule. Masks lose what belongs to the units. Optimizer and averages
        start anew. Raises ValueError if the stage's method has removed units before.
        """
        self.pruned = True
        self.copy_weights()
        assert self.view is not None
        masks, inherited = (self.removal.cut(self.snapshot.model, structure, given) for given in (self.masking.masks, self.view.inherited))
        self.removal.apply(self.snapshot.model, structure)
        self._rebuild(masks)
        self.view.masks, self.view.inherited = dict(self.masking.masks), inherited

    def _rebuild(self, masks: Mapping[str, Tensor]) -> None:
        """Goes on with the network of the copy, under `masks`."""
        self.engine.close()
        self._set_up(copy.deepcopy(self.snapshot.model).train())
        self.masking.apply(masks)
        self.average = self._average()
        if self.view is not None:
            self.view.groups, self.view.gates = self.removal.groups, self.removal.gates
            self.view.names = tuple(name for name in self.view.names if name in self.fragments.by_name)

    def input_norms(self, batches: int) -> dict[str, Tensor]:
        """Norms of the inputs of the prunable weights over the first `batches` global batches, each image once (see `NetworkView`)."""
        assert self.view is not None
        self.copy_weights()
        network = self.snapshot.model.eval()
        with InputNorms(network, self.view.names) as inputs, torch.no_grad():
            for images in self.first_images(batches):
                network(images)
        return inputs.norms(self.ranks.sum)

    def rewrite(self, batches: int, names: Sequence[str], solve: Solve) -> dict[str, Tensor]:
        """Changes weights in the order in which a forward pass uses them (see `NetworkView`). All images of this rank go through it at once.

        Every rank solves, and rank 0's result counts, because machines may round differently.
        """
        self.copy_weights()
        network, masks = self.snapshot.model.eval(), {}

        def change(name: str, products: Tensor) -> None:
            weight = network.get_parameter(name)
            changed, mask = solve(name, weight.detach(), self.ranks.sum(products))
            weight.copy_(self.ranks.share(changed.contiguous()))
            masks[name] = self.ranks.share(mask.to(torch.uint8)).bool()

        visit_layers(network, names, torch.cat(list(self.first_images(batches))), change)
        self.fragments.write({name: network.get_parameter(name).detach() for name in masks})
        self.average = self._average()
        return masks

    def state_importance(self, batches: int) -> dict[str, Tensor]:
        """The importance of the states of selective scans over the first `batches` global batches (see `NetworkView`)."""
        self.copy_weights()
        network = self.snapshot.model.eval()
        with StateImportance(network) as states, torch.no_grad():
            for images in self.first_images(batches):
                network(images)
        return states.totals(self.ranks.sum)

    def first_images(self, batches: int) -> Iterator[Tensor]:
        """This rank's micro-batches, on its device, of the first `batches` global batches of an epoch."""
        count = min(batches, self.training.steps_per_epoch) * self.engine.batching.accumulation
        with closing(self.training.epoch(0)) as images:
            for micro_batch, _ in islice(images, count):
                yield micro_batch.to(self.ranks.device)

    def losses(self, removals: Sequence[Structure], batches: int) -> list[float]:
        """The mean loss over the first `batches` global batches without what each structure removes (see `NetworkView`); a collective.

        Every network gets the same images at the same time, so that they are read once. The loss is that of the training, without a teacher.
        """
        self.copy_weights()
        network, device = self.snapshot.model.eval(), self.ranks.device
        networks = [without(network, removal.blocks, removal.scans) for removal in removals]
        count = min(batches, self.training.steps_per_epoch) * self.engine.batching.accumulation
        sums = torch.zeros(len(networks), dtype=torch.float64, device=device)
        with closing(self.training.epoch(0)) as images, torch.no_grad():
            for micro_batch, labels in islice(images, count):
                given, targets = micro_batch.to(device), labels.to(device)
                sums += torch.stack([self.engine.loss(smaller(given), targets).double() for smaller in networks])
        means: list[float] = (self.ranks.sum(sums) / (count * self.ranks.world)).tolist()
        return means

    def say(self, line: str) -> None:
        """Prints a line on rank 0."""
        if self.ranks.rank == 0:
            print(line, flush=True)

    def gradient(self, name: str) -> Tensor:
        """The gradient of a parameter: of the batch in the engine, or of the last batch of a calibration."""
        return self.fragments.gradient(name) if self.calibration is None else self.calibration[name]

    def calibrated(self, batches: int) -> Iterator[int]:
        """Counts from 1 the global batches, at most `batches`, whose mean gradient `gradient` reads until the next one. A collective.

        The weights are those of now, in fp32 and in evaluation mode; no weight and no buffer changes.
        The loss is that of the training, without a teacher.
        """
        self.copy_weights()
        network, batching, device = self.snapshot.model.eval(), self.engine.batching, self.ranks.device
        parameters = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        try:
            with closing(self.training.epoch(0)) as images:
                for number in range(1, min(batches, self.training.steps_per_epoch) + 1):
                    sums = [torch.zeros_like(parameter) for parameter in parameters.values()]
                    for micro_batch, labels in islice(images, batching.accumulation):
                        loss = self.engine.loss(network(micro_batch.to(device)), labels.to(device))
                        for total, part in zip(sums, torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True), strict=True):
                            total += part
                    parts = batching.accumulation * self.ranks.world
                    self.calibration = {name: self.ranks.sum(total) / parts for name, total in zip(parameters, sums, strict=True)}
                    yield number
        finally:
            self.calibration = None

    # The whole fp32 copy

    def copy_weights(self) -> None:
        """Updates the copy to the current weights, never to averaged ones."""
        self.snapshot.take(self.fragments.weights(), self.engine.module)

    def copy_result(self) -> None:
        """Updates the copy to the weights that are evaluated and exported: averaged ones if the recipe averages."""
        self.snapshot.take(self.fragments.weights() if self.average is None else self.average.weights(), self.engine.module)
        if self.average is not None:
            self.average.copy_buffers_to(self.snapshot.model)

    def sparsity(self) -> float:
        """The fraction of zeros in the masked parameters; once units were removed, the fraction of all parameters that is gone."""
        masks = self.masking.masks.values()
        if self.removal.done is None:
            return self.masking.sparsity()
        return self.removal.fraction_removed(self.snapshot.model, masked=sum(mask.numel() - living(mask) for mask in masks))

    def terms(self, epoch: int) -> list[Term]:
        """The terms that the recipe adds to the loss of the next step, which is in an epoch counted from 0. A collective."""
        recipe, stage = self.spec.recipe, self.spec.stage
        taught = [] if recipe.distill is None or self.teacher is None else [distilled(recipe.distill, self.teacher)]
        cooldown = recipe.cooldown_epochs if stage.schedule == "train" else 0
        if self.average is None or not mesa_counts(recipe, epoch, stage.epochs, cooldown=cooldown):
            return taught
        self.averaged = averaged = self.averaged or FrozenNetwork(copy.deepcopy(self.snapshot.model), recipe)
        averaged.take(self.average.weights(), dict(self.engine.module.named_buffers()) | self.average.buffers)
        difference = MESA_LOSSES[recipe.mesa_loss]
        return [*taught, lambda images, logits, loss: loss + recipe.mesa * difference(logits, averaged.logits(images))]

    def clip_values(self) -> None:
        """Clips each element of the gradients, if the recipe asks for that. (DeepSpeed clips their norm.)"""
        recipe = self.spec.recipe
        if recipe.clip_mode == "value" and recipe.clip_grad is not None:
            self.fragments.clip_values(recipe.clip_grad)

    # Checkpoints

    def state(self) -> dict[str, Any]:
        """This rank's part of the state from which `restore` resumes to the bit."""
        averaged = {} if self.average is None or not self.average.buffers else {"average_buffers": self.average.buffers}
        inherited: dict[str, Any] = {} if self.view is None or not self.view.inherited else {"inherited": self.view.inherited}
        if self.removal.done is not None and not self.removal.finished:
            inherited["finished"] = False
        return {
            "training": training_state(self.engine, self.fragments),
            "average": None if self.average is None else self.average.parts,
            "masks": self.masking.masks,
            "dense": self.masking.dense,
            "structure": structure_to_json(self.removal.done),
            "method": None if self.view is None else self.view.state,
            **averaged,
            **inherited,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the state of a checkpoint."""
        device, structure = self.ranks.device, structure_from_json(state.get("structure"))
        if structure is not None:
            self.inherit(structure, finished=state.get("finished", True))  # absent from checkpoints of older versions, as is "inherited"
        restore_training(self.engine, self.fragments, state["training"])
        self.masking.apply(state["masks"])
        self.masking.restore_dense(state.get("dense", {}))  # absent from checkpoints of older versions
        self.average = self._average()
        if self.average is not None:
            for name, part in state["average"].items():
                self.average.parts[name].copy_(part)
            self.average.buffers = {name: buffer.to(device) for name, buffer in state.get("average_buffers", {}).items()}
        if self.view is not None:
            self.view.masks = dict(self.masking.masks)
            self.view.inherited = {name: mask.to(device) for name, mask in state.get("inherited", {}).items()}
            self.view.state = {key: tensor.to(device) for key, tensor in state["method"].items()}
