import psutil
import pytest

from biomassters.errors import ParamsError
from biomassters.mapping.memory import GIB, MIB, parse_memory, plan_memory

BLOCK = 256 * 256
"""Pixels."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GiB", 2 * GIB),
        ("2G", 2 * GIB),
        ("1.5 gib", 3 * GIB // 2),
        ("500M", 500 * MIB),
        ("123456", 123_456),
    ],
)
def test_memory_is_read_as_people_write_it(text: str, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "2 GiB/s", "1e9"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ParamsError, match="amount of memory such as 2GiB"):
        parse_memory(text)


def test_more_memory_reads_further_ahead_and_keeps_more() -> None:
    used = psutil.Process().memory_info().rss
    plans = [plan_memory(used + extra * MIB, BLOCK, 512, 4) for extra in (500, 1000, 4000)]
    assert plans == sorted(plans, key=lambda plan: (plan.blocks_ahead, plan.kept_bytes))
    assert plans[0].blocks_ahead >= 1
    assert plans[-1].blocks_ahead == 8
    assert plans[-1].kept_bytes > 2 * GIB


def test_what_a_scene_keeps_is_left_to_it() -> None:
    limit = psutil.Process().memory_info().rss + 4000 * MIB
    alone, beside = (plan_memory(limit, BLOCK, 512, 4, kept) for kept in (0, GIB))
    assert beside.kept_bytes + beside.cache_bytes < alone.kept_bytes + alone.cache_bytes


def test_too_little_memory_is_refused_with_what_would_do() -> None:
    with pytest.raises(ParamsError, match=r"at least [0-9.]+ GiB .*, got 0\.00, at --memory"):
        plan_memory(1000, BLOCK, 512, 4)
