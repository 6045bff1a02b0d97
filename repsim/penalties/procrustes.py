"""Procrustes: the share of the features' energy that no rotation brings onto the pretrained ones.

R = 1 - |Zcᵀ Z0c|_* / (|Zc| |Z0c|), with Zc, Z0c the batch-centred finetuned and pretrained features (n, d) and |.|_*
the nuclear norm: the orthogonal Procrustes problem (Schönemann 1966) solved for every batch in closed form, in its
scale-invariant version (Ding et al. 2021, arXiv 2108.01661; the closed-form relative of arXiv 2503.07399's learnable
map). In [0, 1]; zero, with zero gradient, at the pretrained weights and wherever Z = s Z0 Q + 1b. Dimensionless. With n
below d it is lenient: one rotation for each batch fits much by chance.

The nuclear norm comes from the n x n Gram matrices K = Zc Zcᵀ and L = Z0c Z0cᵀ, as tr (L^½ K L^½)^½, and its gradient
from the envelope theorem with the best rotation held fixed:  d|.|_*/dZc = T Zc,  T = L^½ (L^½ K L^½)^(-½) L^½.  Nothing
is differentiated through a decomposition, which would divide by the differences of singular values (of which d - n + 1
at least are zero). The n x n algebra is float64, since it works with squares of singular values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repsim.penalties.base import FeaturePenalty, attach_gradient, centred

_NEGLIGIBLE = 1e-7


class Procrustes(FeaturePenalty):
    """1 - nuclear norm of the cross-covariance, relative to the norms."""

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d)."""
        ours, theirs = centred(features), centred(teacher)
        value, gradient = distance_and_gradient(ours.detach(), theirs)
        return attach_gradient(ours, value, gradient)


def distance_and_gradient(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """R of two centred (n, d) matrices, and its gradient (n, d) towards the first, in their dtype."""
    ours64, theirs64 = ours.double(), theirs.double()
    gram, root = ours64 @ ours64.T, _root(theirs64 @ theirs64.T)
    values, vectors = torch.linalg.eigh(root @ gram @ root)
    singular = values.clamp_min(0.0).sqrt()
    kept = singular > _NEGLIGIBLE * singular[-1]
    inverse = torch.where(kept, 1.0 / singular.clamp_min(1e-300), torch.zeros_like(singular))
    half = root @ vectors
    transport = half @ (inverse[:, None] * half.T)
    squared = gram.trace().clamp_min(1e-24)
    norm = (squared * theirs64.square().sum().clamp_min(1e-24)).sqrt()
    similarity = singular.sum() / norm
    gradient = similarity / squared * ours64 - transport @ ours64 / norm
    return (1.0 - similarity).to(ours.dtype), gradient.to(ours.dtype)


def _root(gram: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(gram)
    root: Tensor = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
    return root
