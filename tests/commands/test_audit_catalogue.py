import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_chips import simulate_records

from biomassters.commands.audit_catalogue import SplitAudit, audit_catalogue, tabulate_catalogue
from biomassters.dataset.catalogue import Catalogue, read_catalogue
from biomassters.dataset.files import list_files
from biomassters.store.bands import MONTHS
from repository_copy import ROOT


@pytest.fixture(scope="module")
def real_folder(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogue")
    for path in (shared_folder / "catalogue").glob("*.csv.xz"):
        (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
    return folder


@pytest.fixture(scope="module")
def real(real_folder: Path) -> dict[str, SplitAudit]:
    return audit_catalogue(read_catalogue(real_folder))


def test_real_catalogue_has_its_known_figures(real: dict[str, SplitAudit]) -> None:
    train, test = real["train"], real["test"]
    assert (train.chips, test.chips) == (8689, 2773)
    assert train.feature_files + test.feature_files == 252_426
    assert (train.targets, test.targets) == (8689, 0)
    assert round((train.size + test.size) / 1e9, 1) == 312.5


def test_real_test_chips_have_more_s2_than_train_chips(real: dict[str, SplitAudit]) -> None:
    assert (round(real["train"].s2_share, 3), round(real["test"].s2_share, 3)) == (0.813, 0.904)
    assert round(real["train"].few_s2_share, 2) == 0.21
    assert real["test"].few_s2_share == 0
    summer = slice(MONTHS.index("April"), None)
    assert all(audit.s2_present[:, summer].all() for audit in real.values())


def test_table_shows_the_shift_of_the_real_catalogue(real: dict[str, SplitAudit]) -> None:
    lines = tabulate_catalogue(real).splitlines()
    rows = {line[:34].strip(): line[34:].split() for line in lines}
    assert rows["chips"] == ["8,689", "2,773"]
    assert rows["S2 present"] == ["81.3%", "90.4%", "+9.0"]
    assert rows["December"] == ["14.4%", "19.4%", "+5.0"]
    assert rows["chips with fewer than 8 S2 months"] == ["21.0%", "0.0%", "-21.0"]
    assert lines[-1] == ("together 11,462 chips, 252,426 S1 and S2 files, 8,689 targets, 312.5 GB")


def test_command_prints_the_table(shared_folder: Path) -> None:
    folder = shared_folder / "real-chips"
    done = subprocess.run(
        [sys.executable, "-m", "biomassters", "audit-catalogue", str(folder)],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == tabulate_catalogue(audit_catalogue(read_catalogue(folder))) + "\n"
    assert "together 2 chips, 48 S1 and S2 files, 2 targets" in done.stdout


def test_one_split_is_audited_alone() -> None:
    chips = simulate_records("5eed0001", "5eed0002")
    files = [record for chip in chips for record in list_files(chip)]
    audits = audit_catalogue(Catalogue(Path("data"), {"train": chips, "test": []}))
    assert list(audits) == ["train"]
    audit = audits["train"]
    assert (audit.chips, audit.targets, audit.feature_files) == (2, 2, len(files) - 2)
    assert audit.size == sum(record.size for record in files)
    assert audit.with_cksum == len(files)
    assert "test" not in tabulate_catalogue(audits)


def test_months_and_checksums_are_counted_by_hand() -> None:
    [chip] = simulate_records("5eed0001")
    some = next(record for record in chip.s2 if record is not None)
    s2 = (some,) * 7 + (None,) * 5
    poor = chip._replace(s2=s2)
    rich = chip._replace(s2=(some._replace(cksum=None),) * 8 + (None,) * 4)
    test = [poor._replace(split="test", agbm=None)]
    audits = audit_catalogue(Catalogue(Path("data"), {"train": [poor, rich], "test": test}))
    assert audits["train"].s2_share == 15 / 24
    assert audits["train"].few_s2_share == 0.5
    assert audits["train"].with_cksum == (12 + 7 + 1) + (12 + 1)
    assert audits["test"].targets == 0
    np.testing.assert_array_equal(audits["test"].s2_present, [[True] * 7 + [False] * 5])
    assert "S2 present                                   62.5%           58.3%" in (
        tabulate_catalogue(audits)
    )
