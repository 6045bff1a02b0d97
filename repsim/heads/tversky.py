"""The Tversky head: how alike are an image's features and one prototype per class, by Tversky's contrast model.

A bank of K features f_k (K, d) describes both sides (arXiv 2506.11035). The salience of f_k in x is u_k = x·f_k where
that is positive, else 0, and w_k likewise for a prototype. The logit is

    S(x, p) = θ f(x ∩ p) - α f(x - p) - β f(p - x)

with learnable θ = 1, α = β = 0.5 at the start, and bank and prototypes drawn from U(0, 1).

Intersection f(x ∩ p), ``product`` unless said otherwise. The paper joins feature by feature, Σ_k Ψ(u_k, w_k) over the k
where both are positive; the authors' library sums first, Ψ(Σ_k u_k [w_k > 0], Σ_k w_k [u_k > 0]). Product and mean are
the same both ways. Difference f(x - p): ``ignorematch`` is Σ_k u_k [w_k = 0]; ``subtractmatch`` adds what the shared
features have in excess, max(Σ_k u_k [w_k > 0] - Σ_k w_k [u_k > 0], 0).

With d = 1280 and K = 64 unnormalised logits start in the thousands, so rows are brought to length 1 here by default,
unlike in the library. Bank and prototypes start at unit scale: at a linear head's learning rate this one learns slowly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_SMALLEST = 1e-12  # keeps the geometric mean's gradient finite where nothing is shared

_JOIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda a, b: a * b,
    "min": torch.minimum,
    "max": torch.maximum,
    "mean": lambda a, b: (a + b) / 2,
    "gmean": lambda a, b: torch.exp((a.clamp_min(_SMALLEST).log() + b.clamp_min(_SMALLEST).log()) / 2),
    "softmin": lambda a, b: -torch.logaddexp(-a, -b),
}


def intersection(x: Tensor, y: Tensor, how: str, *, per_feature: bool) -> Tensor:
    """f(x ∩ y), (n, m), of saliences x (n, K) and y (m, K), all non-negative."""
    if how == "product":
        return x @ y.T
    if per_feature:
        both = (x > 0)[:, None] & (y > 0)[None]
        return (_JOIN[how](x[:, None], y[None]) * both).sum(-1)
    return _JOIN[how](*_shared(x, y))


def difference(x: Tensor, y: Tensor, how: str) -> Tensor:
    """f(x - y), (n, m), of saliences x (n, K) and y (m, K), all non-negative."""
    alone = x @ (y <= 0).to(x.dtype).T
    if how == "ignorematch":
        return alone
    of_x, of_y = _shared(x, y)
    return alone + (of_x - of_y).clamp_min(0)


def _shared(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What the features that both sides have weigh in x, and in y; (n, m) each."""
    return x @ (y > 0).to(x.dtype).T, (x > 0).to(y.dtype) @ y.T


class TverskyHead(nn.Module):
    """Logits S(x, prototype_c). (classes + ``bank``) x d + 3 parameters; the settings are ``HeadConfig``'s."""

    def __init__(
        self,
        dim: int,
        n_classes: int,
        generator: torch.Generator,
        *,
        bank: int,
        normalise: bool,
        intersection: str,
        difference: str,
        per_feature: bool,
    ) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.empty(n_classes, dim).uniform_(generator=generator))
        self.bank = nn.Parameter(torch.empty(bank, dim).uniform_(generator=generator))
        self.theta = nn.Parameter(torch.tensor(1.0))
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.beta = nn.Parameter(torch.tensor(0.5))
        self._normalise, self._per_feature = normalise, per_feature
        self._intersection, self._difference = intersection, difference

    def forward(self, features: Tensor) -> Tensor:
        """Logits (b, classes) of features (b, d)."""
        rows = (features, self.prototypes, self.bank)
        x, prototypes, bank = (nn.functional.normalize(r, dim=-1) for r in rows) if self._normalise else rows
        u, w = torch.relu(x @ bank.T), torch.relu(prototypes @ bank.T)
        shared = intersection(u, w, self._intersection, per_feature=self._per_feature)
        ours, theirs = difference(u, w, self._difference), difference(w, u, self._difference).T
        return self.theta * shared - self.alpha * ours - self.beta * theirs
