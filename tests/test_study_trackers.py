import dataclasses
import sys

import pytest

from study_cases import BLOBS
from thalweg.study.errors import StudyError
from thalweg.study.planning.budget import Budget
from thalweg.study.reporting import trackers
from thalweg.study.reporting.trackers import MLflow, TensorBoard
from thalweg.study.study import compare

pytestmark = [
    # TensorFlow, which tensorboard loads where it is installed, and MLflow's database speak of what is old.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A database for all tests: making one takes longer than a study."""
    pytest.importorskip("mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def logged(uri, **options):
    """What MLflow has of the task."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return client.search_runs([client.get_experiment_by_name("blobs").experiment_id], **options)


def studied(folder, progress, **options):
    """Two rates, two search seeds, a final seed and a default: six runs of two evaluations."""
    options = {"seeds": 1, "defaults": True, **options}
    return compare(
        BLOBS,
        "adam",
        lr=[0.01, 0.1],
        every=5,
        budget=Budget(steps=10),
        out=folder,
        jobs=1,
        progress=progress,
        **options,
    )


def events(folder):
    """By run: tag, step and value of each scalar, and the hyperparameters."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = {}
    for run in {path.parent for path in folder.rglob("events.*")}:
        told = EventAccumulator(str(run)).Reload()
        scalars = {tag: [(e.step, e.value) for e in told.Scalars(tag)] for tag in told.Tags()["scalars"]}
        content = told.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        values = HParamsPluginData.FromString(content).session_start_info.hparams
        params = {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}
        found[str(run.relative_to(folder))] = scalars, params
    return found


def test_tensorboard_has_every_run_once(tmp_path):
    pytest.importorskip("tensorboard")
    study = studied(tmp_path / "study", TensorBoard(tmp_path / "logs"))
    found = events(tmp_path / "logs")
    assert len(found) == study.done == 2 * 2 + 1 + 1
    (final,) = [row for row in study.rows() if row["stage"] == "final"]
    scalars, params = found[f"adam/final lr=0.1 seed=1000 {final['id'][:6]}"]
    assert [step for step, _ in scalars["val_loss"]] == [5, 10]
    assert scalars["val_loss"][-1][1] == pytest.approx(final["val_loss"])
    assert scalars["end/test_accuracy"] == [(10, pytest.approx(final["test_accuracy"]))]
    assert params["contestant"] == "adam"
    assert (params["stage"], params["seed"], params["batch_size"]) == ("final", 1000, 16)
    assert (params["lr"], params["beta_1"]) == (0.1, 0.9)
    studied(tmp_path / "study", TensorBoard(tmp_path / "logs"))
    assert events(tmp_path / "logs").keys() == found.keys()
    assert len(list((tmp_path / "logs").rglob("events.*"))) == 2 * study.done, (
        "a file each, and its parameters"
    )


def test_mlflow_has_every_run_once(tmp_path, uri):
    study = studied(tmp_path / "study", MLflow(uri))
    found = {run.data.tags["thalweg.trial"]: run for run in logged(uri)}
    assert found.keys() == study.runs.keys()
    (final,) = [row for row in study.rows() if row["stage"] == "final"]
    run = found[final["id"]]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"adam/final lr=0.1 seed=1000 {final['id'][:6]}"
    assert run.data.params["contestant"] == "adam"
    assert (run.data.params["seed"], run.data.params["stage"]) == ("1000", "final")
    assert (run.data.params["lr"], run.data.params["beta_1"]) == ("0.1", "0.9")
    assert run.data.metrics["test_loss"] == pytest.approx(final["test_loss"])
    history = MLflow(uri)._client.get_metric_history(run.info.run_id, "val_loss")
    assert [(metric.step, metric.value) for metric in history] == [
        (record["step"], record["val_loss"]) for record in study.runs[final["id"]].evaluations
    ]
    studied(tmp_path / "study", MLflow(uri), seeds=2)
    assert len(logged(uri)) == study.done + 2, "only the runs that are new"


def test_what_failed_is_logged_as_such(tmp_path, uri):
    study = studied(tmp_path / "study", None)
    run = next(iter(study.runs.values()))
    lost = dataclasses.replace(run, evaluations=(), end={"status": "crashed", "reason": "a fault"})
    for tracker in (TensorBoard(tmp_path / "logs"), MLflow(uri)):
        tracker(study, lost)
        assert tracker.sentence is None
    assert len(events(tmp_path / "logs")) == 1
    (found,) = logged(uri, filter_string="attributes.status = 'FAILED'")
    assert found.data.tags["thalweg.reason"] == "a fault"


def test_a_study_goes_on_where_its_tracker_fails(tmp_path):
    class Broken(trackers.Tracker):
        called = 0

        def _log(self, study, run):
            self.called += 1
            if self.called > 2:
                raise OSError("gone")

    tracker = Broken("the book")
    study = studied(tmp_path, tracker)
    assert study.complete
    assert tracker.called == 3, "not asked again"
    assert tracker.sentence == f"the book is without the last {study.done - 2} training runs: OSError: gone"


@pytest.mark.parametrize(
    ("module", "make", "message"),
    [
        ("torch.utils.tensorboard", lambda: TensorBoard("logs"), "pip install tensorboard"),
        ("mlflow.tracking", lambda: MLflow("sqlite://"), "pip install mlflow-skinny"),
    ],
)
def test_one_that_is_not_installed_is_named(monkeypatch, module, make, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StudyError, match=f"is not installed: {message}"):
        make()


def test_a_place_that_cannot_be_used_is_said_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be written"):
        TensorBoard(tmp_path / "file" / "logs")
    pytest.importorskip("mlflow")
    monkeypatch.setattr(trackers, "ATTEMPTS", 0)
    with pytest.raises(StudyError, match=r"MLflow at http://127\.0\.0\.1:9 cannot be used: .*refused"):
        MLflow("http://127.0.0.1:9")
