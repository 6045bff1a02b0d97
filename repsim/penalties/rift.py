"""RIFT: the covariance of the features stays what it was; no pretrained network is needed while training.

R = |C - C0|² / |C0|² (Frobenius), with C0 (d, d) the covariance of the pretrained features over one augmented view of
the training images, measured once in float64, and C the running covariance of the finetuned features, C <- (1 - m) C +
m Zcᵀ Zc / (n - 1), starting at C0 (m = ``penalty.momentum``). The covariance matching of arXiv 2503.07399v3 as its
public reviews describe it, kin of CORAL (arXiv 1607.01719). Dimensionless, in [0, ∞); 1 when the features have become
constant.

The gradient flows through the newest batch alone and is rescaled by 1/m, so that λ does not depend on m: dR/dZc = 4 Zc
(C - C0) / ((n - 1) |C0|²). The running mean is there for a reason: a single batch of n Gaussian rows is (r + 1)/(n - 1)
away from its own covariance, r = tr(C)²/tr(C²), and the gradient of that noise shrinks the features. So neither value
nor gradient is zero at the pretrained weights. C0 is that of augmented images because C is: on small images
augmentation alone moves the covariance by 0.4 to 0.7 in these units (19 on the ultrasound phantom). What it holds is a
distribution, not images: exchanging the features of two images costs nothing, and a low R does not make features
similar.

``penalty.q: learned`` compares with Q C0 Qᵀ for one learnable orthogonal Q, by ascent on <C, Q C0 Qᵀ> every 20th step
(a double-bracket flow; dense d x d products). A well learned Q holds the spectrum of the covariance alone (Hoffman &
Wielandt 1953), so ``penalty.q_lr`` should stay small if more is to be kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repsim.penalties.base import Batch, Penalty, PenaltyContext, attach_gradient, centred, given

_Q_EVERY = 20


class RIFT(Penalty):
    """Distance of the running covariance from the pretrained one."""

    running: Tensor
    pretrained: Tensor
    goal: Tensor
    Q: Tensor
    steps: Tensor

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        pretrained = given(context.statistics, "pretrained statistics").covariance
        config = context.config
        self._momentum, self._q_lr, self._learns = config.momentum, config.q_lr, config.q == "learned"
        self._squared = float(pretrained.square().sum().clamp_min(1e-12))
        self.register_buffer("running", pretrained.clone())
        self.register_buffer("pretrained", pretrained.clone(), persistent=False)
        if self._learns:
            self.register_buffer("goal", pretrained.clone())
            self.register_buffer("Q", torch.eye(context.dim))
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._next: Tensor | None = None

    def of(self, batch: Batch) -> Tensor:
        """Scalar; remembers the new running covariance for :meth:`after_step`."""
        ours = centred(batch.features.float())
        rows = ours.detach()
        weight = self._momentum / (len(rows) - 1)
        covariance = torch.addmm(self.running, rows.T, rows, beta=1.0 - self._momentum, alpha=weight)
        off = covariance - (self.goal if self._learns else self.pretrained)
        value: Tensor = torch.linalg.vector_norm(off).square() / self._squared
        if not torch.is_grad_enabled():
            return value
        if self.remembers:
            self._next = covariance
        return attach_gradient(ours, value, (rows @ off) * (4.0 / ((len(rows) - 1) * self._squared)))

    @torch.no_grad()
    def after_step(self) -> None:
        """Accept the batch into the running covariance; every 20th time, turn Q."""
        if self._next is None:
            return
        self.running, self._next = self._next, None
        if self._learns:
            self.steps += 1
            if int(self.steps) % _Q_EVERY == 0:
                self._turn()

    def _turn(self) -> None:
        """Q <- (I - W/2)⁻¹(I + W/2) Q with W ∝ [C, Q C0 Qᵀ], the gradient in the Lie algebra; then undo rounding."""
        bracket = self.running @ self.goal
        turn = (bracket - bracket.T) * (self._q_lr / self._squared)
        identity = torch.eye(len(turn), dtype=turn.dtype, device=turn.device)
        turned = torch.linalg.solve(identity - turn / 2, (identity + turn / 2) @ self.Q)
        self.Q.copy_(1.5 * turned - 0.5 * turned @ (turned.T @ turned))
        self.goal.copy_(self.Q @ self.pretrained @ self.Q.T)
