import csv
import io
import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_examples import PIXELS, decode_real_chip, make_chip, remove_s2, write_facts
from example_chips import ReversedSource, simulate_records

from biomassters.audit.facts import SplitFacts
from biomassters.audit.findings import list_findings
from biomassters.audit.report import (
    NAMED_CHIPS,
    describe_skipped,
    summarise_facts,
    tabulate_chips,
    write_audit,
)
from biomassters.dataset.files import BadFile
from biomassters.packing.assembly import pack_split
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.bands import CLP, MONTHS, S1_STORED_NODATA, S2_BANDS
from biomassters.store.chips import Chip, ChipStore

FILES = ("train.json", "train_chips.csv", "images/train.png")


def plant_defects() -> list[Chip]:
    """Return four chips: a sound one, two with defects, and one without a target."""
    sound, radar, optical = make_chip("a"), make_chip("b"), make_chip("c")
    radar.s1[:, 2:] = S1_STORED_NODATA
    radar.s1[0, 0, :4] = 0
    radar.s1[0, 1, 0, 0] = 3500
    radar.agbm[0, :3] = [-1, 500, 600]
    remove_s2(optical, *range(5), 6)
    optical.s2[7, :CLP] = 0
    optical.s2[8, S2_BANDS.index("B12"), :16] = 900
    optical.s2[8, CLP, :8] = 65535
    return [sound, radar, optical, make_chip("d", target=False)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    store = write_facts(folder / "train.zarr", plant_defects())
    write_audit(folder, "train", store, [BadFile("e", "e_S1_00.tif", "9 bytes", "8")])
    return folder


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "train.json").read_text())


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, dict[str, str]]:
    text = (folder / "train_chips.csv").read_text()
    return {row["chip_id"]: row for row in csv.DictReader(io.StringIO(text))}


def test_images_are_counted_by_sensor_and_month(figures: dict[str, Any]) -> None:
    assert (figures["chips"], figures["targets"], figures["chip_size"]) == (4, 3, 32)
    assert set(figures["s1_ascending_present"].values()) == {1}
    assert set(figures["s1_descending_present"].values()) == {0.75}
    s2 = figures["s2_present"]
    assert (s2["January"], s2["February"], s2["all"]) == (0.75, 1, round(42 / 48, 6))
    assert figures["orbits"] == {
        "both": 0.75,
        "ascending_only": 0.25,
        "descending_only": 0,
        "none": 0,
    }
    assert {k: v for k, v in figures["s2_months"].items() if v} == {"6": 0.25, "12": 0.75}
    assert figures["s2_months_under_8"] == 0.25


def test_lost_pixels_are_shares_of_the_images_present(figures: dict[str, Any]) -> None:
    assert figures["s1_nodata"]["VV descending"] == 0.25
    assert figures["s1_zero"]["VV ascending"] == round(128 / (48 * PIXELS), 6)
    assert figures["s1_outside"]["VH ascending"] == round(1 / (48 * PIXELS), 6)
    assert figures["s2_nodata"]["May"] == 8 * 32 / (4 * PIXELS)
    assert figures["s2_nodata"]["all"] == round(8 * 32 / (42 * PIXELS), 6)
    assert figures["s2_zero"]["April"] == 0.25
    assert figures["s2_cloudy"]["all"] == 0


def test_findings_name_their_chips(figures: dict[str, Any]) -> None:
    found = {name: entry for name, entry in figures["findings"].items() if entry["chips"]}
    one = {"chips": 1, "share_of_chips": 0.25}
    assert found == {
        "few_s2_months": {**one, "chip_ids": ["c"]},
        "no_descending": {**one, "chip_ids": ["b"]},
        "s2_zero": {**one, "images": 1, "chip_ids": ["c"]},
        "constant_block": {**one, "images": 1, "chip_ids": ["c"]},
        "s1_zero": {**one, "values": 128, "chip_ids": ["b"]},
        "s1_outside": {**one, "values": 1, "chip_ids": ["b"]},
        "negative_target": {**one, "pixels": 1, "chip_ids": ["b"]},
        "extreme_target": {**one, "pixels": 2, "chip_ids": ["b"]},
    }
    none = {"chips": 0, "share_of_chips": 0, "chip_ids": []}
    assert figures["findings"]["no_ascending"] == none


def test_targets_are_summarised(figures: dict[str, Any]) -> None:
    means = [chip.agbm.mean(dtype=np.float64) for chip in plant_defects()[:3]]
    agbm = figures["agbm"]
    assert agbm["mean"] == pytest.approx(np.mean(means), abs=1e-3)
    assert agbm["chip_mean_percentiles"]["50"] == pytest.approx(sorted(means)[1], abs=1e-3)
    assert agbm["chip_mean_percentiles"]["0"] == pytest.approx(min(means), abs=1e-3)
    assert (agbm["min"], agbm["max"], agbm["nodata"]) == (-1, 600, 0)


def test_table_has_a_row_a_chip_with_its_flags(rows: dict[str, dict[str, str]]) -> None:
    assert list(rows) == ["a", "b", "c", "d"]
    assert {chip_id: row["flags"] for chip_id, row in rows.items()} == {
        "a": "",
        "b": "no_descending s1_zero s1_outside negative_target extreme_target",
        "c": "few_s2_months s2_zero constant_block",
        "d": "",
    }
    radar, optical = rows["b"], rows["c"]
    assert radar["descending_present"] == "-" * 12
    assert (radar["s1_nodata"], radar["s1_zero_values"], radar["s1_outside_values"]) == (
        *("0.5", "128", "1"),
    )
    assert (radar["agbm_min"], radar["agbm_max"], radar["agbm_extreme_pixels"]) == (
        *("-1", "600", "2"),
    )
    assert (optical["s2_months"], optical["s2_present"]) == ("6", "-----F-AMJJA")
    assert (optical["largest_block"], optical["largest_block_image"]) == ("0.5", "B12 May")
    assert float(optical["s2_nodata"]) == pytest.approx(0.25 / 6, abs=1e-6)
    assert rows["d"]["agbm_mean"] == rows["d"]["agbm_min"] == ""


def test_skipped_chips_are_named_with_their_reason(figures: dict[str, Any]) -> None:
    assert figures["skipped"] == {
        "chips": 1,
        "files": 1,
        "reasons": {"e": "e_S1_00.tif: expected 9 bytes, got 8"},
    }


def test_skipped_chip_is_one_however_many_of_its_files_are_bad() -> None:
    bad = [
        BadFile("b", "b_S2_00.tif", "cksum 1", "2"),
        BadFile("a", "a_agbm.tif", "its bytes", "status 404"),
        BadFile("b", "b_S1_00.tif", "9 bytes", "8"),
    ]
    assert describe_skipped(bad) == {
        "chips": 2,
        "files": 3,
        "reasons": {
            "a": "a_agbm.tif: expected its bytes, got status 404",
            "b": "b_S1_00.tif: expected 9 bytes, got 8, and 1 more",
        },
    }


def test_finding_of_many_chips_names_the_first(tmp_path: Path) -> None:
    chips = [make_chip(f"{index:04}") for index in range(NAMED_CHIPS + 5)]
    for chip in chips:
        remove_s2(chip, *range(5))
    facts = SplitFacts.read(write_facts(tmp_path / "train.zarr", chips))
    findings = list_findings(facts)
    few = summarise_facts(facts, findings)["findings"]["few_s2_months"]
    assert few["chips"] == NAMED_CHIPS + 5
    assert few["chip_ids"] == [f"{index:04}" for index in range(NAMED_CHIPS)]
    assert tabulate_chips(facts, findings).count("few_s2_months") == NAMED_CHIPS + 5


def test_split_without_targets_and_s2_is_audited(tmp_path: Path) -> None:
    chip = make_chip(target=False)
    remove_s2(chip, *range(12))
    write_audit(tmp_path, "test", write_facts(tmp_path / "test.zarr", [chip]))
    figures = json.loads((tmp_path / "test.json").read_text())
    assert figures["agbm"] is None
    assert figures["s2_present"]["all"] == 0
    assert figures["s2_nodata"] == dict.fromkeys([*MONTHS, "all"])
    assert figures["findings"]["few_s2_months"]["chips"] == 1
    assert figures["findings"]["s2_zero"]["chips"] == 0
    assert (tmp_path / "images/test.png").read_bytes().startswith(b"\x89PNG")


def test_files_are_the_same_whatever_wrote_the_store(tmp_path: Path) -> None:
    chips = simulate_records("5eed0001", "5eed0002", "5eed0003")
    for name, source in (
        ("a", SyntheticSource(32)),
        ("b", ReversedSource(SyntheticSource(32))),
    ):
        path = tmp_path / name / "train.zarr"
        pack_split(chips, source, path, tmp_path / name / "scratch", chip_size=32)
        write_audit(tmp_path / name, "train", ChipStore.open(path))
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_files_of_an_earlier_run_are_replaced_not_written(folder: Path, tmp_path: Path) -> None:
    store = ChipStore.open(folder / "train.zarr")
    write_audit(tmp_path, "train", store)
    links = tmp_path / "cache"  # as DVC's
    for file in FILES:
        (links / file).parent.mkdir(parents=True, exist_ok=True)
        (links / file).hardlink_to(tmp_path / file)
    before = [(links / file).read_bytes() for file in FILES]
    write_audit(tmp_path, "train", store, [BadFile("e", "e_S1_00.tif", "9 bytes", "8")])
    assert [(links / file).read_bytes() for file in FILES] == before
    assert (tmp_path / "train.json").read_bytes() != before[0]
    assert not list(tmp_path.rglob("*.partial"))


def test_figures_are_json_that_dvc_reads_as_metrics(folder: Path, tmp_path: Path) -> None:
    text = (folder / "train.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (tmp_path / "train.json").write_text(text)
    for command in (["init", "--no-scm", "-q"], ["metrics", "show", "train.json", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
    [shown] = json.loads(done.stdout).values()
    data = shown["data"]["train.json"]["data"]
    assert data["s2_present"]["January"] == 0.75
    assert data["findings"]["s1_zero"]["values"] == 128


def test_page_has_no_date_and_no_version(folder: Path) -> None:
    data = (folder / "images/train.png").read_bytes()
    chunks, position = [], 8
    while position < len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        chunks.append(name)
        position += size + 12
    assert set(chunks) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


def test_real_chips_are_audited(shared_folder: Path, tmp_path: Path) -> None:
    chips = [decode_real_chip(shared_folder, chip_id) for chip_id in ("0060c0a5", "288afc34")]
    store = write_facts(tmp_path / "train.zarr", chips, chip_size=256)
    facts = SplitFacts.read(store)
    counts = {finding.name: finding.counts.tolist() for finding in list_findings(facts)}
    assert {name: count for name, count in counts.items() if any(count)} == {
        "s1_zero": [0, 2 * (8 + 6 + 2 + 1212)],
        "s1_outside": [0, 1],
        "extreme_target": [79, 220],
    }
    write_audit(tmp_path, "train", store)
    figures = json.loads((tmp_path / "train.json").read_text())
    assert figures["s1_descending_present"]["January"] == 0.5
    assert figures["s1_descending_present"]["August"] == 1
    assert figures["orbits"]["both"] == 1
    assert figures["agbm"]["max"] == pytest.approx(896.61, abs=1e-3)
    assert 76 < figures["agbm"]["mean"] < 92
    assert math.isclose(figures["s2_cloudy"]["December"], (34372 + 3224) / 131072, abs_tol=1e-6)
