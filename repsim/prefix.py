"""A frozen beginning of the backbone runs once per augmented view: training starts from what it handed on.

An adapter may name the ``boundary``, the module in front of which nothing moves. What that module is given for each
image of a view is a function of weights that never change, so :class:`~repsim.teacher.Teacher` keeps it beside its
features, and a training step feeds it in while everything in front of the boundary stands still. Evaluation,
statistics of batch norms and sharpness see the whole network, as ever.

It is done only where it changes nothing but rounding (a batch of another size is summed in another order): in fp32
(under autocast the beginning would have been rounded), where no penalty watches a layer, where the network is a chain
at the boundary, frozen and without noise in front of it, and where the cache stays small. Elsewhere every step runs
the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from repsim.adapters import Adapter
from repsim.backbones import has_dropout
from repsim.catalogue import PREFIX_CACHE_BYTES
from repsim.config import TrialConfig
from repsim.data.dataset import ImageSet
from repsim.feed import Feed
from repsim.model import FineTuned
from repsim.teacher import Teacher

_PROBE = 3
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """What a backbone runs in front of its module ``boundary``: the modules that can stand still, by name.

    ``skipped`` says the shape of each one's output and ``shape`` that of the boundary's input, both for one image;
    ``channels_last`` how that input lies in memory.
    """

    boundary: str
    skipped: Mapping[str, Shape]
    shape: Shape
    channels_last: bool

    @contextmanager
    def given(self, backbone: nn.Module, inputs: Tensor) -> Iterator[None]:
        """Inside, the boundary gets ``inputs`` (b, *shape), and the modules in front of it do nothing.

        What else stands in front of it in the forward pass computes on zeros, for nothing. Afterwards, also after an
        error, the backbone is as it was.
        """
        zero = inputs.new_zeros(())
        with ExitStack() as restored:
            for name, shape in self.skipped.items():
                still = zero.expand(len(inputs), *shape)  # one number, seen as a whole array
                restored.enter_context(_answering(backbone.get_submodule(name), still))
            boundary = backbone.get_submodule(self.boundary)
            restored.callback(boundary.register_forward_pre_hook(lambda module, args: (inputs,)).remove)
            yield


@contextmanager
def _answering(module: nn.Module, answer: Tensor) -> Iterator[None]:
    """Inside, the module's forward pass returns ``answer``; its parameters and their names stay where they are."""
    own = module.__dict__.get("forward")
    module.forward = lambda *args, **kwargs: answer
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


class CachedPrefix:
    """The beginning of one model, with the boundary's inputs for one augmented view at a time."""

    def __init__(self, prefix: Prefix, model: FineTuned, teacher: Teacher) -> None:
        self.prefix = prefix
        self._model, self._teacher = model, teacher
        self._view: int | None = None
        self._inputs: NDArray[np.float32] | None = None

    def prepare(self, view: int) -> None:
        """Fetch, or compute, what the boundary is given for the training images in augmented view ``view``."""
        if self._view != view:
            self._inputs = self._teacher.inputs(view, self.prefix.boundary)
            self._view = view

    def images(self, n: int, side: int) -> Tensor:
        """Stands for ``n`` images of this side, which nothing will look at: (n, 3, side, side)."""
        return self._model.mean.new_zeros(()).expand(n, 3, side, side)

    @contextmanager
    def given(self, rows: NDArray[np.int64]) -> Iterator[None]:
        """Inside, a forward pass of the model is that of training images number ``rows`` in the prepared view."""
        if self._inputs is None:
            raise RuntimeError("no view has been prepared")
        inputs = torch.from_numpy(self._inputs[rows]).to(self._model.mean.device)
        if self.prefix.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self.prefix.given(self._model.backbone, inputs):
            yield


def cached_prefix(
    config: TrialConfig, adapter: Adapter, model: FineTuned, images: ImageSet, feed: Feed, teacher: Teacher
) -> CachedPrefix | None:
    """The cached beginning of a model that the adapter has prepared; None where every step runs the whole network."""
    boundary = None if adapter.boundary is None else adapter.boundary(model.backbone, config.adapter)
    if boundary is None or feed.watches or config.optim.precision != "fp32":
        return None
    side = config.data.image_size
    probe = torch.rand(_PROBE, 3, side, side, generator=torch.Generator().manual_seed(0))
    probe = probe.contiguous(memory_format=torch.channels_last).to(model.mean.device)
    prefix = find_prefix(model.backbone, boundary, (probe - model.mean) / model.std)
    if prefix is None or 4 * math.prod(prefix.shape) * len(images.train) * config.n_views > PREFIX_CACHE_BYTES:
        return None
    return CachedPrefix(prefix, model, teacher)


def find_prefix(backbone: nn.Module, boundary: str, probe: Tensor) -> Prefix | None:
    """What stands in front of the module called ``boundary``; None where feeding that module does not replace it.

    Tried out on ``probe``, normalised images (b, 3, h, w), in eval mode: with and without the beginning the features
    must be the same bit for bit.
    """
    was_training = backbone.training
    try:
        noisy = _noisy_when_training(backbone.train())
        backbone.eval()
        trace = _Trace(backbone, boundary)
        with trace.recording():
            features = backbone(probe)
        prefix = trace.prefix(len(probe), noisy)
        if prefix is None:
            return None
        try:
            with prefix.given(backbone, trace.inputs[0]):
                again = backbone(probe)
        except RuntimeError:  # it writes into what a module in front of the boundary returned
            return None
        return prefix if torch.equal(features, again) else None
    finally:
        backbone.train(was_training)


def _noisy_when_training(backbone: nn.Module) -> set[str]:
    """Names of the modules whose own answer is another than in eval mode, for a backbone in training mode."""
    return {
        name
        for name, module in backbone.named_modules()
        if has_dropout(module) or (isinstance(module, _BatchNorm) and module.training)
    }


class _Trace:
    """One forward pass: which modules beside the path to the boundary ran before it, and what they returned."""

    def __init__(self, backbone: nn.Module, boundary: str) -> None:
        self._backbone, self._boundary = backbone, boundary
        self._before: dict[str, Shape | None] = {}
        self._after: set[str] = set()
        self._plain = True
        self.inputs: list[Tensor] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, a forward pass of the backbone is recorded."""
        with ExitStack() as hooks:
            for name in _beside(self._backbone, self._boundary):
                module = self._backbone.get_submodule(name)
                hooks.callback(module.register_forward_hook(partial(self._keep, name)).remove)
            boundary = self._backbone.get_submodule(self._boundary)
            hooks.callback(boundary.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
            yield

    def _keep(self, name: str, module: nn.Module, args: object, output: object) -> None:
        if self.inputs:
            self._after.add(name)
        elif name in self._before or not isinstance(output, Tensor):
            self._before[name] = None
        else:
            self._before[name] = tuple(output.shape)

    def _enter(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        (first, *others) = (*args, *kwargs.values())
        self._plain = self._plain and not others and not kwargs and not self.inputs
        if isinstance(first, Tensor):
            self.inputs.append(first.clone())  # the module may write into it

    def prefix(self, n: int, noisy: set[str]) -> Prefix | None:
        """What was found in a pass of ``n`` images, unless it cannot be replaced by the boundary's input alone."""
        if not self._plain or len(self.inputs) != 1 or self._moves(noisy):
            return None
        inputs = self.inputs[0]
        if len(inputs) != n or inputs.dtype != torch.float32:
            return None
        skipped = {
            name: shape[1:]
            for name, shape in self._before.items()
            if shape is not None and len(shape) > 1 and shape[0] == n and name not in self._after
        }
        if not skipped:
            return None
        last = inputs.ndim == 4 and inputs.is_contiguous(memory_format=torch.channels_last)
        return Prefix(boundary=self._boundary, skipped=skipped, shape=tuple(inputs.shape[1:]), channels_last=last)

    def _moves(self, noisy: set[str]) -> bool:
        """Whether what ran before the boundary learns, or answers in training other than in eval mode."""
        inside = {
            f"{name}.{deeper}".rstrip(".")
            for name in self._before
            for deeper, _ in self._backbone.get_submodule(name).named_modules()
        }
        return self.inputs[0].requires_grad or not inside.isdisjoint(noisy)


def _beside(backbone: nn.Module, boundary: str) -> list[str]:
    """Names of the children, along the path from the backbone to the boundary, that do not lie on that path."""
    found, parent, path = [], backbone, ""
    for part in boundary.split("."):
        found += [f"{path}{child}" for child, _ in parent.named_children() if child != part]
        parent, path = parent.get_submodule(part), f"{path}{part}."
    return found
