"""A kept model behind MLflow's general interface: ``mlflow.pyfunc.load_model`` finds :func:`_load_pyfunc` here by name.

A table with the column ``image`` goes in: paths, contents of image files as bytes, or ``data:`` URIs of those, mixed as
you like. For every image a record comes out, as in a trial's predictions: ``predicted``, and ``probability CLASS`` for
each class. No MLflow is imported.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path

from repsim.errors import Mistake, RequestError, one_line
from repsim.export import Classifier, Image, load_model
from repsim.records import PROBABILITY_PREFIX

IMAGE, PREDICTED = "image", "predicted"
"""Column of the images that go in, and of the class names that come out."""
_DATA_URI = "data:"


class ImageClassifier:
    """What ``mlflow.pyfunc`` calls; ``classifier`` is the model itself."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def predict(
        self, model_input: Mapping[str, Iterable[object]], params: Mapping[str, object] | None = None
    ) -> list[dict[str, object]]:
        """A record per image, in order; ``params`` there are none.

        Raises :class:`repsim.errors.RequestError` for a table without the column ``image``, for something in it that is
        no image, and for an image that cannot be decoded.
        """
        if IMAGE not in model_input:
            raise RequestError(Mistake(where="input", key=IMAGE, problem="is missing", allowed="a column of images"))
        classes = self.classifier.classes
        shares = self.classifier.probabilities(
            as_image(number, value) for number, value in enumerate(model_input[IMAGE], start=1)
        )
        columns = [f"{PROBABILITY_PREFIX}{name}" for name in classes]
        return [
            {PREDICTED: classes[int(row.argmax())], **dict(zip(columns, row.tolist(), strict=True))} for row in shares
        ]


def as_image(number: int, value: object) -> Image:
    """What stands in a table's cell as an image; :class:`RequestError`, naming its ``number``, when it is none."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str) and value.startswith(_DATA_URI):
        try:
            return base64.b64decode(value.partition(",")[2], validate=True)
        except binascii.Error:
            raise _wrong(number, "is a data: URI that is not base64") from None
    if isinstance(value, str | Path) and str(value).strip() and "\x00" not in str(value):
        return Path(value)
    raise _wrong(number, f"is {one_line(value)}")


def _wrong(number: int, problem: str) -> RequestError:
    allowed = "a path, the bytes of an image file, or a data: URI of them"
    return RequestError(Mistake(where=f"image {number}", key="", problem=problem, allowed=allowed))


def _load_pyfunc(data_path: str) -> ImageClassifier:
    return ImageClassifier(load_model(Path(data_path)))
