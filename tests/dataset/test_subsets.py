import pytest
from example_chips import ALL_CHIPS, simulate_record

from biomassters.dataset.catalogue import Catalogue
from biomassters.dataset.files import ChipRecord, Split
from biomassters.dataset.subsets import select_subset
from biomassters.errors import ParamsError
from biomassters.params.sections import SubsetParams


def name_chips(prefix: str, number: int, split: Split) -> list[ChipRecord]:
    record = simulate_record("5eed0001")
    return [record._replace(chip_id=f"{prefix}{i:03}", split=split) for i in range(number)]


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    return Catalogue(
        tmp_path, {"train": name_chips("a", 200, "train"), "test": name_chips("b", 50, "test")}
    )


def select(catalogue: Catalogue, split: Split = "train", **changes: object) -> list[str]:
    subset = SubsetParams(**{**ALL_CHIPS.model_dump(), **changes})
    return [chip.chip_id for chip in select_subset(catalogue, split, subset)]


def test_all_chips_are_the_default(catalogue: Catalogue) -> None:
    assert select_subset(catalogue, "train", ALL_CHIPS) == catalogue.chips("train")


def test_first_chips_are_those_with_the_lowest_ids(catalogue: Catalogue) -> None:
    assert select(catalogue, first=3) == ["a000", "a001", "a002"]
    assert len(select(catalogue, first=1000)) == 200


@pytest.mark.parametrize(("fraction", "n_chips"), [(0.5, 100), (0.013, 3), (1e-6, 1), (0.999, 200)])
def test_fraction_is_exact_but_never_empty(
    catalogue: Catalogue, fraction: float, n_chips: int
) -> None:
    drawn = select(catalogue, fraction=fraction)
    assert len(drawn) == n_chips
    assert drawn == sorted(set(drawn))


def test_larger_fraction_has_all_chips_of_a_smaller_one(catalogue: Catalogue) -> None:
    drawn = [set(select(catalogue, fraction=fraction)) for fraction in (0.1, 0.3, 0.31, 0.9)]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3]


def test_seed_decides_the_draw(catalogue: Catalogue) -> None:
    one, other = (select(catalogue, fraction=0.3, seed=seed) for seed in (1, 2))
    assert one == select(catalogue, fraction=0.3, seed=1)
    assert one != other


def test_draw_takes_one_chip_as_easily_as_another(catalogue: Catalogue) -> None:
    """Of 400 draws of a tenth, a chip is in 40, give or take 4 standard deviations of 6."""
    drawn = [chip for seed in range(400) for chip in select(catalogue, fraction=0.1, seed=seed)]
    counts = [drawn.count(chip.chip_id) for chip in catalogue.chips("train")]
    assert min(counts) >= 16
    assert max(counts) <= 64


def test_chips_by_id_are_those_of_this_split_in_the_order_of_the_catalogue(
    catalogue: Catalogue,
) -> None:
    wanted = ("b007", "a011", "a002", "a011")
    assert select(catalogue, chip_ids=wanted) == ["a002", "a011"]
    assert select(catalogue, "test", chip_ids=wanted) == ["b007"]


def test_chip_of_neither_split_is_named(catalogue: Catalogue) -> None:
    with pytest.raises(ParamsError, match=r"got c1, c2, at params\.yaml: data\.subset\.chip_ids;"):
        select(catalogue, chip_ids=("c2", "a001", "c1"))
    with pytest.raises(ParamsError, match=r"got c0, c1, c2, c3, c4 and 3 more, at"):
        select(catalogue, chip_ids=tuple(f"c{number}" for number in range(8)))


def test_chips_of_one_split_alone_leave_the_other_empty(catalogue: Catalogue) -> None:
    assert select(catalogue, chip_ids=("a001",)) == ["a001"]
    assert select(catalogue, "test", chip_ids=("a001",)) == []


@pytest.mark.parametrize("changes", [{}, {"chip_ids": ("a001",)}, {"fraction": 0.5}, {"first": 2}])
def test_split_that_the_catalogue_has_no_chip_of_is_empty(tmp_path, changes) -> None:
    catalogue = Catalogue(tmp_path, {"train": name_chips("a", 3, "train"), "test": []})
    assert select(catalogue, **changes)
    assert select(catalogue, "test", **changes) == []
