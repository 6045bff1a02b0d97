"""Turn a front member's kept model into an MLflow model, and register it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import repsim
from repsim.errors import Mistake, RequestError
from repsim.export import Classifier
from repsim.pyfunc import IMAGE, PREDICTED
from repsim.records import PROBABILITY_PREFIX, Tag
from sweeps.artifacts import MODEL
from sweeps.front_members import Front, Member
from sweeps.tracking_uri import quiet_mlflow

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature
    from mlflow.tracking import MlflowClient

CARD = "README.md"
_NEEDS = (
    "mlflow",
    "torch",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "pydantic",
    "pyyaml",
    "filelock",
    "safetensors",
)
"""Distributions that loading and running a kept model takes, its own code aside."""


def fetch_model(client: MlflowClient, front: Front, member: Member, into: Path) -> Path:
    """The folder of the member's kept model, downloaded; RequestError, saying how to get one, when it has none."""
    there = {entry.path for entry in client.list_artifacts(member.run_id, MODEL)}
    if not there:
        raise RequestError(Mistake(where=member.trial_id, key="", problem=_missing(front, member)))
    return Path(client.download_artifacts(member.run_id, MODEL, str(into)))


def _missing(front: Front, member: Member) -> str:
    name = front.sweep
    again = (
        f"repeat it with: python reports/build.py --sweep {name} && python sweeps/launch.py --space "
        f"runs/{name}/report/points/{member.trial_id}.yaml --name {name}-{member.trial_id}, and promote the sweep "
        f"that this makes (--sweep {name}-{member.trial_id} --pick accuracy)"
    )
    if front.ended:
        return f"has no model among its artifacts (resources.models was none, or the sweep is an old one); {again}"
    return f"has no model among its artifacts yet: python sweeps/launch.py --resume {name} ends the sweep; or {again}"


def signature(classes: tuple[str, ...]) -> ModelSignature:
    """An image in; a class name and a probability per class out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    answers: list[ColSpec | TensorSpec] = [ColSpec("string", PREDICTED)]
    answers += [ColSpec("double", f"{PROBABILITY_PREFIX}{name}") for name in classes]
    return ModelSignature(inputs=Schema([ColSpec("string", IMAGE)]), outputs=Schema(answers))


def requirements() -> list[str]:
    """What is installed here of what the model needs, pinned; builds for one kind of hardware are not told apart."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in _NEEDS]


def package(source: Path, out: Path, classifier: Classifier, card: str, model: Model | None = None) -> None:
    """Write an MLflow model into ``out``: the kept model in ``source``, the code that reads it, and its card.

    No pickle: the code is this project's package, found by name, and the weights are safetensors.
    """
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # else files of whatever project we stand in would go along
    with quiet_mlflow():
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            path=str(out),
            loader_module="repsim.pyfunc",
            data_path=str(source),
            code_paths=[str(Path(repsim.__file__).parent)],
            mlflow_model=model,
            signature=signature(classifier.classes),
            pip_requirements=requirements(),
        )
    (out / CARD).write_text(card, encoding="utf-8")


def register(
    client: MlflowClient,
    front: Front,
    member: Member,
    source: Path,
    classifier: Classifier,
    *,
    name: str,
    card: str,
    description: str,
    tags: Mapping[str, str],
    work: Path,
) -> str:
    """Upload and register the model in ``source``; returns the new version of the registered model ``name``.

    The model has files of its own: what becomes of the sweep's runs later does not touch it. Raises MlflowException and
    OSError when the store refuses; then no version has been made.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    with quiet_mlflow():
        logged = client.create_logged_model(
            front.experiment_id,
            name=re.sub(r"[^A-Za-z0-9_ -]", "-", name),
            source_run_id=member.run_id,
            tags=dict(tags),
            model_type="classifier",
        )
        try:
            model = Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                run_id=member.run_id,
                model_id=logged.model_id,
            )
            package(source, work / "packaged", classifier, card, model)
            client.log_model_artifacts(logged.model_id, str(work / "packaged"))
        except BaseException:
            client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        client.finalize_logged_model(logged.model_id, "READY")
        step = int(member.tags.get(Tag.CHOSEN_EPOCH, "0"))
        client.log_outputs(member.run_id, [LoggedModelOutput(logged.model_id, step=step)])
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = client.create_model_version(
            name,
            source=logged.artifact_location,
            run_id=member.run_id,
            tags=dict(tags),
            description=description,
            model_id=logged.model_id,
        )
    return str(made.version)
