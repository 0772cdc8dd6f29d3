import csv
import lzma
from pathlib import Path

import pytest

from biomassters.dataset.catalogue import (
    FEATURE_COLUMNS,
    FEATURES_FILE,
    TARGET_COLUMNS,
    read_catalogue,
    targets_file,
)
from biomassters.dataset.files import REGIONS, SPLITS, FileRecord, Split
from biomassters.errors import CatalogueError
from biomassters.store.bands import MONTHS

TARGETS_FILE = "train_agbm_metadata.csv"
Row = dict[str, str]


def feature_rows(chip_id: str, split: str) -> list[Row]:
    """All months of S1; S2 without September."""
    return [
        dict.fromkeys(FEATURE_COLUMNS, "")
        | {
            "filename": f"{chip_id}_{sensor}_{month:02d}.tif",
            "chip_id": chip_id,
            "satellite": sensor,
            "split": split,
            "month": MONTHS[month],
            "size": "100",
            "corresponding_agbm": f"{chip_id}_agbm.tif",
        }
        for sensor in ("S1", "S2")
        for month in range(12)
        if (sensor, month) != ("S2", 0)
    ]


def target_row(chip_id: str) -> Row:
    return dict.fromkeys(TARGET_COLUMNS, "") | {
        "filename": f"{chip_id}_agbm.tif",
        "chip_id": chip_id,
        "size": "50",
        "cksum": "7",
    }


def write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound catalogue: train chips bb and aa, test chip cc."""
    features = (
        feature_rows("bb", "train") + feature_rows("aa", "train") + feature_rows("cc", "test")
    )
    write_csv(tmp_path / FEATURES_FILE, features)
    write_csv(tmp_path / TARGETS_FILE, [target_row("aa"), target_row("bb")])
    return tmp_path


def change(path: Path, line: int, **cells: str) -> None:
    """Change cells of the row at a line of the file; the header is line 1."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[line - 2].update(cells)
    write_csv(path, rows)


def test_chips_are_sorted_and_complete(folder: Path) -> None:
    first, second = read_catalogue(folder).chips("train")
    assert (first.chip_id, second.chip_id) == ("aa", "bb")
    assert first.s1[3] == FileRecord("aa_S1_03.tif", "train_features", 100, None)
    assert first.s2[0] is None
    assert first.s2[11] == FileRecord("aa_S2_11.tif", "train_features", 100, None)
    assert first.agbm == FileRecord("aa_agbm.tif", "train_agbm", 50, 7)


def test_test_chips_have_targets_only_where_a_catalogue_gives_them(folder: Path) -> None:
    assert read_catalogue(folder).chips("test")[0].agbm is None
    write_csv(folder / "test_agbm_metadata.csv", [target_row("cc")])
    agbm = read_catalogue(folder).chips("test")[0].agbm
    assert agbm == FileRecord("cc_agbm.tif", "test_agbm", 50, 7)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"satellite": "S3"}, "expected S1 or S2, got 'S3'"),
        ({"month": "Sept"}, "expected an English month, got 'Sept'"),
        ({"split": "valid"}, "expected one split for chip bb .*got 'valid'"),
        ({"split": "test"}, "expected one split for chip bb .*got 'test'"),
        ({"filename": "bb_S1_02.tif"}, "expected the file name bb_S1_01.tif"),
        ({"filename": "../bb_S1_01.tif"}, "expected the file name bb_S1_01.tif"),
        ({"chip_id": "../bb"}, "expected a chip id of letters"),
        ({"chip_id": "b/b"}, "expected a chip id of letters"),
        ({"chip_id": ""}, "expected a chip id of letters"),
        ({"chip_id": "dd", "split": "valid"}, "expected train or test, got 'valid'"),
        ({"corresponding_agbm": "aa_agbm.tif"}, "expected the file name bb_agbm.tif"),
        ({"filename": "bb_S1_00.tif", "month": "September"}, "each file once, got bb_S1_00.tif"),
        ({"size": "0"}, "expected a positive number of bytes up to 268435456, got '0'"),
        ({"size": "268435457"}, "expected a positive number of bytes up to 268435456, got '268"),
        ({"size": "-5"}, "expected a positive number of bytes"),
        ({"size": "1.0"}, "expected a positive number of bytes"),
        ({"size": ""}, "expected a positive number of bytes"),
        ({"size": "9" * 5000}, "expected a positive number of bytes"),
        ({"cksum": "4294967296"}, "expected a 32-bit number or nothing"),
        ({"cksum": "x"}, "expected a 32-bit number or nothing"),
    ],
)
def test_bad_feature_row_is_named(folder: Path, cells: Row, message: str) -> None:
    change(folder / FEATURES_FILE, 3, **cells)
    with pytest.raises(CatalogueError, match=rf"{message}.*{FEATURES_FILE}, line 3; .+"):
        read_catalogue(folder)


BUCKET = "s3://drivendata-competition-biomassters-public"


def test_addresses_are_found_by_region(folder: Path) -> None:
    name = "bb_S1_00.tif"
    us, asia = f"{BUCKET}-us/train_features/{name}", f"s3://abc/{name}"
    change(folder / FEATURES_FILE, 2, s3path_us=us, s3path_as=asia)
    change(folder / TARGETS_FILE, 3, s3path_eu=f"{BUCKET}-eu/a/b.c/d=e/bb_agbm.tif")
    chip = read_catalogue(folder).chips("train")[1]
    assert [chip.s1[0].find_address(region) for region in REGIONS] == [us, None, asia]
    assert chip.s1[1].s3_folders == ("", "", "")
    assert chip.agbm.find_address("eu") == f"{BUCKET}-eu/a/b.c/d=e/bb_agbm.tif"


@pytest.mark.parametrize(
    "address",
    [
        "bb_S1_01.tif",
        "s3://bb_S1_01.tif",
        "s3:///bb_S1_01.tif",
        "s3:/bucket/bb_S1_01.tif",
        "S3://bucket/bb_S1_01.tif",
        "http://bucket/bb_S1_01.tif",
        "file:///bucket/bb_S1_01.tif",
        "/vsicurl/s3://bucket/bb_S1_01.tif",
        " s3://bucket/bb_S1_01.tif",
        "s3://bucket/bb_S1_01.tif ",
        "s3://bucket/bb_S1_01.tif/",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket/bb_S1_02.tif",
        "s3://bucket/x_bb_S1_01.tif",
        "s3://bucket/bb_S1_01.tif?versionId=1",
        "s3://bucket/?a=/bb_S1_01.tif",
        "s3://bucket/#/bb_S1_01.tif",
        "s3://bucket/../bb_S1_01.tif",
        "s3://bucket/./bb_S1_01.tif",
        "s3://bucket//bb_S1_01.tif",
        "s3://bucket/.hidden/bb_S1_01.tif",
        "s3://bucket/%2e%2e/bb_S1_01.tif",
        "s3://bucket/a b/bb_S1_01.tif",
        "s3://bucket/a\\b/bb_S1_01.tif",
        "s3://bucket/a\n/bb_S1_01.tif",
        "s3://bucket\n/bb_S1_01.tif",
        "s3://bucket/a\0/bb_S1_01.tif",
        "s3://bucket/é/bb_S1_01.tif",
        "s3://user@bucket/bb_S1_01.tif",
        "s3://user:secret@bucket/bb_S1_01.tif",
        "s3://bucket:80/bb_S1_01.tif",
        "s3://Bucket/bb_S1_01.tif",
        "s3://bu/bb_S1_01.tif",
        "s3://bu..cket/bb_S1_01.tif",
        "s3://-bucket/bb_S1_01.tif",
        "s3://bucket-/bb_S1_01.tif",
        f"s3://{'b' * 64}/bb_S1_01.tif",
        f"s3://bucket/{'a/' * 600}bb_S1_01.tif",
    ],
)
@pytest.mark.parametrize("column", ["s3path_us", "s3path_as"])
def test_hostile_address_is_named(folder: Path, address: str, column: str) -> None:
    change(folder / FEATURES_FILE, 3, **{column: address})
    with pytest.raises(CatalogueError) as error:
        read_catalogue(folder)
    assert "expected an address s3://bucket/folder/bb_S1_01.tif, or nothing" in str(error.value)
    # A cell with a line break makes its row end one line later.
    line = 4 if "\n" in address else 3
    assert f"{FEATURES_FILE}, line {line}; mend the column {column}" in str(error.value)
    assert "\n" not in str(error.value)


def test_folder_alone_is_no_address_even_if_known(folder: Path) -> None:
    change(folder / FEATURES_FILE, 2, s3path_us="s3://bucket/a/bb_S1_00.tif")
    change(folder / FEATURES_FILE, 3, s3path_us="s3://bucket/a")
    with pytest.raises(CatalogueError, match=r"got 's3://bucket/a', .*line 3; .*s3path_us"):
        read_catalogue(folder)


def test_hostile_address_of_a_target_is_named(folder: Path) -> None:
    change(folder / TARGETS_FILE, 3, s3path_eu="s3://bucket/../bb_agbm.tif")
    with pytest.raises(CatalogueError, match=rf"{TARGETS_FILE}, line 3; mend the column s3path_eu"):
        read_catalogue(folder)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"chip_id": "zz"}, "expected a train chip of features_metadata.csv, got the chip 'zz'"),
        ({"chip_id": "cc"}, "expected a train chip of features_metadata.csv, got the chip 'cc'"),
        ({"filename": "/bb_agbm.tif"}, "expected the file name bb_agbm.tif"),
        ({"chip_id": "aa", "filename": "aa_agbm.tif"}, "each file once, got aa_agbm.tif again"),
        ({"size": "big"}, "expected a positive number of bytes up to 268435456, got 'big'"),
    ],
)
def test_bad_target_row_is_named(folder: Path, cells: Row, message: str) -> None:
    change(folder / TARGETS_FILE, 3, **cells)
    with pytest.raises(CatalogueError, match=rf"{message}.*{TARGETS_FILE}, line 3; .+"):
        read_catalogue(folder)


def test_chip_without_a_month_of_s1_is_refused(folder: Path) -> None:
    rows = feature_rows("aa", "train")
    write_csv(folder / FEATURES_FILE, [row for row in rows if row["filename"] != "aa_S1_04.tif"])
    write_csv(folder / TARGETS_FILE, [target_row("aa")])
    with pytest.raises(CatalogueError, match=r"S1 file of chip aa .*none for January, at .*line 2"):
        read_catalogue(folder)


def test_train_chip_without_target_is_refused(folder: Path) -> None:
    write_csv(folder / TARGETS_FILE, [target_row("aa")])
    with pytest.raises(CatalogueError, match=r"expected a target of train chip bb.*line 2"):
        read_catalogue(folder)


@pytest.mark.parametrize("name", [FEATURES_FILE, TARGETS_FILE])
def test_missing_columns_are_named(folder: Path, name: str) -> None:
    with (folder / name).open() as file:
        rows = list(csv.DictReader(file))
    write_csv(folder / name, [{k: v for k, v in row.items() if k != "s3path_eu"} for row in rows])
    with pytest.raises(CatalogueError, match=f"s3path_eu, at .*{name}, line 1; add them"):
        read_catalogue(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "none named filename, chip_id"),
        (",".join(FEATURE_COLUMNS).encode(), "expected at least one row"),
        (",".join(FEATURE_COLUMNS).encode() + b"\naa,bb\n", "expected 11 cells, got 2.*line 2"),
        (b"\xff\xfe\x00", "expected a CSV file in UTF-8"),
    ],
)
def test_file_that_is_no_catalogue_is_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / FEATURES_FILE).write_bytes(content)
    with pytest.raises(CatalogueError, match=message):
        read_catalogue(folder)


def test_absent_catalogue_is_refused(folder: Path) -> None:
    (folder / FEATURES_FILE).rename(folder / "my_metadata.csv")
    message = (
        r"features_metadata\.csv, got no such file but my_metadata\.csv; add it under this name"
    )
    with pytest.raises(CatalogueError, match=message):
        read_catalogue(folder)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("targets", ["none", "no row"])
def test_catalogue_of_one_split_will_do(folder: Path, split: Split, targets: str) -> None:
    other = "test" if split == "train" else "train"
    write_csv(folder / FEATURES_FILE, feature_rows("bb", split))
    write_csv(folder / targets_file(split), [target_row("bb")])
    (folder / targets_file(other)).unlink(missing_ok=True)
    if targets == "no row":
        (folder / targets_file(other)).write_text(",".join(TARGET_COLUMNS) + "\n")
    catalogue = read_catalogue(folder)
    assert [chip.chip_id for chip in catalogue.chips(split)] == ["bb"]
    assert catalogue.chips(other) == []


def test_whole_official_catalogue_is_sound(shared_folder: Path, tmp_path: Path) -> None:
    for packed in (shared_folder / "catalogue").glob("*.xz"):
        (tmp_path / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
    catalogue = read_catalogue(tmp_path)
    train, test = catalogue.chips("train"), catalogue.chips("test")
    assert (len(train), len(test)) == (8_689, 2_773)
    months = sum(len(c.s1) + sum(s2 is not None for s2 in c.s2) for c in train + test)
    assert months == 252_426
    assert all(chip.agbm is not None for chip in train)
    assert all(chip.agbm is None for chip in test)
    # Of the three folders of three buckets, each file has one by region, kept once.
    records = [record for c in train + test for record in (*c.s1, *c.s2, c.agbm) if record]
    assert len({id(record.s3_folders) for record in records}) == 3
    for region in REGIONS:
        assert all(
            record.find_address(region) == f"{BUCKET}-{region}/{record.folder}/{record.filename}"
            for record in records
        )
