"""Finetune one model and measure it, an epoch at a time.

``Trainer`` is an iterator: ``step()`` is one epoch, ``finish()`` the verdict. It names no method: an adapter says what
moves and how it is fitted, a penalty what holds it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from repsim.adapters import REGISTRY as ADAPTERS
from repsim.adapters import check_adapter
from repsim.backbones import Backbone
from repsim.catalogue import PENALTIES
from repsim.config import TrialConfig
from repsim.data.dataset import Split
from repsim.errors import DegenerateInputError, Mistake, RequestError
from repsim.evaluation import (
    Outputs,
    labelled_batches,
    outputs_of,
    outputs_of_head,
    predictions,
    sharpness_indices,
    split_metrics,
)
from repsim.extra_measures import extra_measures
from repsim.feed import Feed, make_penalty
from repsim.fitting import SMALLEST_BATCH, FeatureFit, Fit, GradientFit, ProbedGradientFit, probe_head
from repsim.layer_similarity import LayerSimilarity
from repsim.memory import PeakMemory
from repsim.model import FineTuned, build_model
from repsim.optimisation import trained_parameters
from repsim.prefix import cached_prefix
from repsim.ranks import ALONE, Ranks
from repsim.records import STANDARD_METRICS, WISE_ALPHAS, DerivedResult, EpochResult, Objective, TrialResult
from repsim.seeding import torch_generator
from repsim.sharpness import sharpness
from repsim.wise import Line
from repsim.workspace import Workspace

State = dict[str, object]
_HELD_OUT: tuple[Split, ...] = ("val", "test")


class Trainer:
    """One trial. After ``finish``, ``reported`` is the model whose values it answered.

    ``line`` holds the models between that one and the pretrained one, where points on it were measured.

    ``workspace`` shares what does not change between trials of a process. ``best_by`` is the val metric that
    ``checkpoint: best`` keeps. Among several ``ranks`` each has a Trainer of its own, all are driven in step, and all
    answer the same; RankLost when one is gone. Raises RequestError when the data or the weights cannot serve the
    configuration, or the configuration cannot be shared among so many.
    """

    def __init__(
        self,
        config: TrialConfig,
        *,
        workspace: Workspace | None = None,
        best_by: Objective | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        started = time.perf_counter()
        self.config = config
        self._ranks = ranks
        check_ranks(config, ranks.size)
        self._memory = PeakMemory()
        self._workspace = Workspace() if workspace is None else workspace
        self._best_by = Objective(metric="val_accuracy", direction="maximize") if best_by is None else best_by
        self._images = self._workspace.images(config.data)
        self._backbone = self._workspace.backbone(config)
        self._teacher = self._workspace.teacher(config)
        sizes = {name: len(self._images.split(name)) for name in ("train", "val", "test")}
        check_splits(config, sizes, ranks.size)
        check_adapter(config, self._backbone)
        self._adapter = ADAPTERS[config.parsed_method.adapter]
        self.reported: FineTuned | None = None
        self.line: Line | None = None
        self.model = self._untrained()
        self.penalty = make_penalty(config, self._backbone, self.model, self._images, self._teacher)
        self._fit = self._build_fit()
        self._layers = self._layer_similarity()
        self.epochs: list[EpochResult] = []
        self._best: tuple[int, State] | None = None
        self._last: tuple[int, Outputs] | None = None
        self._train_seconds = self._evaluation_seconds = 0.0
        self._seconds = time.perf_counter() - started

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self._images.classes

    @property
    def backbone(self) -> Backbone:
        """The pretrained network."""
        return self._backbone

    @property
    def n_epochs(self) -> int:
        """How many steps there are; 1 where the head is fitted to convergence."""
        return self._fit.n_epochs

    @property
    def done(self) -> bool:
        """Whether every epoch has run."""
        return len(self.epochs) >= self.n_epochs

    def step(self) -> EpochResult:
        """Train one epoch, then measure it on the val images.

        Raises NonFiniteLossError before the optimiser step that would have spoilt the weights, and RuntimeError when
        every epoch has run.
        """
        if self.done:
            raise RuntimeError(f"all {self.n_epochs} epochs have run")
        with self._ranks.guarded():
            return self._step()

    def _step(self) -> EpochResult:
        started = time.perf_counter()
        epoch = len(self.epochs) + 1
        self._fit.prepare_epoch(epoch)
        training = time.perf_counter()
        fitted = self._fit.run_epoch(epoch)
        train_seconds = time.perf_counter() - training
        with nullcontext() if self._layers is None else self._layers.listening():
            outputs = self._outputs("val", self.model)
        values = self._measure("val", outputs)
        layers = self._measure_layers(epoch)
        self._last = (epoch, outputs)
        result = EpochResult(
            epoch=epoch,
            values=values,
            train_loss=fitted.loss,
            train_penalty=fitted.penalty,
            learning_rate=fitted.learning_rate,
            steps=fitted.steps,
            train_seconds=train_seconds,
            seconds=time.perf_counter() - started,
            layers=layers,
        )
        self.epochs.append(result)
        self._keep_if_best(result)
        self._train_seconds += train_seconds
        self._seconds += time.perf_counter() - started
        return result

    def finish(self) -> TrialResult:
        """Measure val, test and sharpness at the chosen epoch. Needs every epoch to have run.

        With ``wise_alpha`` below 1 all of it is that of the model on the way there; ``model`` stays the trained one.
        """
        if not self.done:
            raise RuntimeError(f"only {len(self.epochs)} of {self.n_epochs} epochs have run")
        with self._ranks.guarded():
            return self._finish()

    def _finish(self) -> TrialResult:
        started = time.perf_counter()
        chosen = self.n_epochs
        if self._best is not None:
            chosen, weights = self._best
            self.model.load_state_dict(cast(Mapping[str, Tensor], weights))
        trained = self.config.wise_alpha == 1.0
        model = self.reported = self.model if trained else self._line().at(self.config.wise_alpha)
        # the last epoch's val pass serves again, unless an earlier epoch was chosen or the trial was resumed after it
        known = self._last is not None and self._last[0] == chosen and trained
        outputs: dict[Split, Outputs] = {
            "val": self._last[1] if self._last is not None and known else self._outputs("val", model),
            "test": self._outputs("test", model),
        }
        val = self.epochs[chosen - 1].values if trained else self._measure("val", outputs["val"])
        values = val | self._measure("test", outputs["test"]) | self._sharpness(model)
        more, more_facts = self._extra_measures(outputs, model)
        values |= more
        self._seconds += time.perf_counter() - started
        steps = sum(epoch.steps for epoch in self.epochs)
        seen = len(self._images.train) * len(self.epochs)
        values |= {
            "train_seconds": self._train_seconds,
            "overhead_seconds": self._seconds - self._train_seconds,
            "evaluation_seconds": self._evaluation_seconds,
            "images_per_second": seen / max(self._train_seconds, 1e-9),
            "peak_memory_bytes": float(max(self._ranks.every(self._memory.peak_bytes(self._workspace.device)))),
            "trainable_parameters": float(sum(p.numel() for p in trained_parameters(self.model))),
        }
        fit_facts = self._fit.facts() if trained else {}  # they are about the trained model
        derived, wise_facts = self._derived(values) if self.config.takes_a_line else ((), {})
        return TrialResult(
            chosen_epoch=chosen,
            epochs=self.n_epochs,
            values=values,
            facts=self._facts() | {"optimiser_steps": steps} | fit_facts | more_facts | wise_facts,
            derived=derived,
            predictions={name: predictions(name, found, self._images) for name, found in outputs.items()},
        )

    def state_dict(self) -> State:
        """Everything needed to go on after this epoch, in another process, bit for bit."""
        return {
            "config": self.config.flat(),
            "epochs": [epoch.to_dict() for epoch in self.epochs],
            "model": self.model.state_dict(),
            "penalty": {} if self.penalty is None else self.penalty.state_dict(),
            "fit": self._fit.state_dict(),
            "best": self._best,
            "layers": {} if self._layers is None else self._layers.missing,
            "seconds": (self._train_seconds, self._evaluation_seconds, self._seconds),
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from ``state_dict``; ValueError when it belongs to another configuration."""
        # read with today's defaults: a checkpoint may be older than one of the keys
        if TrialConfig.from_flat(cast(Mapping[str, object], state["config"])) != self.config:
            raise ValueError("the checkpoint belongs to another configuration")
        self.epochs = [EpochResult.from_dict(epoch) for epoch in cast(list[dict[str, object]], state["epochs"])]
        self.model.load_state_dict(cast(Mapping[str, Tensor], state["model"]))
        if self.penalty is not None:
            self.penalty.load_state_dict(cast(Mapping[str, Tensor], state["penalty"]))
        self._fit.load_state_dict(cast(Mapping[str, object], state["fit"]))
        self._best = cast("tuple[int, State] | None", state["best"])
        if self._layers is not None:
            self._layers.missing = dict(cast(Mapping[str, str], state["layers"]))
        self._train_seconds, self._evaluation_seconds, self._seconds = cast(
            tuple[float, float, float], state["seconds"]
        )

    def _untrained(self) -> FineTuned:
        """The pretrained network, prepared by the adapter, with a head that has learnt nothing."""
        model = build_model(self.config, self._backbone, len(self._images.classes))
        self._adapter.prepare(model, self.config.adapter, torch_generator(self.config.seed, "adapter"))
        return model.to(self._workspace.device)

    def _line(self) -> Line:
        """From the pretrained network with its linear probe to the model as it is."""
        start = self._untrained()
        probe_head(self.config, start, self._images, self._teacher)
        return Line(start, self.model)

    def _derived(self, trained: Mapping[str, float]) -> tuple[tuple[DerivedResult, ...], dict[str, object]]:
        """The points between pretrained and finetuned weights, and a fact: those that could not be measured, and why.

        ``trained`` are the values of the trained model, whose costs they share.
        """
        found: list[DerivedResult] = []
        missing: list[list[object]] = []
        before = time.perf_counter()
        self.line = line = self._line()
        for alpha in WISE_ALPHAS:
            try:
                point = self._point(line.at(alpha), alpha, trained)
            except (DegenerateInputError, FloatingPointError) as error:
                missing.append([alpha, str(error)])
                continue
            now = time.perf_counter()
            found.append(replace(point, values=point.values | {"overhead_seconds": now - before}))
            before = now
        return tuple(found), {"not_derived": missing}

    def _point(self, model: FineTuned, alpha: float, trained: Mapping[str, float]) -> DerivedResult:
        """What ``model`` answers; FloatingPointError when something is not finite."""
        evaluated = self._evaluation_seconds
        outputs: dict[Split, Outputs] = {name: self._outputs(name, model) for name in _HELD_OUT}
        measured = self._sharpness(model)
        for name, output in outputs.items():
            measured |= self._measure(name, output)
        if not all(map(math.isfinite, measured.values())):
            raise FloatingPointError("not every value is finite")
        measured["evaluation_seconds"] = self._evaluation_seconds - evaluated
        values = dict(trained) | measured
        return DerivedResult(
            alpha=alpha,
            values={name: values[name] for name in STANDARD_METRICS},
            predictions={str(name): predictions(name, output, self._images) for name, output in outputs.items()},
        )

    def _build_fit(self) -> Fit:
        if self._adapter.fit == "features":
            return FeatureFit(self.config, self.model, self._images, self._teacher)
        views = self._workspace.views(self.config)
        feed = Feed(self.config, self._backbone, self.model, self._teacher, self._ranks)
        kind = ProbedGradientFit if self._adapter.fit == "probed_gradient" else GradientFit
        prefix = cached_prefix(self.config, self._adapter, self.model, self._images, feed, self._teacher)
        given = (self.config, self.model, self.penalty, self._images, views, self._teacher, feed, prefix)
        return kind(*given, self._ranks)

    def _layer_similarity(self) -> LayerSimilarity | None:
        if self.config.measure.layers == "none":
            return None
        moves = self._adapter.fit != "features"
        return LayerSimilarity(self.config, self.model, self._images, self._teacher, moves=moves, ranks=self._ranks)

    def _outputs(self, split: Split, model: FineTuned) -> Outputs:
        started = time.perf_counter()
        indices = self._images.split(split)
        if self._adapter.fit == "features":
            outputs = outputs_of_head(model, self._teacher.clean()[indices])
        else:
            outputs = outputs_of(model, self._images, indices, self._ranks)
        self._evaluation_seconds += time.perf_counter() - started
        return outputs

    def _measure(self, split: Split, outputs: Outputs) -> dict[str, float]:
        pretrained = self._teacher.clean()[self._images.split(split)]
        started = time.perf_counter()
        probe = self._images.probe(split, self.config.data.probe_size)
        values = split_metrics(split, outputs, pretrained, self._images, probe)
        self._evaluation_seconds += time.perf_counter() - started
        return values

    def _measure_layers(self, epoch: int) -> dict[str, float]:
        if self._layers is None:
            return {}
        started = time.perf_counter()
        values = self._layers.measure(epoch)
        self._evaluation_seconds += time.perf_counter() - started
        return values

    def _sharpness(self, model: FineTuned) -> dict[str, float]:
        started = time.perf_counter()
        indices, device = sharpness_indices(self._images), self._workspace.device
        values = sharpness(model.merged(), lambda: labelled_batches(self._images, indices, device))
        self._evaluation_seconds += time.perf_counter() - started
        return values

    def _extra_measures(
        self, outputs: Mapping[Split, Outputs], model: FineTuned
    ) -> tuple[dict[str, float], dict[str, object]]:
        """What ``measure`` adds to the standard numbers: values and facts. ``outputs`` holds val and test."""
        measure, found = self.config.measure, dict(outputs)
        if measure.quality == "full":
            found["train"] = self._outputs("train", model)
        pretrained, probe_size = self._teacher.clean(), self.config.data.probe_size
        started = time.perf_counter()
        values, facts = extra_measures(measure, model, self._images, found, pretrained, probe_size)
        self._evaluation_seconds += time.perf_counter() - started
        if self._layers is not None:
            facts |= self._layers.facts(cast(Sequence[object], facts.get("not_measured", ())))
        return values, facts

    def _keep_if_best(self, result: EpochResult) -> None:
        if self.config.checkpoint == "last":
            return
        if self._best is not None:
            before = self.epochs[self._best[0] - 1].values
            now, then = result.values[self._best_by.metric], before[self._best_by.metric]
            tie_won = now == then and result.values["val_nll"] < before["val_nll"]
            if not (self._best_by.better(now, than=then) or tie_won):
                return
        self._best = (result.epoch, copy.deepcopy(cast(State, self.model.state_dict())))

    def _facts(self) -> dict[str, object]:
        images, size = self._images, self.config.data.probe_size
        return {
            "n_train": len(images.train),
            "n_val": len(images.val),
            "n_test": len(images.test),
            "n_probe": len(images.probe("val", size)),
            "n_classes": len(images.classes),
            "largest_class_fraction": images.largest_class_fraction,
            "smallest_class_fraction": images.smallest_class_fraction,
            "data_hash": images.data_hash,
            "probe_hash": images.probe_hash("val", size),
            "weights_id": self._backbone.weights_id,
            "pretraining": self._backbone.pretraining,
            "skipped_images": list(images.skipped),
            "duplicates_across_splits": [list(pair) for pair in images.duplicates],
            "threads": torch.get_num_threads(),
            "workers": self._ranks.size,
        }


def check_ranks(config: TrialConfig, size: int) -> None:
    """RequestError when the configuration cannot be shared among ``size`` ranks."""
    if size == 1:
        return
    mistakes = []
    if config.optim.batch_size < size:
        problem = f"a batch of {config.optim.batch_size} leaves some of {size} workers without an image"
        mistakes.append(Mistake(where="trial", key="optim.batch_size", problem=problem, allowed=f"{size} or more"))
    if config.optim.batch_norm == "train":
        problem = f"train takes statistics of {size} workers' batches apart, and would not be the same training"
        mistakes.append(
            Mistake(where="trial", key="optim.batch_norm", problem=problem, allowed="frozen, or one worker")
        )
    if mistakes:
        raise RequestError(*mistakes)


def check_splits(config: TrialConfig, sizes: Mapping[str, int], ranks: int = 1) -> None:
    """RequestError when a split is too small for similarity, for the penalty, or for so many ranks."""
    penalty = config.parsed_method.penalty
    held_out = max(SMALLEST_BATCH, ranks)
    needed = {"train": max(ranks, 1 if penalty is None else PENALTIES[penalty].min_batch)}
    needed |= {"val": held_out, "test": held_out}
    mistakes = [
        Mistake(
            where=config.data.source,
            key=f"{name} split",
            problem=f"holds {sizes[name]} images",
            allowed=f"at least {least} (similarity of fewer is not defined)",
        )
        for name, least in needed.items()
        if sizes[name] < least
    ]
    if mistakes:
        raise RequestError(*mistakes)


def train(config: TrialConfig, *, workspace: Workspace | None = None) -> TrialResult:
    """Run one trial from beginning to end."""
    trainer = Trainer(config, workspace=workspace)
    while not trainer.done:
        trainer.step()
    return trainer.finish()
