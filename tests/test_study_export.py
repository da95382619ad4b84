import dataclasses

import polars
import pytest

from study_cases import BLOBS, small
from thalweg.study.errors import StudyError
from thalweg.study.planning.budget import Budget
from thalweg.study.reporting import export
from thalweg.study.study import Study, compare


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two optimizers that share no hyperparameter but the learning rate; a default of one wins."""
    return compare(
        BLOBS,
        ["sgd", "adam"],
        lr=[0.01, 0.1],
        seeds=2,
        every=5,
        budget=Budget(steps=10),
        out=tmp_path_factory.mktemp("study"),
        jobs=1,
    )


@pytest.mark.parametrize(
    ("ending", "read"), [("parquet", polars.read_parquet), ("csv", polars.read_csv), ("CSV", polars.read_csv)]
)
def test_every_trial_is_a_row(study, tmp_path, ending, read):
    export.write(study, tmp_path / f"study.{ending}")
    found = read(tmp_path / f"study.{ending}")
    assert found.columns[:6] == ["contestant", "stage", "seed", "until", "id", "batch_size"]
    assert found.columns[6] == "hyperparameter.lr"
    rows = study.rows()
    assert len(found) == len(rows) == 2 * (2 * 2 + 2 + 2)
    for line, row in zip(found.iter_rows(named=True), rows, strict=True):
        assert {key: value for key, value in line.items() if value is not None} == {
            key: value for key, value in row.items() if value is not None
        }


def test_every_evaluation_is_a_row_beside_its_trial(study, tmp_path):
    study.export(tmp_path / "all.parquet", evaluations=True)
    found = polars.read_parquet(tmp_path / "all.parquet")
    rows = study.rows()
    assert len(found) == 2 * len(rows)
    assert found["step"].to_list() == [5, 10] * len(rows)
    assert found["id"].to_list() == [row["id"] for row in rows for _ in range(2)]
    last = found.filter(polars.col("step") == 10)
    for column in ("contestant", "stage", "seed", "hyperparameter.beta_1", "val_loss", "gradient_norm"):
        assert last[column].to_list() == [row.get(column) for row in rows]


def test_what_is_in_the_folder_but_not_of_the_study_stays_out(study, tmp_path):
    fewer = Study.open(study.store.folder)
    fewer.entries = fewer.entries[:3]
    assert len(export.table(fewer, evaluations=True)) == 3 * 2


def test_what_is_nested_is_flattened(study, monkeypatch):
    rows = [{**row, "device": {"name": "x", "cores": [3, 4]}} for row in study.rows()]
    monkeypatch.setattr(study, "rows", lambda: rows)
    found = export.table(study)
    assert found["device.name"].unique().to_list() == ["x"]
    assert found.select("device.cores.0", "device.cores.1").unique().rows() == [(3, 4)]


@pytest.mark.parametrize("evaluations", [False, True])
def test_a_study_that_has_just_begun_is_an_empty_table(tmp_path, evaluations):
    begun = Study.of(small(), tmp_path / "study")
    (tmp_path / "study" / "trials" / "0.jsonl").write_text(
        '{"record": "evaluation", "step": 5}\n'
    )  # under way
    begun.export(tmp_path / "none.csv", evaluations)
    assert polars.read_csv(tmp_path / "none.csv").is_empty()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("study.xlsx", "its ending tells its kind, and is .parquet or .csv"),
        ("study", "its ending tells its kind"),
        ("none/study.csv", r"study\.csv cannot be written: there is no folder '.*none'$"),
        ("none/study.parquet", r"study\.parquet cannot be written: there is no folder '.*none'$"),
    ],
)
def test_where_nothing_can_be_written_is_said(study, tmp_path, name, message):
    with pytest.raises(StudyError, match=message):
        study.export(tmp_path / name)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_is_written_beside_and_moved_into_place(study, tmp_path, monkeypatch, ending):
    (tmp_path / "kept").write_text("kept")
    path = tmp_path / f"runs.{ending}"
    path.symlink_to(tmp_path / "kept")
    study.export(path)
    assert not path.is_symlink()
    assert (tmp_path / "kept").read_text() == "kept"
    before = path.read_bytes()

    def fails(table, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(polars.DataFrame, f"write_{ending}", fails)
    with pytest.raises(StudyError, match="cannot be written: No space left"):
        study.export(path)
    assert path.read_bytes() == before
    assert {found.name for found in tmp_path.iterdir()} == {"kept", path.name}


def test_rates_that_follow_a_schedule_of_their_own_stay_readable(study):
    """Where one contestant's rate is described in words, the column is of text."""
    other = Study.open(study.store.folder)
    key = other.entries[0].id
    run = other.runs[key]
    specification = run.header["specification"]
    told = {**specification, "hyperparameters": {"lr": "Cosine(0.1, 30)"}}
    other.runs[key] = dataclasses.replace(run, header={**run.header, "specification": told})
    assert export.table(other)["hyperparameter.lr"][0] == "Cosine(0.1, 30)"
