"""How much of a representation is kept: measures of similarity between two sets of features of the same images.

:func:`compare` gives any of the measures in ``REGISTRY`` with what it takes to read them; ``CKAStream`` and
``ExactCKAStream`` take features batch by batch. :func:`similarity_metrics` are the four that every trial reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from repsim.similarity.cka import linear_cka
from repsim.similarity.knn import default_k, knn_overlap
from repsim.similarity.procrustes import procrustes_similarity

if TYPE_CHECKING:
    from repsim.similarity.comparison import compare
    from repsim.similarity.exact_stream import ExactCKAStream
    from repsim.similarity.measure import Measure, Similarity
    from repsim.similarity.minibatch import CKAStream
    from repsim.similarity.registry import REGISTRY

__all__ = [
    "REGISTRY",
    "CKAStream",
    "ExactCKAStream",
    "Measure",
    "Similarity",
    "compare",
    "knn_overlap",
    "linear_cka",
    "procrustes_similarity",
    "similarity_metrics",
]

_HOME = {
    "REGISTRY": "registry",
    "CKAStream": "minibatch",
    "ExactCKAStream": "exact_stream",
    "Measure": "measure",
    "Similarity": "measure",
    "compare": "comparison",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'repsim.similarity' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"repsim.similarity.{_HOME[name]}"), name)


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
        "knn_overlap": knn_overlap(pretrained, finetuned, k=default_k(rows)),
    }
