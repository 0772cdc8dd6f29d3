from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from audit_examples import make_chip, remove_s2, write_facts
from example_chips import pack
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from biomassters.audit.facts import SplitFacts
from biomassters.audit.findings import list_findings
from biomassters.audit.plots import draw_audit
from biomassters.audit.report import describe_skipped
from biomassters.dataset.files import BadFile
from biomassters.store.bands import CLP, N_MONTHS
from biomassters.store.chips import Chip, ChipStore

BAD = [BadFile(f"{index:08x}", f"{index:08x}_S1_00.tif", "9 bytes", "8") for index in range(9)]


def draw(tmp_path: Path, chips: list[Chip], bad_files: list[BadFile] = BAD) -> Figure:
    facts = SplitFacts.read(write_facts(tmp_path / "train.zarr", chips))
    return draw_audit("train", facts, list_findings(facts), describe_skipped(bad_files))


def make_full_scale_facts() -> SplitFacts:
    """Return facts of as many chips as the official split has, with every defect."""
    n, pixels = 8689, 65536
    random = np.random.default_rng(0)

    def count(*shape: int) -> np.ndarray:
        return random.integers(0, pixels, (n, *shape))

    means = random.gamma(2, 40, n)
    facts = {
        "chip_id": np.array([f"{index:08x}" for index in range(n)], object),
        "s2_present": random.random((n, N_MONTHS)) < 0.4,
        **{name: count(N_MONTHS, 4) for name in ("s1_nodata", "s1_zero", "s1_outside")},
        **{name: count(N_MONTHS) for name in ("s2_nodata", "s2_cloudy", "s2_zero")},
        "s2_block": count(N_MONTHS, 2),
        "agbm_mean": means,
        "agbm_min": -means,
        "agbm_max": means * 10,
        **{name: count() for name in ("agbm_nodata", "agbm_negative", "agbm_extreme")},
    }
    facts["s1_nodata"][: n // 4, :, 2:] = pixels
    facts["s1_nodata"][: n // 9, :, :2] = pixels
    facts["s2_zero"][::7] = pixels
    return SplitFacts(facts, 256)


def list_texts(figure: Figure) -> list[Text]:
    """Return all texts that show, once the figure is drawn."""
    FigureCanvasAgg(figure).draw()
    texts = [*figure.texts]
    for axes in figure.axes:
        texts += [axes.title, *axes.texts]
        if axes.get_legend() is not None:
            texts += [axes.get_legend().get_title(), *axes.get_legend().get_texts()]
        if not axes.axison:
            continue
        for axis, coordinate in ((axes.xaxis, 0), (axes.yaxis, 1)):
            low, high = sorted(axis.get_view_interval())
            texts.append(axis.label)
            texts += [
                label
                for label in axis.get_ticklabels()
                if low <= label.get_position()[coordinate] <= high
            ]
    return [text for text in texts if text.get_text().strip()]


def list_words(figure: Figure) -> list[str]:
    return [text.get_text() for text in list_texts(figure)]


@pytest.mark.parametrize("split", ["planted", "full scale", "absurd targets"])
def test_no_text_covers_another_or_leaves_the_page(tmp_path: Path, split: str) -> None:
    if split == "planted":
        figure = draw(tmp_path, [make_chip("0003d2eb"), make_chip("000aa810", target=False)])
    elif split == "absurd targets":
        chips = [make_chip("0003d2eb"), make_chip("000aa810")]
        chips[0].agbm[:] = 3e38
        chips[1].agbm[:] = -3e38
        figure = draw(tmp_path, chips)
    else:
        facts = make_full_scale_facts()
        figure = draw_audit("train", facts, list_findings(facts), describe_skipped(BAD))
    texts = list_texts(figure)
    boxes = {text: text.get_window_extent() for text in texts}
    assert len(texts) > 120
    for text, box in boxes.items():
        assert box.x0 >= 0, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.x1 <= figure.bbox.x1, text.get_text()
        assert box.y1 <= figure.bbox.y1, text.get_text()
    for one, other in combinations(texts, 2):
        a, b = boxes[one], boxes[other]
        covered = min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
        assert not covered, (one.get_text(), other.get_text())


def test_title_counts_chips_and_targets(tmp_path: Path) -> None:
    chips = [make_chip("a"), make_chip("b"), make_chip("c", target=False)]
    words = list_words(draw(tmp_path, chips))
    assert "Split train: 3 chips of 32 x 32 pixels, 2 with a target" in words


def test_months_are_coloured_by_the_share_of_chips_that_have_them(tmp_path: Path) -> None:
    chips = [make_chip("a"), make_chip("b"), make_chip("c")]
    remove_s2(chips[0], 3, 4)
    remove_s2(chips[1], 3)
    remove_s2(chips[2], 3)
    presence, defects = draw(tmp_path, chips).axes[:2]
    np.testing.assert_allclose(presence.images[0].get_array()[2, 2:6], [100, 0, 200 / 3, 100])
    # No pixel of a month without any image can be lost.
    assert np.isnan(np.ma.filled(defects.images[0].get_array(), np.nan)[2:, 3]).all()


def test_lost_pixels_are_shares_of_images_present(tmp_path: Path) -> None:
    chips = [make_chip("a"), make_chip("b")]
    remove_s2(chips[1], 5)
    chips[0].s2[5, CLP, :8] = 90
    defects = draw(tmp_path, chips).axes[1]
    labels = [label.get_text() for label in defects.get_yticklabels()]
    row = labels.index("S2: CLP over 50, cloudy")
    np.testing.assert_allclose(defects.images[0].get_array()[row], np.eye(N_MONTHS)[5] * 25)


def test_bars_count_chips_by_their_months(tmp_path: Path) -> None:
    chips = [make_chip(name) for name in "abcd"]
    remove_s2(chips[0], *range(5))
    axes = draw(tmp_path, chips).axes[2]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights[7] == 0.25
    assert heights[12] == 0.75
    assert "25% have fewer than 8" in [text.get_text() for text in axes.texts]


def test_table_says_what_was_found_and_what_was_not(tmp_path: Path) -> None:
    chips = [make_chip("a"), make_chip("b")]
    chips[1].s1[0, 0, 0, :7] = 0
    words = list_words(draw(tmp_path, chips, BAD[:1]))
    row = words.index("S1 of exactly 0 dB")
    assert words[row : row + 5] == ["S1 of exactly 0 dB", "7 values", "1", "50%", "b"]
    assert words[words.index("AGBM below 0 t/ha") + 1] == "none"
    row = words.index("Left out of the store")
    assert words[row : row + 4] == ["Left out of the store", "1 bad file", "1", "00000000"]


def test_split_without_targets_says_so(tmp_path: Path) -> None:
    words = list_words(draw(tmp_path, [make_chip(target=False)], []))
    assert "no targets in this split" in words
    assert words[words.index("Left out of the store") + 1] == "none"


def test_split_without_chips_is_a_page_that_says_so(tmp_path: Path) -> None:
    pack([], tmp_path)
    facts = SplitFacts.read(ChipStore.open(tmp_path / "train.zarr"))
    figure = draw_audit("test", facts, list_findings(facts), describe_skipped([]))
    assert [text.get_text() for text in list_texts(figure)] == ["Split test: no chips"]
