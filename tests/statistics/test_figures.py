import json
from pathlib import Path
from typing import Any

import pytest

from biomassters.errors import StoreError
from biomassters.statistics.figures import (
    Figures,
    Normalisation,
    Statistics,
    TargetFigures,
    read_statistics,
    write_no_statistics,
    write_statistics,
)
from biomassters.store.bands import BANDS

FIGURES: dict[str, Any] = {
    "pixels": 4,
    "nodata_share": 0.25,
    "minimum": 0.1,
    "maximum": 2.0,
    "mean": 1 / 3,
    "standard_deviation": 0.5,
    "percentiles": {"50": 0.3},
}
STATISTICS = Statistics(
    normalisation=Normalisation(
        source="published",
        bands=BANDS,
        minimum=(-25.1,) * 15,
        maximum=(30.0,) * 15,
        mean=None,
        standard_deviation=None,
        p1=None,
        p99=None,
    ),
    target=TargetFigures(**FIGURES),
    bands=dict.fromkeys(BANDS, Figures(**FIGURES)),
)


def test_reading_undoes_writing(tmp_path: Path) -> None:
    write_statistics(tmp_path / "statistics.json", STATISTICS)
    assert read_statistics(tmp_path / "statistics.json") == STATISTICS


def test_absent_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"statistics\.json, got no such file; run `dvc repro`"):
        read_statistics(tmp_path / "statistics.json")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("normalisation", "minimum", [0.0] * 14, "expected 15 numbers in minimum, got 14"),
        ("normalisation", "minimum", [30.0] * 15, "each minimum below its maximum"),
        ("normalisation", "bands", ["B2"], "expected the bands VV ascending"),
        ("normalisation", "source", "guessed", "normalisation.source"),
        ("target", "mean", None, "target.mean"),
        ("target", "median", 1.0, "target.median"),
    ],
)
def test_malformed_file_is_an_error(
    tmp_path: Path, section: str, key: str, value: object, message: str
) -> None:
    document = json.loads(STATISTICS.model_dump_json())
    document[section][key] = value
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=rf"{message}.*statistics\.json; delete"):
        read_statistics(path)


def test_file_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    path.write_bytes(b"\xff{")
    with pytest.raises(StoreError, match="expected the statistics"):
        read_statistics(path)


def test_statistics_of_no_chips_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    write_no_statistics(path)
    assert json.loads(path.read_text()) == {"train_chips": 0}
    with pytest.raises(StoreError, match=rf"got none of any, at {path}; add train chips"):
        read_statistics(path)
