"""What a member of the front leaves behind in MLflow: its model, its predictions, its confusion matrices.

Sent once, on the writer's thread, when the sweep has ended or was interrupted. A trial that leaves the front after a
resume keeps what it has: a registered model may rest on it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from repsim.records import Tag
from sweeps.confusion import confusion, csv_text, page
from sweeps.derived import alpha_of, trial_of
from sweeps.patient import short
from sweeps.run_folder import RunFolder
from sweeps.tracking_calls import permanent

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MODEL, PREDICTIONS, CONFUSION = "model", "predictions", "confusion_matrix"
"""Folders of a run's artifacts."""
_SPLITS = ("val", "test")


class FrontArtifacts:
    """Sends the artifacts of front members; ``report`` hears, once, that something could not be sent, and why.

    With ``models`` each should have one, and one that has none is reported.
    """

    def __init__(self, folder: RunFolder, *, models: bool, report: Callable[[str], None]) -> None:
        self._folder, self._models, self._report = folder, models, report
        self._reported = False

    def send(self, trial_id: str, client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> Mapping[str, str]:
        """Upload what there is of ``trial_id``; the tag that says what there is, or nothing where it was there before.

        Raises MlflowException, for whoever tries again; anything else that goes wrong costs the artifacts alone.
        """
        from mlflow.exceptions import MlflowException

        if Tag.ARTIFACTS in tags:
            return {}
        try:
            with tempfile.TemporaryDirectory(prefix=".artifacts-", dir=self._folder.root) as work:
                sent = self._send(trial_id, client, run_id, Path(work))
        # Artifact stores raise what they like (boto's errors, import errors); a sweep must not end for that.
        except Exception as error:
            if isinstance(error, MlflowException) and not permanent(error):
                raise
            self._say(f"MLflow: the artifacts of {trial_id} were not kept ({type(error).__name__}: {short(error)})")
            return {}
        if self._models and MODEL not in sent:
            self._say(f"MLflow: {trial_id} is on the front, but there is no model of it in {self._folder.models}")
        return {Tag.ARTIFACTS: ", ".join(sent)} if sent else {}

    def _send(self, trial_id: str, client: MlflowClient, run_id: str, work: Path) -> list[str]:
        sent = self._prepare_predictions(trial_id, work / "files")
        if sent:
            client.log_artifacts(run_id, str(work / "files"))
        model = self._folder.models / trial_of(trial_id)
        if not self._models or not model.is_dir():
            return sent
        from repsim.export import MANIFEST, WEIGHTS, save_point

        alpha = alpha_of(trial_id)
        if alpha is not None:
            save_point(model, alpha, work / "point")
            model = work / "point"
        for name in (WEIGHTS, MANIFEST):  # the one that names the other's checksum comes last
            client.log_artifact(run_id, str(model / name), MODEL)
        return [MODEL, *sent]

    def _prepare_predictions(self, trial_id: str, folder: Path) -> list[str]:
        """Put predictions and confusion matrices into ``folder`` as MLflow is to show them; the names of what is there.

        Without predictions there are none, and no folder.
        """
        import pyarrow.parquet as pq

        for split in _SPLITS:
            source = self._folder.predictions / f"{trial_id}_{split}.parquet"
            if not source.is_file():
                continue
            for name in (PREDICTIONS, CONFUSION):
                (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / PREDICTIONS / f"{split}.parquet").write_bytes(source.read_bytes())
            found = confusion(pq.read_table(source).to_pydict())
            (folder / CONFUSION / f"{split}.csv").write_text(csv_text(found), encoding="utf-8")
            title = f"{trial_id}, {split} images"
            (folder / CONFUSION / f"{split}.html").write_text(page(found, title), encoding="utf-8")
        return [name for name in (PREDICTIONS, CONFUSION) if (folder / name).is_dir()]

    def _say(self, line: str) -> None:
        if not self._reported:
            self._reported = True
            self._report(line)
