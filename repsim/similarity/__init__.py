"""How much of a representation is kept: CKA, Procrustes and neighbour overlap between two sets of features."""

from __future__ import annotations

from numpy.typing import ArrayLike

from repsim.similarity.cka import linear_cka
from repsim.similarity.knn import knn_overlap
from repsim.similarity.procrustes import procrustes_similarity

__all__ = ["knn_overlap", "linear_cka", "procrustes_similarity", "similarity_metrics"]

_NEIGHBOURS = 10


def similarity_metrics(pretrained: ArrayLike, finetuned: ArrayLike) -> dict[str, float]:
    """``cka`` (debiased), ``cka_biased``, ``procrustes`` and ``knn_overlap`` of features (n, d), n >= 4.

    Row i of both describes the same image. 10 neighbours are compared, fewer below 21 rows, where 10 of them would be
    most of the others. Raises :class:`repsim.errors.DegenerateInputError` where a measure is not defined.
    """
    debiased, biased = linear_cka(pretrained, finetuned)
    rows = len(pretrained)  # type: ignore[arg-type]
    return {
        "cka": debiased,
        "cka_biased": biased,
        "procrustes": procrustes_similarity(pretrained, finetuned),
        "knn_overlap": knn_overlap(pretrained, finetuned, k=min(_NEIGHBOURS, (rows - 1) // 2)),
    }
