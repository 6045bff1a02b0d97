"""RepSim: the finetuned features are the pretrained ones, up to one learnable orthogonal map.

R = |Zc Q - Z0c|² / |Z0c|², with Zc, Z0c the batch-centred finetuned and pretrained features (n, d) and Q one (d, d)
orthogonal matrix shared by all batches, the identity at the start (reconstruction of arXiv 2503.07399, whose body and
code are not public; the penalty that its abstract describes). Zero, with zero gradient, at the pretrained weights.

Q is learned beside the model, not by its optimiser. Adam divides each entry's gradient by its own size, so at the
start, where that gradient is rounding noise, it turns noise into full steps and leaves the manifold. Here Q follows
the Riemannian gradient of the same batch with a Cayley retraction (Wen & Yin 2013, eq. 7 and lemma 4). With B = Z0c Qᵀ
the gradient in the Lie algebra is, up to the constant 2/|Z0c|²,

    W = Zcᵀ B - Bᵀ Zc = U Vᵀ,   U = [Zcᵀ, -Bᵀ],   V = [Bᵀ, Zcᵀ]   (rank <= 2n),

which vanishes exactly at Z = Z0, Q = I, and the step is Q <- Q + τ U (I - τ/2 VᵀU)⁻¹ Vᵀ Q: a few n x d x d products
and one 2n x 2n solve, instead of a dense d x d solve. The forward pass needs only B, since |Zc Q - Z0c| = |Zc - Z0c
Qᵀ|.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repsim.penalties.base import Penalty, centred, energy

_DRIFT_ALLOWED = 1e-5


class RepSim(Penalty):
    """|Zc Q - Z0c|² / |Z0c|² with one learnable orthogonal Q.

    ``q_lr`` is the step size on Q relative to the energy of the batch's pretrained features; below 2 or so a step
    cannot overshoot.
    """

    Q: Tensor

    def __init__(self, dim: int, *, q_lr: float) -> None:
        super().__init__(dim)
        self.q_lr = q_lr
        self.register_buffer("Q", torch.eye(dim))
        self._batch: tuple[Tensor, Tensor, Tensor] | None = None

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d); remembers the batch for :meth:`after_step`."""
        features_c, teacher_c = centred(features), centred(teacher)
        rotated = teacher_c @ self.Q.T
        if torch.is_grad_enabled():
            self._batch = (features_c.detach(), teacher_c, rotated)
        return (features_c - rotated).square().sum() / energy(teacher_c)

    @torch.no_grad()
    def after_step(self) -> None:
        """One Riemannian step of Q on the batch that the model has just learned from."""
        if self._batch is None:
            return
        (features, teacher, rotated), self._batch = self._batch, None
        step = self.q_lr / float(energy(teacher))
        # left.T is U, right.T is V, core the 2n x 2n matrix to be inverted; Vᵀ Q needs no product for B, as B Q = Z0c.
        left = torch.cat([features, -rotated])
        right = torch.cat([rotated, features])
        right_q = torch.cat([teacher, features @ self.Q])
        core = torch.eye(len(left), device=left.device) - (step / 2) * (right @ left.T)
        self.Q.addmm_(left.T, torch.linalg.solve(core, right_q), alpha=step)

    @torch.no_grad()
    def after_epoch(self) -> None:
        """Undo the rounding drift away from the manifold: one Newton step of the polar decomposition."""
        probe = torch.ones(self.dim, device=self.Q.device)
        drift = (self.Q.T @ (self.Q @ probe) - probe).abs().max()
        if float(drift) > _DRIFT_ALLOWED:
            self.Q.copy_(1.5 * self.Q - 0.5 * self.Q @ (self.Q.T @ self.Q))
