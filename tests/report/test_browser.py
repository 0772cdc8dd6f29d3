"""The page in a real browser, where there is one; scripts/view_report.py looks at a run's own."""

from pathlib import Path

import pytest
from empty_run import make_run
from tiny_training import IDS, pack_chips

from biomassters.report.curves import Training
from biomassters.report.page import render_page
from repository_copy import ROOT
from view_report import WIDTHS, find_browser, list_faults, look_at

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no chromium here")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store = pack_chips(folder, *IDS[:2])
    trainings = [Training("fold 0", {0: 60.0, 1: 50.0}, {1: 40.0}, {1: 39.0})]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        text = render_page(make_run(folder, store, trainings=trainings))
    path = folder / "index.html"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("width", WIDTHS)
def test_browser_finds_no_fault(page: Path, width: int) -> None:
    found = look_at(page, width)
    assert found["images"] == 1
    assert list_faults(found, width) == []


def test_browser_finds_what_is_wrong(page: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    more = '<img src="absent.png"><div style="width: 3000px">wide</div><script>nothing()</script>'
    wrong.write_text(page.read_text("utf-8").replace("</main>", f"{more}</main>"), "utf-8")
    faults = " ".join(list_faults(look_at(wrong, 1400), 1400))
    for words in ("nothing is not defined", "without a description", "outside", "wider than"):
        assert words in faults
