"""RepSim: the finetuned features are the pretrained ones, up to one learnable orthogonal map.

R = |s Zc Q - Z0c|² / |Z0c|², with Zc, Z0c the batch-centred finetuned and pretrained features (n, d) and Q one (d, d)
orthogonal matrix shared by all batches, the identity at the start (reconstruction of arXiv 2503.07399, whose body and
code are not public; the penalty that its abstract describes). Zero, with zero gradient, at the pretrained weights; in
[0, ∞), 2 for unrelated features of equal energy. Dimensionless.

Q is learned beside the model, never by its optimiser: Adam divides each entry's gradient by its own size, so at the
start, where that gradient is rounding noise, it turns noise into full steps and leaves the manifold. How Q is learned
is the choice of ``penalty.map`` (repsim/penalties/rotations.py).

``penalty.scale`` adds the factor s > 0, because similarity indices know no isotropic scale either. log s follows a
damped Gauss-Newton step of the same batch, towards s* = <Zc Q, Z0c> / |Zc|². Shrinking all features then costs
nothing. ``penalty.center: false`` compares the features as they are, mean included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repsim.penalties.base import FeaturePenalty, PenaltyContext, centred, energy
from repsim.penalties.rotations import build_rotation

_SCALE_RATE = 0.1


class RepSim(FeaturePenalty):
    """|s Zc Q - Z0c|² / |Z0c|² with one learnable orthogonal Q and, if asked, one learnable scale."""

    log_scale: Tensor

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        config = context.config
        self._centred, self._scaled = config.center, config.scale
        self.rotation = build_rotation(config, context.dim, context.seed)
        self.register_buffer("log_scale", torch.zeros(()))
        self._batch: tuple[Tensor, Tensor, Tensor] | None = None

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d); remembers the batch for :meth:`after_step`."""
        ours = centred(features) if self._centred else features
        theirs = centred(teacher) if self._centred else teacher
        if self._scaled:
            ours = self.log_scale.exp() * ours
        rotated = self.rotation.back(theirs)  # |Z Q - Z0| = |Z - Z0 Qᵀ|
        if self.remembers:
            self._batch = (ours.detach(), theirs, rotated)
        return (ours - rotated).square().sum() / energy(theirs)

    @torch.no_grad()
    def after_step(self) -> None:
        """One step of Q, and of the scale, on the batch that the model has just learned from."""
        if self._batch is None:
            return
        (ours, theirs, rotated), self._batch = self._batch, None
        self.rotation.learn(ours, theirs, rotated)
        if self._scaled:
            step = (ours * (rotated - ours)).sum() / energy(ours)
            self.log_scale += _SCALE_RATE * step.clamp(-1.0, 1.0)

    @torch.no_grad()
    def after_epoch(self) -> None:
        """Undo what rounding did to Q."""
        self.rotation.upkeep()
