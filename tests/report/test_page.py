from html.parser import HTMLParser
from pathlib import Path

import pytest
from empty_run import make_run
from tiny_training import IDS, pack_chips

from biomassters.report.curves import read_trainings, tabulate_trainings
from biomassters.report.page import render_page
from biomassters.report.pictures import choose_chips, draw_trainings
from biomassters.store.chips import ChipStore
from repository_copy import ROOT


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS[:2])


class Links(HTMLParser):
    """Collects what a page refers to, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        """Note a tag's addresses."""
        found = dict(attrs)
        self.addresses += [found[key] or "" for key in ("src", "href") if key in found]
        self.anchors.add(f"#{found.get('id')}")


def test_page_of_a_run_without_any_result_says_so_by_what_it_leaves_out(
    tmp_path: Path, store: ChipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    page = render_page(make_run(tmp_path, store))
    assert 'id="params"' in page
    assert 'id="card"' in page
    assert not [
        name for name in ("scenes", "maps", "chips", "robustness") if f'id="{name}"' in page
    ]


def test_page_holds_all_that_it_refers_to(
    tmp_path: Path, store: ChipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    page = render_page(make_run(tmp_path, store))
    links = Links()
    links.feed(page)
    assert len(links.addresses) > 3
    outside = [a for a in links.addresses if not a.startswith("data:") and a not in links.anchors]
    assert outside == []


def test_text_from_a_run_is_no_markup(
    tmp_path: Path, store: ChipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    evaluation = {"packages": {"<script>alert(1)</script>": "1"}}
    page = render_page(make_run(tmp_path, store, evaluation=evaluation))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_best_median_and_worst_are_by_rmse() -> None:
    rows = [{"chip_id": name, "chip_rmse": rmse} for name, rmse in zip("abcd", "3124", strict=True)]
    assert choose_chips(rows) == {"best": "b", "median": "c", "worst": "d"}
    assert set(choose_chips(rows[:1]).values()) == {"a"}


def test_trainings_are_tabled_and_drawn_as_they_were_recorded(tmp_path: Path) -> None:
    nothing = read_trainings(tmp_path, [0])
    assert [training.name for training in nothing] == ["fold 0", "finetune"]
    assert draw_trainings(nothing) == []
    for curve, text in (
        ("train/0/plots/metrics/train/loss", "step\tloss\n0\t67.5\n1\t50\n"),
        ("train/0/plots/metrics/validation/chip_rmse", "step\tchip_rmse\n1\t40.25\n"),
        ("finetune/plots/metrics/train/loss", "step\tloss\n0\t30\n"),
    ):
        path = tmp_path / f"{curve}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    trainings = read_trainings(tmp_path, [0])
    assert tabulate_trainings(trainings).splitlines() == [
        "training,epoch,loss,chip_rmse,chip_rmse_tta",
        "fold 0,0,67.5000,,",
        "fold 0,1,50.0000,40.2500,",
        "finetune,0,30.0000,,",
    ]
    [picture] = draw_trainings(trainings)
    assert picture.source.startswith("data:image/svg+xml;base64,")
