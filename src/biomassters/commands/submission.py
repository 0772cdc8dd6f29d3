"""The archive that the competition takes: the map of every test chip, and nothing else."""

import gzip
import io
import tarfile
from pathlib import Path
from typing import BinaryIO

from rasterio.io import MemoryFile

from biomassters.dataset.catalogue import read_catalogue
from biomassters.errors import BiomasstersError, ChipDataError, name_few
from biomassters.evaluation.folders import FolderContents, list_folder, read_folder
from biomassters.prediction.maps import Map, prediction_path
from biomassters.processes.writing import writing_whole
from biomassters.store.chips import ChipStore
from biomassters.store.georeference import allow_nowhere


def write_submission(out: Path, predictions: Path) -> str:
    """Write the predictions of all test chips as one archive, whole or not at all.

    Each is a TIFF of one float32 band, AGBM in t/ha, named CHIP_agbm.tif, in no folder; it is not
    compressed, so that any reader takes it, but the archive is. Equal predictions make equal bytes,
    whatever else their files have, and whoever writes when.

    Args:
        out: The archive, NAME.tar.gz or NAME.tgz; an older one is replaced.
        predictions: The folder of the predictions.

    Returns:
        What was written.

    Raises:
        BiomasstersError: `out` has another suffix, or the catalogue has no test chips.
        ChipDataError: A prediction is missing, of no test chip, or not what it should be.

    Source: the files that the winner's submit.py writes.
    """
    if not out.name.endswith((".tar.gz", ".tgz")):
        raise BiomasstersError(f"expected a file NAME.tar.gz, got {out}; name it so")
    chip_ids = [chip.chip_id for chip in read_catalogue(Path("data")).chips("test")]
    if not chip_ids:
        raise BiomasstersError("expected test chips, got none, at data; use another catalogue")
    contents = list_folder(predictions, chip_ids)
    _check_complete(contents, len(chip_ids))
    side = ChipStore.open(Path("chips/test.zarr")).chip_size
    with writing_whole(out) as unfinished:
        with unfinished.open("wb") as file:
            _write_archive(file, contents, side)
        size = unfinished.stat().st_size
    return f"{out}: {len(chip_ids)} predictions of {side}x{side} pixels, {size / 1e6:.1f} MB"


def _check_complete(contents: FolderContents, n_chips: int) -> None:
    for what, names in (("missing", contents.missing), ("extra", contents.extra)):
        if names:
            remedy = "run `dvc repro` to write them" if what == "missing" else "move them away"
            raise ChipDataError(
                f"expected predictions of the catalogue's {n_chips} test chips and no others, got"
                f" {len(names)} {what}: {name_few(names)}, at {contents.folder}; {remedy}"
            )


def _write_archive(file: BinaryIO, contents: FolderContents, side: int) -> None:
    # No name and no time in the header, and none of the writer's in the members.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for chip_id, prediction in read_folder(contents, (side, side)):
            data = _encode(prediction)
            member = tarfile.TarInfo(prediction_path(Path(), chip_id).name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _encode(prediction: Map) -> bytes:
    height, width = prediction.shape
    with allow_nowhere(), MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=height, width=width, count=1, dtype="float32"
        ) as raster:
            raster.write(prediction, 1)
        return bytes(memory.read())
