import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from example_chips import simulate_record

from biomassters.commands.submission import write_submission
from biomassters.dataset.catalogue import read_catalogue
from biomassters.errors import BiomasstersError, ChipDataError
from biomassters.packing.assembly import pack_split
from biomassters.prediction.maps import PixelIntervals, prediction_path, write_prediction
from biomassters.simulator.official_files import write_catalogue
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.georeference import allow_nowhere

MAP = np.random.default_rng(0).gamma(2, 40, (32, 32)).astype(np.float32)


@pytest.fixture
def chip_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The test chips of a checkout's catalogue, of which there are predictions."""
    monkeypatch.chdir(tmp_path)
    write_catalogue(tmp_path / "data", n_train=1, n_test=3, chip_size=32)
    chips = [simulate_record("5eed0001")]
    path = tmp_path / "chips/test.zarr"
    pack_split(chips, SyntheticSource(32), path, tmp_path / "scratch", chip_size=32)
    chip_ids = [chip.chip_id for chip in read_catalogue(tmp_path / "data").chips("test")]
    for number, chip_id in enumerate(chip_ids):
        write_prediction(tmp_path / "predictions", chip_id, MAP + number, {})
    return chip_ids


def submit(out: str = "out.tar.gz") -> str:
    return write_submission(Path(out), Path("predictions"))


def test_archive_has_the_map_of_each_test_chip_and_nothing_else(chip_ids: list[str]) -> None:
    assert submit().startswith("out.tar.gz: 3 predictions of 32x32 pixels")
    with tarfile.open("out.tar.gz") as archive:
        assert archive.getnames() == [f"{chip_id}_agbm.tif" for chip_id in chip_ids]
        for number, member in enumerate(archive):
            data = archive.extractfile(member)
            assert data is not None
            with allow_nowhere(), rasterio.open(io.BytesIO(data.read())) as raster:
                assert (raster.count, raster.dtypes, raster.nodata) == (1, ("float32",), None)
                np.testing.assert_array_equal(raster.read(1), MAP + number)


def test_bytes_depend_on_the_predictions_alone(chip_ids: list[str]) -> None:
    submit()
    first = Path("out.tar.gz").read_bytes()
    for number, chip_id in enumerate(chip_ids):
        bands = PixelIntervals(MAP, MAP, MAP)
        write_prediction(Path("predictions"), chip_id, MAP + number, {"A": "b"}, intervals=bands)
    submit("other.tgz")
    assert Path("other.tgz").read_bytes() == first


def test_missing_and_extra_predictions_are_refused_by_name(chip_ids: list[str]) -> None:
    path = prediction_path(Path("predictions"), chip_ids[1])
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(
        ChipDataError, match=f"3 test chips and no others, got 1 missing: {chip_ids[1]}"
    ):
        submit()
    path.write_bytes(data)
    path.with_name("stranger_agbm.tif").touch()
    with pytest.raises(ChipDataError, match=r"got 1 extra: stranger_agbm\.tif, at predictions"):
        submit()
    assert not Path("out.tar.gz").exists()


def test_bad_prediction_leaves_an_older_archive_alone(chip_ids: list[str]) -> None:
    write_prediction(Path("predictions"), chip_ids[2], MAP[:16], {})
    Path("out.tar.gz").write_bytes(b"older")
    with pytest.raises(ChipDataError, match=rf"got 1 other files: {chip_ids[2]}_agbm\.tif \("):
        submit()
    assert Path("out.tar.gz").read_bytes() == b"older"
    assert list(Path().glob(".out*")) == []


@pytest.mark.usefixtures("chip_ids")
def test_archive_of_another_kind_is_refused() -> None:
    with pytest.raises(BiomasstersError, match=r"expected a file NAME\.tar\.gz, got out\.zip"):
        submit("out.zip")


def test_catalogue_without_test_chips_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_catalogue(tmp_path / "data", n_train=1, n_test=0, chip_size=32)
    with pytest.raises(BiomasstersError, match="expected test chips, got none, at data"):
        submit()
