"""A finetuned model on disk: its weights, and everything else it takes to classify images as its trial did.

A folder holds ``model.safetensors`` (the state, adapters unmerged, so that every bit of the trial's answers comes back)
and ``config.json`` (:class:`Manifest`). Where the trial measured points between pretrained and finetuned weights,
``start.safetensors`` is the other end of that line, and :func:`save_point` writes the model of such a point. There is
neither code nor pickle in it: a folder from somebody else can be looked at.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from repsim.adapters import REGISTRY as ADAPTERS
from repsim.adapters import check_adapter
from repsim.backbones import empty_backbone
from repsim.config import Frozen, Positive, TrialConfig
from repsim.data import decode
from repsim.data.listing import Pixels
from repsim.data.views import to_tensor
from repsim.errors import Mistake, RequestError, one_line
from repsim.evaluation import EVALUATION_BATCH, outputs_on, probabilities
from repsim.model import FineTuned, build_model
from repsim.seeding import torch_generator
from repsim.trainer import Trainer
from repsim.wise import interpolated

FORMAT = 1
"""Raised whenever such a folder means something else."""
WEIGHTS, START, MANIFEST = "model.safetensors", "start.safetensors", "config.json"
_PACKAGES = ("repsim-sweeps", "torch", "timm", "numpy", "pillow", "safetensors")
_MANIFEST_BYTES = 10_000_000
Image = Path | bytes | Pixels
"""A file, the content of one, or uint8 pixels (height, width) or (height, width, 3)."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Manifest(Frozen):
    """``config.json``: what a model is, beside its weights."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    """Of the folder."""
    config: dict[str, object]
    """The trial's flat configuration: backbone, adapter, head, image size and how rectangles become squares."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    """In the order of the logits."""
    mean: tuple[Finite, Finite, Finite]
    """Taken off each channel (red, green, blue) of an image on a 0-1 scale."""
    std: tuple[Positive, Positive, Positive]
    """And what is left is divided by it."""
    decoding: int
    """Version of the rules by which a file becomes 8-bit RGB (``repsim.data.decode``)."""
    weights_id: str
    """Names the pretrained weights it started from."""
    threads: int
    """With so many threads on the same machine, its answers are the trial's bit for bit."""
    versions: dict[str, str]
    """Of what it was made with."""
    files: dict[str, str]
    """SHA-256 of the tensor files, by name."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("must name each class once")
        return value


class Classifier:
    """Classifies images as the trial did: the same decoding, the same batches, the same network.

    ``classes`` name the columns of what it answers; ``manifest`` says where it comes from.
    """

    def __init__(self, model: FineTuned, config: TrialConfig, manifest: Manifest) -> None:
        self.model, self.config, self.manifest = model.eval(), config, manifest

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the answers."""
        return self.manifest.classes

    def probabilities(self, images: Iterable[Image]) -> NDArray[np.float64]:
        """Softmax over the classes, (n, classes), in the order of the images.

        The images a trial was tested on, in that order, give the trial's answers bit for bit, with the same number of
        threads on the same machine; in another order or number they may differ by the rounding of fp32. (A linear
        probe's come from features that were computed among all images of the data set, so that rounding is theirs
        always.) Raises :class:`RequestError` naming an image that cannot be decoded.
        """
        some = [outputs_on(self.model, [batch]).logits for batch in self._batches(images)]
        return probabilities(np.concatenate(some)) if some else np.empty((0, len(self.classes)))

    def merged(self) -> dict[str, Tensor]:
        """Weights of the same function in plain layers (adapters folded in where they can be), by timm's names."""
        with torch.no_grad():
            return {name: tensor.detach() for name, tensor in self.model.merged().state_dict().items()}

    def _batches(self, images: Iterable[Image]) -> Iterator[Tensor]:
        data = self.config.data
        numbered = enumerate(images, start=1)
        while some := list(islice(numbered, EVALUATION_BATCH)):
            pixels = np.stack([_decoded(number, image, data.image_size, data.resize) for number, image in some])
            yield to_tensor(pixels).to(self.model.mean.device)


def model_files(trainer: Trainer) -> dict[str, bytes]:
    """What rebuilds the model that ``trainer.finish()`` measured: content by file name, to be written in this order.

    Raises RuntimeError before ``finish``.
    """
    model = trainer.reported
    if model is None:
        raise RuntimeError("there is no model to keep before finish()")
    tensors = {WEIGHTS: _serialised(model.state_dict())}
    if trainer.line is not None:
        tensors[START] = _serialised(trainer.line.start)
    backbone = trainer.backbone
    manifest = Manifest(
        config=trainer.config.flat(),
        classes=trainer.classes,
        mean=backbone.mean,
        std=backbone.std,
        decoding=decode.VERSION,
        weights_id=backbone.weights_id,
        threads=torch.get_num_threads(),
        versions=_versions(),
        files={name: _sha256(content) for name, content in tensors.items()},
    )
    return {**tensors, MANIFEST: _text(manifest)}


def save_model(trainer: Trainer, folder: Path) -> None:
    """Write :func:`model_files` into ``folder``, which is made where it is not there. OSError as usual."""
    _write(model_files(trainer), folder)


def save_point(folder: Path, alpha: float, out: Path) -> None:
    """Write into ``out`` the model at ``alpha`` between the pretrained weights (0) and the model in ``folder`` (1).

    Raises :class:`RequestError` as :func:`load_model` does, and when ``folder`` does not hold the line's other end.
    """
    where, manifest = str(folder / MANIFEST), _read_manifest(folder)
    if START not in manifest.files:
        problem = "is that of a trial without points between the pretrained and the finetuned weights"
        raise RequestError(Mistake(where=where, key="files", problem=problem))
    start = _read_tensors(folder, START, manifest)
    end = _rebuilt(folder, manifest).merged()
    _check_fit(start, end, str(folder / START))
    weights = _serialised(interpolated(start, end, alpha))
    point = manifest.model_copy(
        update={
            "config": {**manifest.config, "measure.wise": False, "wise_alpha": alpha},
            "files": {WEIGHTS: _sha256(weights)},
        }
    )
    _write({WEIGHTS: weights, MANIFEST: _text(point)}, out)


def load_model(folder: Path, *, device: torch.device | None = None) -> Classifier:
    """The model in ``folder``, on the CPU unless ``device`` says otherwise.

    Raises :class:`RequestError` when a file is missing, damaged or changed, when the configuration is not valid, when
    the weights are not those of the network it names, or when this version of the project decodes images by other
    rules than the trial did.
    """
    return _rebuilt(folder, _read_manifest(folder), device)


def _rebuilt(folder: Path, manifest: Manifest, device: torch.device | None = None) -> Classifier:
    where = str(folder / MANIFEST)
    config = TrialConfig.from_flat(manifest.config, where=where)
    backbone = empty_backbone(
        config.backbone.name,
        image_size=config.data.image_size,
        mean=manifest.mean,
        std=manifest.std,
        weights_id=manifest.weights_id,
    )
    check_adapter(config, backbone)
    with torch.random.fork_rng(devices=[]):  # layers draw numbers that the kept ones replace
        model = build_model(config, backbone, len(manifest.classes))
        adapter = ADAPTERS[config.parsed_method.adapter]
        adapter.prepare(model, config.adapter, torch_generator(config.seed, "adapter"))
    if config.wise_alpha < 1.0:  # a point on the line between merged models
        model = model.merged()
    state = _read_tensors(folder, WEIGHTS, manifest)
    _check_fit(state, model.state_dict(), str(folder / WEIGHTS))
    model.load_state_dict(state)
    return Classifier(model.to(device) if device is not None else model, config, manifest)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    content = _read(path)
    if len(content) > _MANIFEST_BYTES:
        raise _refused(path, "", f"is larger than {_MANIFEST_BYTES} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise _refused(path, "", "is not JSON") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise _refused(path, "format", f"{one_line(found)} is none that this version reads", str(FORMAT))
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise RequestError(
            *(
                Mistake(where=str(path), key=".".join(map(str, item["loc"])), problem=item["msg"])
                for item in error.errors()
            )
        ) from None
    if manifest.decoding != decode.VERSION:
        problem = f"the images were decoded by rules of version {manifest.decoding}, this is version {decode.VERSION}"
        raise _refused(path, "decoding", f"{problem}: the answers would be others")
    return manifest


def _read_tensors(folder: Path, name: str, manifest: Manifest) -> dict[str, Tensor]:
    path = folder / name
    content = _read(path)
    if _sha256(content) != manifest.files.get(name):
        raise _refused(path, "", f"is damaged or was changed: it is not the file that {MANIFEST} names")
    try:
        return load(content)
    except SafetensorError as error:
        raise _refused(path, "", f"is not a readable safetensors file ({error})") from None


def _check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """RequestError naming the first tensor that is missing, unknown, of another shape or kind, or not finite."""
    for name in sorted(state.keys() | wanted.keys()):
        problem = ""
        if name not in state:
            problem = "is missing"
        elif name not in wanted:
            problem = "is none of the network's"
        elif state[name].shape != wanted[name].shape or state[name].dtype != wanted[name].dtype:
            found, due = (f"{one[name].dtype} {list(one[name].shape)}" for one in (state, wanted))
            problem = f"is {found}, the network's is {due}"
        elif not bool(torch.isfinite(state[name]).all()):
            problem = "holds values that are not finite"
        if problem:
            raise RequestError(Mistake(where=where, key="", problem=f"tensor {one_line(name)} {problem}"))


def _decoded(number: int, image: Image, size: int, resize: decode.Resize) -> Pixels:
    try:
        return decode.decode(image, size, resize)
    except decode.UnreadableImageError as error:
        name = str(image) if isinstance(image, Path) else f"image {number}"
        raise RequestError(Mistake(where=one_line(name, 200)[1:-1], key="", problem=str(error))) from None


def _serialised(state: Mapping[str, Tensor]) -> bytes:
    """As a safetensors file; copies, because it knows neither other memory layouts nor shared memory."""
    plain = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    return save(plain)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a folder, not installed
            continue
    return found


def _text(manifest: Manifest) -> bytes:
    return (json.dumps(manifest.model_dump(), indent=1, allow_nan=False) + "\n").encode("ascii")


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refused(path, "", f"cannot be read: {error.strerror}") from None


def _refused(path: Path, key: str, problem: str, allowed: str = "") -> RequestError:
    return RequestError(Mistake(where=str(path), key=key, problem=problem, allowed=allowed))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
