"""The line between pretrained and finetuned weights (WiSE-FT: Wortsman et al. 2022, arXiv 2109.01903, section 3).

θ(α) = (1 - α) · θ_pretrained + α · θ_finetuned, for every parameter and for batch norm's running statistics. The
paper's pretrained end brings its classifier along (a zero-shot one); an image backbone has none, so here it has the
converged linear probe. α = 0 is then the linear probe of the same data, α = 1 the finetuned model, bit for bit.

Adapters that can be merged are merged first (LoRA). The parameters of others (AdaptFormer) go on the line between
their values before the first step, with which the network is the pretrained one, and their trained values.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from repsim.model import FineTuned


def interpolated(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The state (1 - alpha) · start + alpha · end, tensor by tensor; exactly ``start`` at 0 and ``end`` at 1.

    Tensors that are no floating-point numbers (how many batches a norm has seen) are those of ``end``. Raises
    ValueError for an ``alpha`` outside 0 … 1 and for states that are not of one architecture.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is {alpha:g}, and the line goes from 0 to 1")
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (start, end)]
    if shapes[0] != shapes[1]:
        differing = sorted(name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name))
        raise ValueError(f"there is no line between two architectures: {differing[0]} differs")
    return {
        name: torch.lerp(start[name].to(tensor), tensor, alpha) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in end.items()
    }


class Line:
    """The networks between ``start`` (pretrained, with its linear probe) and ``end`` (finetuned).

    Both are of one method and configuration, so that they have the same parameters; neither is changed. ``start`` is
    the first one's state, merged.
    """

    @torch.no_grad()
    def __init__(self, start: FineTuned, end: FineTuned) -> None:
        whole = end.merged()
        self.start, self._end = start.merged().state_dict(), whole.state_dict()
        self._model = copy.deepcopy(whole)

    @torch.no_grad()
    def at(self, alpha: float) -> FineTuned:
        """The network at ``alpha`` (0 … 1): one and the same object every time, with other weights."""
        self._model.load_state_dict(interpolated(self.start, self._end, alpha))
        return self._model
