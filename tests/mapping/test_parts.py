import pytest

from biomassters.errors import ParamsError
from biomassters.mapping.parts import Shard, check_tile_size, cut_tiles, parse_shard
from biomassters.scenes.grid import Box, Grid

GRID = Grid("EPSG:3067", 10.0, Box(-688_700, 44_800, 150, 230))


def test_shards_share_the_tiles_in_runs_of_neighbours() -> None:
    tiles = cut_tiles(GRID, 48)
    for count in (1, 2, 3, 7, 100):
        parts = [Shard(index, count).pick(tiles) for index in range(count)]
        assert [tile for part in parts for tile in part] == tiles
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_tiles_are_those_of_the_whole_crs() -> None:
    part = Grid("EPSG:3067", 10.0, Box(-688_650, 44_850, 100, 180))
    whole = set(cut_tiles(GRID, 16))
    inner = [box for box in cut_tiles(part, 16) if box.shape == (16, 16)]
    assert len(inner) > 30
    assert set(inner) <= whole


@pytest.mark.parametrize("text", ["8/8", "1", "1/0", "-1/4", "a/b", "1/2/3", "٣/4", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ParamsError, match=r"expected a shard i/n .* at --shard; write 0/8"):
        parse_shard(text)
    assert parse_shard("3/8") == Shard(3, 8)


@pytest.mark.parametrize("size", [0, -16, 100])
def test_what_no_tile_can_be_is_refused(size: int) -> None:
    with pytest.raises(ParamsError, match=f"multiple of 16 pixels, got {size}, at --tile-size"):
        check_tile_size(size)
    assert check_tile_size(512) == 512
