from example_chips import simulate_record

from biomassters.dataset.files import FileRecord, list_files, verify
from biomassters.sources.synthetic_source import SyntheticSource


def test_synthetic_source_has_exactly_the_files_of_the_catalogue() -> None:
    chip = simulate_record("5eed0001")
    [(got, files, bad_files)] = SyntheticSource(32).fetch_chips([chip])
    assert got == chip
    assert not bad_files
    assert sorted(files) == sorted(record.filename for record in list_files(chip))
    for record in list_files(chip):
        verify(record, files[record.filename])


def test_synthetic_source_lists_a_month_that_its_chip_lacks_as_bad() -> None:
    chip = next(c for c in map(simulate_record, map(str, range(20))) if None in c.s2)
    month = chip.s2.index(None)
    extra = FileRecord(f"{chip.chip_id}_S2_{month:02d}.tif", "train_features", 1, None)
    wrong = chip._replace(s2=(*chip.s2[:month], extra, *chip.s2[month + 1 :]))
    [fetched] = SyntheticSource(32).fetch_chips([wrong])
    [bad] = fetched.bad_files
    assert bad[:2] == (chip.chip_id, extra.filename)
    assert bad.expected.startswith("an absent month")
    assert len(fetched.files) == len(list_files(chip))
