"""Maps for RepSim's Q: four ways of learning one orthogonal (d, d) matrix, each starting at the identity.

Each minimises |F Q - Z0|² over the batches seen, F and Z0 being the (scaled, centred) finetuned and pretrained features
(n, d), and e = |Z0|² the energy that makes step sizes relative.

- ``riemannian`` (the default): the Riemannian gradient with a Cayley retraction (Wen & Yin 2013, eq. 7 and lemma 4).
  With B = Z0 Qᵀ the gradient in the Lie algebra is, up to 2/e,  W = Fᵀ B - Bᵀ F = U Vᵀ,  U = [Fᵀ, -Bᵀ],  V = [Bᵀ, Fᵀ]
  of rank <= 2n, which vanishes exactly at F = Z0, Q = I; the step is Q <- Q + τ U (I - τ/2 VᵀU)⁻¹ Vᵀ Q: a few n x d x d
  products and one 2n x 2n solve instead of a dense d x d one.
- ``procrustes``: the closed form. M <- (1 - m) M + m FᵀZ0/e accumulates the cross-covariance; Q is the orthogonal polar
  factor of M + ε Q (Schönemann 1966), where the small ε keeps Q as it is in directions nothing is known about.
  The d x d decomposition is made every 20th step: the average is older than that anyway.
- ``cayley``: Q = (I - A/2)⁻¹(I + A/2) with a skew-symmetric A that follows its plain gradient. One d x d factorisation
  per step; cannot reach eigenvalue -1.
- ``low_rank``: the same with A = B Cᵀ - C Bᵀ, B and C (d, rank): turns at most 2 rank directions, and costs almost
  nothing at any width. B starts orthonormal, C at zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from repsim.config import PenaltyConfig
from repsim.penalties.base import energy
from repsim.seeding import torch_generator

_DRIFT_ALLOWED = 1e-5
_REFRESH = 20
_STIFFNESS = 1e-3


class Rotation(nn.Module, ABC):
    """One orthogonal (d, d) matrix Q, learned beside the model."""

    @abstractmethod
    def back(self, teacher: Tensor) -> Tensor:
        """Z0 Qᵀ for Z0 (n, d)."""

    @abstractmethod
    def learn(self, features: Tensor, teacher: Tensor, rotated: Tensor) -> None:
        """One step on a batch: F, Z0 and ``back(Z0)``, each (n, d), without gradient."""

    def upkeep(self) -> None:
        """Repair rounding, once an epoch."""


class Riemannian(Rotation):
    """Riemannian descent with a low-rank Cayley retraction.

    ``q_lr`` is the step size relative to the energy of the batch's pretrained features; below 2 or so a step cannot
    overshoot.
    """

    Q: Tensor

    def __init__(self, dim: int, q_lr: float) -> None:
        super().__init__()
        self.q_lr = q_lr
        self.register_buffer("Q", torch.eye(dim))

    def back(self, teacher: Tensor) -> Tensor:
        """Z0 Qᵀ."""
        return teacher @ self.Q.T

    def learn(self, features: Tensor, teacher: Tensor, rotated: Tensor) -> None:
        """One step along the geodesic's Cayley approximation."""
        step = self.q_lr / float(energy(teacher))
        # left.T is U, right.T is V, core the 2n x 2n matrix to be inverted; Vᵀ Q needs no product for B, as B Q = Z0.
        left = torch.cat([features, -rotated])
        right = torch.cat([rotated, features])
        right_q = torch.cat([teacher, features @ self.Q])
        core = torch.eye(len(left), device=left.device) - (step / 2) * (right @ left.T)
        self.Q.addmm_(left.T, torch.linalg.solve(core, right_q), alpha=step)

    def upkeep(self) -> None:
        """Undo the rounding drift away from the manifold: one Newton step of the polar decomposition."""
        probe = torch.ones(len(self.Q), device=self.Q.device)
        drift = (self.Q.T @ (self.Q @ probe) - probe).abs().max()
        if float(drift) > _DRIFT_ALLOWED:
            self.Q.copy_(1.5 * self.Q - 0.5 * self.Q @ (self.Q.T @ self.Q))


class Procrustes(Rotation):
    """The closed form for the running mean of the cross-covariance; ``momentum`` is the newest batch's weight."""

    Q: Tensor
    moment: Tensor
    steps: Tensor

    def __init__(self, dim: int, momentum: float) -> None:
        super().__init__()
        self._momentum = momentum
        self.register_buffer("Q", torch.eye(dim))
        self.register_buffer("moment", torch.zeros(dim, dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def back(self, teacher: Tensor) -> Tensor:
        """Z0 Qᵀ."""
        return teacher @ self.Q.T

    def learn(self, features: Tensor, teacher: Tensor, rotated: Tensor) -> None:
        """Accumulate; every 20th time, solve."""
        weight = self._momentum / float(energy(teacher))
        self.moment.addmm_(features.T, teacher, beta=1.0 - self._momentum, alpha=weight)
        self.steps += 1
        if int(self.steps) % _REFRESH == 0:
            self.Q.copy_(polar_factor(self.moment, self.Q))


class Cayley(Rotation):
    """A dense skew-symmetric parameter under plain gradient steps; ``q_lr`` as in :class:`Riemannian`."""

    A: Tensor

    def __init__(self, dim: int, q_lr: float) -> None:
        super().__init__()
        self.q_lr = q_lr
        self.register_buffer("A", torch.zeros(dim, dim))

    def back(self, teacher: Tensor) -> Tensor:
        """Z0 Qᵀ, by (I - A/2)⁻¹(I + A/2) = 2(I - A/2)⁻¹ - I."""
        identity = torch.eye(len(self.A), device=self.A.device, dtype=self.A.dtype)
        self._factors = torch.linalg.lu_factor(identity - self.A / 2)
        solved: Tensor = torch.linalg.lu_solve(*self._factors, teacher.T).T
        return 2 * solved - teacher

    def learn(self, features: Tensor, teacher: Tensor, rotated: Tensor) -> None:
        """One gradient step on A: with P = (I - A/2)⁻¹, e dR/dA = (F P)ᵀ (F Q - Z0)(Q + I)ᵀ."""
        through = torch.linalg.lu_solve(*self._factors, features.T, adjoint=True).T
        error = 2 * through - features - teacher
        gradient = through.T @ (features - rotated + error) / energy(teacher)
        self.A -= (self.q_lr / 2) * (gradient - gradient.T)


class LowRank(Rotation):
    """A skew-symmetric parameter of rank 2 ``rank`` under plain gradient steps."""

    B: Tensor
    C: Tensor

    def __init__(self, dim: int, rank: int, q_lr: float, seed: int) -> None:
        super().__init__()
        self.q_lr = q_lr
        start = torch.randn(dim, min(rank, dim), generator=torch_generator(seed, "rotation"))
        self.register_buffer("B", torch.linalg.qr(start).Q)
        self.register_buffer("C", torch.zeros_like(self.B))

    def back(self, teacher: Tensor) -> Tensor:
        """Z0 Qᵀ."""
        return _low_rank_back(self.B, self.C, teacher)

    def learn(self, features: Tensor, teacher: Tensor, rotated: Tensor) -> None:
        """One gradient step on B and C."""
        with torch.enable_grad():
            parts = [part.clone().requires_grad_() for part in (self.B, self.C)]
            value = (features - _low_rank_back(parts[0], parts[1], teacher)).square().sum() / energy(teacher)
            gradients = torch.autograd.grad(value, parts)
        self.B -= (self.q_lr / 2) * gradients[0]
        self.C -= (self.q_lr / 2) * gradients[1]


def build_rotation(config: PenaltyConfig, dim: int, seed: int) -> Rotation:
    """The map ``config.map`` names, at the identity."""
    if config.map == "procrustes":
        return Procrustes(dim, config.momentum)
    if config.map == "cayley":
        return Cayley(dim, config.q_lr)
    if config.map == "low_rank":
        return LowRank(dim, config.rank, config.q_lr, seed)
    return Riemannian(dim, config.q_lr)


def polar_factor(moment: Tensor, current: Tensor) -> Tensor:
    """The orthogonal factor of M + ε Q, for M (d, d) and the present Q; in float64, since M is nearly singular."""
    dim = len(moment)
    wide = moment.double() + _STIFFNESS * torch.linalg.matrix_norm(moment.double()) / dim * current.double()
    left, _, right = torch.linalg.svd(wide)
    factor: Tensor = left @ right
    return factor.to(moment.dtype)


def _low_rank_back(b: Tensor, c: Tensor, teacher: Tensor) -> Tensor:
    """Z0 Qᵀ with A = U Vᵀ, U = [-C, B], V = [B, C]: Q = I + U (I - VᵀU/2)⁻¹ Vᵀ."""
    u, v = torch.cat([-c, b], dim=1), torch.cat([b, c], dim=1)
    core = torch.eye(u.shape[1], device=u.device, dtype=u.dtype) - v.T @ u / 2
    inner: Tensor = torch.linalg.solve(core, (teacher @ v).T).T
    return teacher + inner @ u.T
