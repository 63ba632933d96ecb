"""Converted estimators answer as scikit-learn does, or are refused with the true reason."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.mixture import GaussianMixture
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import CategoricalNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from mlpack.model.comparison import Bounds
from mlpack.model.validation_data import InvalidValidationData
from mlpack.project.importers.estimator import EstimatorOptions
from mlpack.project.importers.estimator_conversion import run_model
from mlpack.project.importers.estimator_pickle import NotTheSame
from mlpack.project.importers.reading import read_model
from mlpack.project.importers.source import ModelSource, UnreadableModel
from mlpack.runtime import tensors
from mlpack.runtime.onnx import open_model
from tests.support import repeats

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(80, 3))
TWO = (ROWS[:, 0] > 0).astype(int)
THREE = RANDOM.integers(0, 3, 80)
BOTH = np.c_[TWO, THREE]
VALUES = ROWS @ [1.0, 2.0, 3.0]
HOLES = np.where(RANDOM.random(ROWS.shape) < 0.2, np.nan, ROWS)
EPOCH = np.c_[1.7e9 + RANDOM.integers(0, 86_400, 80), RANDOM.random(80)]
TEXTS = ["the fan is loud", "quiet fan", "bearing noise", "all good here", "loud noise"]
MOODS = ["bad", "good", "bad", "good", "bad"]


def read(folder: Path, estimator: object, **options: object) -> ModelSource:
    """Pickle, read and convert."""
    joblib.dump(estimator, folder / "m.joblib")
    return read_model(folder / "m.joblib", EstimatorOptions(trusted=True, **options))  # type: ignore[arg-type]


def inputs(found: ModelSource) -> list[str]:
    assert found.graph is not None
    return [str(each) for each in found.graph.signature.inputs]


def score(found: ModelSource, feed: dict[str, object]) -> dict[str, np.ndarray]:
    content = found.content["m.onnx"]
    assert isinstance(content, bytes)
    return run_model(content, feed)


FITTED: dict[str, Callable[[], object]] = {
    "linear svc": lambda: LinearSVC().fit(ROWS, TWO),
    "svc": lambda: SVC().fit(ROWS, TWO),
    "svc of three": lambda: SVC().fit(ROWS, THREE),
    "svr": lambda: SVR().fit(ROWS, VALUES),
    "knn imputer": lambda: make_pipeline(KNNImputer(), LogisticRegression()).fit(HOLES, TWO),
    "imputer": lambda: make_pipeline(SimpleImputer(), LogisticRegression()).fit(HOLES, TWO),
    "histogram classifier": lambda: HistGradientBoostingClassifier().fit(HOLES, TWO),
    "histogram regressor": lambda: HistGradientBoostingRegressor().fit(ROWS, VALUES),
    "several decisions": lambda: MultiOutputClassifier(LogisticRegression()).fit(ROWS, BOTH),
    "forest of several": lambda: RandomForestClassifier(5).fit(ROWS, BOTH),
    "several values": lambda: LinearRegression().fit(ROWS, BOTH),
    "clusters": lambda: KMeans(3, n_init=1).fit(ROWS),
    "outliers": lambda: IsolationForest(n_estimators=10).fit(ROWS),
    "mixture": lambda: GaussianMixture(2).fit(ROWS),
    "stacking": lambda: StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())]).fit(
        ROWS, TWO
    ),
    "vote": lambda: VotingClassifier(
        [("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"
    ).fit(ROWS, TWO),
    "calibrated": lambda: CalibratedClassifierCV(LinearSVC()).fit(ROWS, TWO),
    "quadratic": lambda: QuadraticDiscriminantAnalysis().fit(ROWS, TWO),
    "transformers only": lambda: make_pipeline(StandardScaler(), PCA(2)).fit(ROWS),
    "bins": lambda: KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf").fit(ROWS),
    "counts": lambda: MultinomialNB().fit(np.abs(ROWS), TWO),
    "neighbours": lambda: make_pipeline(MinMaxScaler(), KNeighborsRegressor()).fit(ROWS, VALUES),
    "texts": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, MOODS),
    "words and a machine": lambda: make_pipeline(TfidfVectorizer(), LinearSVC()).fit(TEXTS, MOODS),
    "words without stop words": lambda: make_pipeline(
        TfidfVectorizer(stop_words="english", ngram_range=(1, 2)), LogisticRegression()
    ).fit(TEXTS, MOODS),
    "words as they are": lambda: make_pipeline(
        TfidfVectorizer(lowercase=False), LogisticRegression()
    ).fit(TEXTS, MOODS),
    "characters": lambda: make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3)), LogisticRegression()
    ).fit(TEXTS, MOODS),
    "counts of words": lambda: make_pipeline(CountVectorizer(), SGDClassifier(loss="log_loss")).fit(
        TEXTS, MOODS
    ),
    "scaled svc": lambda: make_pipeline(StandardScaler(), LinearSVC()).fit(ROWS, TWO),
    "scaled ridge": lambda: make_pipeline(StandardScaler(), RidgeClassifier()).fit(ROWS, TWO),
    "whole numbers": lambda: CategoricalNB().fit(BOTH, TWO),
    "truth": lambda: LogisticRegression().fit(ROWS, TWO.astype(bool)),
    "negative classes": lambda: SVC().fit(ROWS, TWO * 8 - 3),
    "pairs of words": lambda: make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()
    ).fit(TEXTS, MOODS),
    "categories": lambda: make_pipeline(
        OneHotEncoder(handle_unknown="ignore"), LogisticRegression()
    ).fit(np.array([["a", "b"], ["c", "d"]] * 40, dtype=object), TWO),
    "forest on seconds": lambda: RandomForestClassifier(9).fit(EPOCH, TWO),
}


@pytest.mark.parametrize("case", FITTED)
def test_an_estimator_answers_as_scikit_learn(tmp_path: Path, case: str) -> None:
    found = read(tmp_path, FITTED[case]())
    assert found.compared is not None
    assert found.compared.difference.max_error < 1e-4
    assert not found.compared.difference.unequal
    assert found.compared.rows >= 256
    assert found.graph is not None
    kinds = {each.dtype for each in found.graph.signature.outputs}
    assert kinds <= {"float32", "int64", "string"}
    assert any("compared with the estimator" in each for each in found.notes)


def test_the_scores_of_a_support_vector_machine_have_the_sign_of_its_decision(
    tmp_path: Path,
) -> None:
    machine = SVC().fit(ROWS, TWO)
    answers = score(read(tmp_path, machine), {"X": ROWS.astype(np.float32)})
    assert list(answers) == ["label", "scores"]
    assert np.allclose(answers["scores"][:, 1], machine.decision_function(ROWS), atol=1e-4)


def test_a_row_on_a_cluster_centre_has_distance_0(tmp_path: Path) -> None:
    clusters = KMeans(3, n_init=1).fit(ROWS * 1000)
    centres = clusters.cluster_centers_.astype(np.float32)
    answers = score(read(tmp_path, clusters), {"X": centres})
    assert not np.isnan(answers["scores"]).any()


def test_words_are_those_of_scikit_learn(tmp_path: Path) -> None:
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(
        ["Über Lüfter laut", "naïve Lager", "b a 7", "Lüfter gut"], [1, 0, 1, 0]
    )
    documents = np.array(
        ["ÜBER-Lüfter!", "x naïve", "Lager b", "日本 Lüfter", "a_b 77"], dtype=object
    )
    answers = score(read(tmp_path, pipeline), {"X": documents.reshape(-1, 1)})
    assert np.allclose(answers["probabilities"], pipeline.predict_proba(documents), atol=1e-5)


def test_seconds_of_an_epoch_take_float64(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(EPOCH, RANDOM.integers(0, 86_400, 80))
    found = read(tmp_path, fitted)
    assert inputs(found) == ["X: float64 [?, 2]"]
    assert found.compared is not None
    assert (found.compared.inputs, found.compared.rounding) == ("float64", None)
    assert any("float32 is not enough" in each for each in found.notes)
    answers = score(found, {"X": EPOCH})
    assert np.abs(answers["variable"].ravel() - fitted.predict(EPOCH)).max() < 1e-3


@pytest.mark.parametrize(
    ("last", "period"), [(LogisticRegression(C=1e4), 86_400), (RandomForestRegressor(9), 600)]
)
def test_scaled_seconds_take_float64(tmp_path: Path, last: object, period: int) -> None:
    late = EPOCH[:, 0] % period > period / 2
    pipeline = make_pipeline(StandardScaler(), last).fit(EPOCH[:, :1], late.astype(int))
    found = read(tmp_path, pipeline)
    assert inputs(found) == ["X: float64 [?, 1]"]
    first = next(iter(score(found, {"X": EPOCH[:, :1]}).values())).ravel()
    assert np.allclose(first, pipeline.predict(EPOCH[:, :1]).ravel(), atol=1e-6)


def test_rows_that_float32_cannot_tell_apart_are_refused_with_both_answers(tmp_path: Path) -> None:
    fitted = HistGradientBoostingRegressor().fit(EPOCH, VALUES)
    with pytest.raises(NotTheSame, match=r"row \d+ \(x0=1\.7.*the estimator says") as caught:
        read(tmp_path, fitted)
    assert "--check rows.csv" in caught.value.hint
    loose = read(tmp_path, fitted, bounds=Bounds(max_error=1e9, max_unequal=1))
    assert loose.compared is not None
    assert loose.compared.rounding is not None
    assert loose.compared.rounding.max_error > 1e-3


def test_rows_of_the_user_decide(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(ROWS, VALUES)
    (tmp_path / "rows.csv").write_text("0.5,1,2\n3,,4\n".replace(",,", ",7,"))
    found = read(tmp_path, fitted, check=tmp_path / "rows.csv")
    assert found.compared is not None
    assert (found.compared.rows, len(found.compared.check)) == (2, 64)
    np.savez(tmp_path / "rows.npz", anything=np.array([[1.0, 2, 3]] * 5))
    again = read(tmp_path, fitted, check=tmp_path / "rows.npz")
    assert again.compared is not None
    assert again.compared.rows == 5


def test_rows_of_the_user_say_what_ranges_the_estimator_does_not_keep(tmp_path: Path) -> None:
    forest = RandomForestRegressor(3, random_state=1).fit(ROWS, VALUES)
    line = make_pipeline(StandardScaler(with_mean=False), Ridge()).fit(EPOCH, EPOCH[:, 0] - 1.7e9)
    for fitted, rows, dtype in ((forest, ROWS, "float32"), (line, EPOCH, "float64")):
        np.savez(tmp_path / "rows.npz", rows=rows)
        found = read(tmp_path, fitted, check=tmp_path / "rows.npz")
        assert found.compared is not None
        assert found.compared.inputs == dtype


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no column 'x0'"),
        ("1,2,3\n4,5\n", "not of the columns"),
        ("a,b\n1,pro\n", "no column 'x0'"),
        ("x0,x1,x2\n1,2,pro\n", "'x2' holds something that is not a number"),
        ("x0,x1,x2\n", "0"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InvalidValidationData, match=said):
        read(tmp_path, LinearRegression().fit(ROWS, VALUES), check=tmp_path / "rows.csv")


class TestNamedColumns:
    """Pipelines that were fitted on data frames."""

    @pytest.fixture
    def frame(self) -> object:
        pandas = pytest.importorskip("pandas")
        return pandas.DataFrame(
            {
                "tenure (m)": RANDOM.integers(1, 60, 80),
                "plan": RANDOM.choice(["basic", "pro", "team"], 80),
                "usage": RANDOM.normal(100, 30, 80),
                "zone": RANDOM.integers(0, 4, 80),
                "note": RANDOM.choice(TEXTS, 80),
            }
        )

    def fitted(self, frame: object, *steps: tuple[str, object, object]) -> object:
        return make_pipeline(ColumnTransformer(list(steps)), LogisticRegression()).fit(frame, TWO)

    def test_each_column_is_an_input_of_its_type(self, tmp_path: Path, frame: object) -> None:
        pipeline = self.fitted(
            frame,
            ("n", make_pipeline(SimpleImputer(), StandardScaler()), ["tenure (m)", "usage"]),
            ("c", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
            ("z", OneHotEncoder(handle_unknown="ignore"), ["zone"]),
            ("t", TfidfVectorizer(), "note"),
        )
        found = read(tmp_path, pipeline)
        assert inputs(found) == [
            "tenure (m): float32 [?, 1]",
            "plan: string [?, 1]",
            "usage: float32 [?, 1]",
            "zone: int64 [?, 1]",
            "note: string [?, 1]",
        ]
        feed = {
            "tenure (m)": np.array([[5]], np.float32),
            "plan": np.array([["pro"]], object),
            "usage": np.array([[90]], np.float32),
            "zone": np.array([[2]], np.int64),
            "note": np.array([["LOUD fan"]], object),
        }
        answers = score(found, dict(feed))
        row = pytest.importorskip("pandas").DataFrame(
            {name: value.ravel() for name, value in feed.items()}
        )
        expected = pipeline.predict_proba(row)  # type: ignore[attr-defined]
        assert np.allclose(answers["probabilities"], expected, atol=1e-5)

    def test_the_runtime_scores_a_row_by_name(self, tmp_path: Path, frame: object) -> None:
        pipeline = self.fitted(
            frame, ("n", StandardScaler(), ["usage"]), ("c", OneHotEncoder(), ["plan"])
        )
        content = read(tmp_path, pipeline).content["m.onnx"]
        assert isinstance(content, bytes)
        (tmp_path / "m.onnx").write_bytes(content)
        model = open_model(tmp_path / "m.onnx")
        given = tensors.from_json({"usage": 90, "plan": "pro"}, model.signature)
        row = pytest.importorskip("pandas").DataFrame({"usage": [90.0], "plan": ["pro"]})
        expected = pipeline.predict_proba(row)  # type: ignore[attr-defined]
        assert np.allclose(model.run(given)["probabilities"], expected, atol=1e-5)

    def test_columns_that_nothing_reads_are_not_asked_for(
        self, tmp_path: Path, frame: object
    ) -> None:
        found = read(tmp_path, self.fitted(frame, ("n", StandardScaler(), ["usage"])))
        assert inputs(found) == ["usage: float32 [?, 1]"]

    def test_columns_may_have_the_names_of_outputs(self, tmp_path: Path, frame: object) -> None:
        renamed = frame.rename(columns={"usage": "label", "plan": "probabilities"})  # type: ignore[attr-defined]
        steps = (("n", StandardScaler(), ["label"]), ("c", OneHotEncoder(), ["probabilities"]))
        found = read(tmp_path, self.fitted(renamed, *steps))
        assert inputs(found) == ["probabilities: string [?, 1]", "label: float32 [?, 1]"]
        assert found.graph is not None
        outputs = [each.name for each in found.graph.signature.outputs]
        assert outputs == ["predicted_label", "predicted_probabilities"]

    def test_missing_texts_are_empty_ones(self, tmp_path: Path, frame: object) -> None:
        words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
        found = read(tmp_path, self.fitted(frame, ("c", words, ["plan"])))
        assert inputs(found) == ["plan: string [?, 1]"]
        assert any("empty text is a missing value" in each for each in found.notes)

    def test_rows_of_a_csv_file_have_the_columns_names(self, tmp_path: Path, frame: object) -> None:
        pipeline = self.fitted(
            frame, ("n", StandardScaler(), ["usage"]), ("c", OneHotEncoder(), ["plan"])
        )
        frame.to_csv(tmp_path / "rows.csv")  # type: ignore[attr-defined]
        found = read(tmp_path, pipeline, check=tmp_path / "rows.csv")
        assert found.compared is not None
        assert found.compared.rows == 80


class Mine(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer of the user's own."""

    def fit(self, rows: np.ndarray, labels: object = None) -> Mine:
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: np.ndarray) -> np.ndarray:
        return rows


def double(rows: np.ndarray) -> np.ndarray:
    return rows * 2


def test_rows_of_outputs_are_those_of_inputs(tmp_path: Path) -> None:
    """skl2onnx declares one row for some pipelines, and a client with two would be refused."""
    pipeline = make_pipeline(CountVectorizer(), TfidfTransformer(), LogisticRegression())
    found = read(tmp_path, pipeline.fit(TEXTS, MOODS))
    assert found.graph is not None
    assert [each.shape for each in found.graph.signature.outputs] == [(None,), (None, 2)]


def test_what_is_converted_wrongly_is_refused_with_a_row(tmp_path: Path) -> None:
    """skl2onnx computes ``sublinear_tf`` otherwise for words that come several times."""
    words = TfidfVectorizer(sublinear_tf=True)
    pipeline = make_pipeline(words, LogisticRegression(C=100)).fit(TEXTS, MOODS)
    with pytest.raises(NotTheSame, match=r"row \d+ \(X='.*the estimator says"):
        read(tmp_path, pipeline)


def test_trees_that_were_trained_with_missing_values_are_compared_with_some(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(80, 3))
    labels = (rows[:, 0] > 0).astype(int)
    rows[random.random(80) < 0.3, 0] = np.nan
    found = DecisionTreeClassifier(max_depth=4, random_state=0).fit(rows, labels)
    # skl2onnx 1 loses which way missing values go, and does not end where only they part.
    with pytest.raises((NotTheSame, UnreadableModel), match=r"nan|missing"):
        read(tmp_path, found)


def test_trees_that_were_not_are_compared_without(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    rows = random.normal(size=(80, 3)).round(1)
    found = DecisionTreeClassifier(max_depth=5).fit(rows, random.integers(0, 3, 80))
    assert read(tmp_path, found)


def test_an_estimator_that_answers_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel, match="neither predict"):
        read(tmp_path, DBSCAN().fit(ROWS))


def test_an_estimator_that_fails_itself_is_not_blamed_on_the_conversion(tmp_path: Path) -> None:
    forgotten = make_pipeline(SimpleImputer(), LogisticRegression()).fit(HOLES, TWO)
    del forgotten[0]._fit_dtype
    with pytest.raises(NotTheSame, match=r"the estimator itself does not take .*_fit_dtype"):
        read(tmp_path, forgotten)


REFUSED: dict[str, tuple[Callable[[], object], str, str]] = {
    "own class": (
        lambda: make_pipeline(Mine(), LogisticRegression()).fit(ROWS, TWO),
        "no converter for .*Mine",
        "a scoring script",
    ),
    "function": (
        lambda: make_pipeline(FunctionTransformer(double), Ridge()).fit(ROWS, VALUES),
        "FunctionTransformer",
        "holds no Python function",
    ),
    "indicator": (
        lambda: make_pipeline(SimpleImputer(add_indicator=True), RandomForestRegressor(9)).fit(
            HOLES, VALUES
        ),
        "does not run",
        "add_indicator",
    ),
    "target": (
        lambda: TransformedTargetRegressor(Ridge(), transformer=StandardScaler()).fit(ROWS, VALUES),
        "no converter for .*TransformedTargetRegressor",
        "a scoring script",
    ),
    "not fitted": (lambda: make_pipeline(StandardScaler(), Ridge()), "never fitted", "call fit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_refused_with_the_cause(tmp_path: Path, case: str) -> None:
    make, said, hint = REFUSED[case]
    with pytest.raises(UnreadableModel, match=said) as caught:
        read(tmp_path, make())
    assert hint in caught.value.hint


def test_a_class_of_the_script_that_made_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = sys.modules["__main__"]
    own = type("Own", (Mine,), {"__module__": "__main__"})
    monkeypatch.setattr(main, "Own", own, raising=False)
    content = pickle.dumps(own().fit(ROWS))
    monkeypatch.delattr(main, "Own")
    (tmp_path / "m.pkl").write_bytes(content)
    with pytest.raises(
        UnreadableModel, match="needs Own, which was defined in the script"
    ) as caught:
        read_model(tmp_path / "m.pkl", EstimatorOptions(trusted=True))
    assert "module that both programs can import" in caught.value.hint


def test_a_module_that_scikit_learn_had_once_names_its_version(tmp_path: Path) -> None:
    gone = ModuleType("sklearn.gone")
    made = type("LogisticRegression", (LogisticRegression,), {"__module__": "sklearn.gone"})
    gone.LogisticRegression = made  # type: ignore[attr-defined]
    sys.modules["sklearn.gone"] = gone
    try:
        content = pickle.dumps(made().fit(ROWS, TWO))
    finally:
        del sys.modules["sklearn.gone"]
    import sklearn

    old = content.replace(sklearn.__version__.encode(), b"0.2.9"[: len(sklearn.__version__)])
    (tmp_path / "m.pkl").write_bytes(old)
    with pytest.raises(UnreadableModel, match=r"needs the Python module 'sklearn.gone'"):
        read_model(tmp_path / "m.pkl", EstimatorOptions(trusted=True))


def old(solver: str, multi_class: str, classes: np.ndarray) -> LogisticRegression:
    """An estimator with the attributes that scikit-learn 0.22 gave it."""
    fitted = LogisticRegression().fit(ROWS, classes)
    for name in ("n_features_in_", "l1_ratio", "penalty"):
        vars(fitted).pop(name, None)
    vars(fitted).update(
        solver=solver, multi_class=multi_class, penalty="l2", l1_ratio=None, random_state=42
    )
    return fitted


@pytest.mark.parametrize(("solver", "multi"), [("liblinear", "auto"), ("lbfgs", "ovr")])
def test_one_model_for_each_class_is_computed_otherwise_now(
    tmp_path: Path, solver: str, multi: str
) -> None:
    with pytest.raises(NotTheSame, match="as one model for each class") as caught:
        read(tmp_path, old(solver, multi, THREE))
    assert "export it to ONNX with scikit-learn" in caught.value.hint


@pytest.mark.parametrize(
    ("solver", "classes"), [("liblinear", TWO), ("lbfgs", TWO), ("lbfgs", THREE)]
)
def test_an_old_model_that_means_the_same_is_taken(
    tmp_path: Path, solver: str, classes: np.ndarray
) -> None:
    found = read(tmp_path, old(solver, "auto", classes))
    assert inputs(found) == ["X: float32 [?, 3]"], "the columns are counted from the coefficients"


def test_wrong_numbers_are_refused_by_name(tmp_path: Path) -> None:
    """The share of rows and the worst row are in the message."""
    fitted = IsolationForest(n_estimators=10).fit(ROWS)
    with pytest.raises(NotTheSame, match=r"labels equal.* row \d+ \(x0=.*has scores ") as caught:
        read(tmp_path, fitted, bounds=Bounds(max_error=1e-12))
    assert "with float64 inputs it cannot be converted" in str(caught.value)


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1e-3, 1.0, 1e4]))
@settings(
    max_examples=repeats(5, 40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_forest_is_equal_on_any_rows(tmp_path: Path, seed: int, size: float) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(0, size, (60, 4))
    forest = RandomForestClassifier(5, random_state=1).fit(rows, random.integers(0, 3, 60))
    found = read(tmp_path, forest)
    more = random.normal(0, size, (200, 4)).astype(np.float32)
    answers = score(found, {"X": more})
    assert (answers["label"] == forest.predict(more)).all()
    assert np.allclose(answers["probabilities"], forest.predict_proba(more), atol=1e-5)
