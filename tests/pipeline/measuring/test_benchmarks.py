import json
import subprocess
import sys
from pathlib import Path

import pytest

import cost
import startup
from measuring import build_model, count_tflop, format_table, read_preset
from repository_copy import ROOT


def test_winner_trained_on_12_7_chips_a_second_or_13_8_counting_the_held_out_ones() -> None:
    rate, share = cost.winner_utilisation()
    assert cost.count_chips() == 900 * 7820 + 200 * 8689
    assert rate == pytest.approx(12.7, abs=0.05)
    assert pytest.approx(13.8, abs=0.05) == 1100 * 8689 / cost.WINNER_S
    assert share == pytest.approx(12.7 * 2.2 / 624, rel=0.01)


def test_hours_and_energy_by_hand() -> None:
    """8,775,800 chips at 80 a second: 109,697.5 s, 30.5 h, at 700 W 21.3 kWh."""
    row = cost.describe("any", 80.0, 700.0)
    assert (row["hours"], row["kWh"]) == ("30", "21")
    assert cost.compute_hours(3600 * 80, 80) == 1
    assert cost.compute_rate(cost.Gpu("any", 220, 1), 0.5) == pytest.approx(50)


def test_winners_network_has_the_flops_that_the_cost_assumes() -> None:
    forward = count_tflop(build_model(read_preset("winner")), 256)
    assert 3 * forward == pytest.approx(cost.TFLOP_A_CHIP, rel=0.01)


def test_table_is_markdown() -> None:
    table = format_table([{"GPU": "any", "hours": 1.2345}])
    assert table.splitlines() == ["| GPU | hours |", "|-----|-------|", "| any | 1.23  |"]


def test_cost_runs_from_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/cost.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "H200 SXM" in done.stdout


def test_startup_counts_the_cpu_of_what_a_command_starts_and_knows_every_command() -> None:
    spin = "import time\nwhile time.process_time() < 0.2: pass"
    spent = startup.measure(f"python -c '{spin}'", ROOT)
    assert spent.status == 0
    assert spent.cpu >= 0.2
    assert startup.format_row("x", [startup.Spent(3, 2, 1)] * 3) == "| `x` | 3.00 | 2.00 | 1 |"
    assert {"simulate", "why"} <= set(startup.list_subcommands())


def test_map_measures_a_scene_of_repeated_rasters(tmp_path: Path) -> None:
    numbers = tmp_path / "map.json"
    options = f"--size 80 --source rasters --repeat --engine torch --device cpu --json {numbers}"
    subprocess.run([sys.executable, "benchmarks/map.py", *options.split()], cwd=ROOT, check=True)
    [row] = json.loads(numbers.read_text())["rows"]
    assert row["waiting"] + row["writing"] + row["computing"] == pytest.approx(1)
    # 80 pixels from row -689,664 and column 44,800 on: windows -14369...-14367 and 933, 934, by 48.
    assert row["windows/s"] / row["km²/s"] == pytest.approx(3 * 2 / 0.64)
    assert row["peak GiB"] < 2
