import tempfile
from pathlib import Path

import pytest
from fuzz_archives import EXAMPLES, KINDS, Damage, Example, run
from hypothesis import given, settings
from hypothesis import strategies as st

DAMAGES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.builds(
            Damage, st.sampled_from(KINDS), st.floats(0, 1), st.floats(0, 1), st.integers(0, 199)
        ),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_honest_example_is_read_in_full(example: Example, tmp_path: Path) -> None:
    assert run(tmp_path, example, []) == {"read": 1, "named": 0, "right": 25}


@settings(max_examples=40, deadline=None, derandomize=True)
@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
@given(damages=DAMAGES)
def test_damaged_archive_gives_no_wrong_byte(example: Example, damages) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert not run(Path(folder), example, damages)["WRONG"]
