"""A vision transformer's parameters out of an ONNX graph, under the names of timm's model.

The graph is read, never run. What it must hold is the backbone of transformers' ``Dinov2Model`` (DINOv2, arXiv
2304.07193) as torch exports it, with anything behind it: the exporter folds a linear layer's weight into an anonymous,
transposed constant, and splits the position embeddings into the class token's and the patches'. Both are told from the
nodes that use them, so that no order of tensors is relied on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repsim.errors import Mistake, RequestError, one_line

EXTRA = "pip install 'repsim-sweeps[vit]'"

_BODY = "backbone."
_CLASS_POSITION, _PATCH_POSITIONS = "position.class", "position.patches"
_RENAMED = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.cls_token", "cls_token"),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)
_ATTENTION = re.compile(r"(blocks\.\d+\.)attention\.attention\.(query|key|value)\.(weight|bias)")
_PARTS = ("query", "key", "value")


def read_onnx(path: Path) -> dict[str, Tensor]:
    """The backbone's parameters in the ONNX file ``path``, named and shaped as in timm's VisionTransformer.

    What stands behind the backbone is left out. Raises :class:`RequestError` when the onnx package is missing, or the
    file cannot be read or holds another kind of graph.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx.external_data_helper import uses_external_data
        from onnx.numpy_helper import to_array
    except ImportError:
        raise _unfit(path, "reading an ONNX file needs the package onnx", allowed=f"`{EXTRA}`") from None
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError) as error:
        raise _unfit(path, f"is not a readable ONNX file ({type(error).__name__})") from None
    names = _names(graph, path)
    tensors: dict[str, Tensor] = {}
    for constant in graph.initializer:
        name, transposed = names[constant.name]
        if not name.startswith((_BODY, "position.")):
            continue
        if constant.data_type != onnx.TensorProto.FLOAT or uses_external_data(constant):
            raise _unfit(path, f"tensor {one_line(name)} is not held as 32-bit floating point numbers")
        values = torch.from_numpy(to_array(constant).copy())
        tensors[name.removeprefix(_BODY)] = values.T.contiguous() if transposed else values
    return timm_names(tensors, path)


def timm_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename transformers' Dinov2 parameters to timm's: query, key and value fused, the position embeddings in one.

    ``tensors`` has the class token's position as ``position.class`` (1, 1, d), the patches' as ``position.patches``
    (1, n, d). A name that is not known stays as it is. Raises :class:`RequestError` when a part is missing.
    """
    named: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    for original, tensor in tensors.items():
        name = original
        for theirs, ours in _RENAMED:
            name = name.replace(theirs, ours)
        part = _ATTENTION.fullmatch(name)
        if part is None:
            named[name] = tensor
        else:
            attention.setdefault(f"{part[1]}attn.qkv.{part[3]}", {})[part[2]] = tensor
    for name, parts in attention.items():
        if len(parts) != len(_PARTS):
            raise _unfit(path, f"holds only {' and '.join(parts)} of what makes up {name}")
        named[name] = torch.cat([parts[part] for part in _PARTS])
    if _CLASS_POSITION not in named or _PATCH_POSITIONS not in named:
        raise _unfit(path, "holds no position embeddings of a class token and of patches")
    named["pos_embed"] = torch.cat([named.pop(_CLASS_POSITION), named.pop(_PATCH_POSITIONS)], dim=1)
    return named


def _names(graph: Any, path: Path) -> dict[str, tuple[str, bool]]:
    """For every constant of the graph the parameter it is, and whether it is held transposed."""
    constants = [constant.name for constant in graph.initializer]
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    names = {
        name: _folded(name, users, frozenset(constants)) if name.startswith("onnx::") else (name, False)
        for name in constants
    }
    found = {name: known for name, known in names.items() if known is not None}
    for name in constants:
        if name not in found:
            raise _unfit(path, f"tensor {one_line(name)} is no parameter of a vision transformer as torch exports it")
    twice = _first_repeated(name for name, _ in found.values())
    if twice is not None:
        raise _unfit(path, f"holds {one_line(twice)} more than once")
    return found


def _folded(name: str, users: Mapping[str, list[Any]], constants: frozenset[str]) -> tuple[str, bool] | None:
    """The parameter behind an anonymous constant, from the one node that uses it; None when that tells nothing."""
    if len(users.get(name, [])) != 1:
        return None
    node = users[name][0]
    if node.op_type == "MatMul" and len(node.output) == 1:
        sums = [user for user in users.get(node.output[0], []) if user.op_type == "Add"]
        biases = [given for user in sums for given in user.input if given in constants and given.endswith(".bias")]
        return (f"{biases[0].removesuffix('bias')}weight", True) if len(biases) == 1 else None
    if "/embeddings/" not in node.name:
        return None
    position = {"Concat": _CLASS_POSITION, "Reshape": _PATCH_POSITIONS}.get(node.op_type)
    return None if position is None else (position, False)


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _unfit(path: Path, problem: str, *, allowed: str = "") -> RequestError:
    return RequestError(Mistake(where=str(path), key="backbone.weights", problem=problem, allowed=allowed))
