"""Scores of any folder of predictions, alone or against another's, chip by chip."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from biomassters.commands.summary import COLUMNS
from biomassters.dataset.files import Split
from biomassters.errors import ChipDataError, name_few
from biomassters.evaluation.bootstrap import N_RESAMPLES
from biomassters.evaluation.figures import CONFIDENCE, ChipErrors, subtract_figures
from biomassters.evaluation.folders import FolderContents, list_folder, list_targets, score_folder
from biomassters.processes.writing import write_whole
from biomassters.store.chips import ChipStore

_WIDTH: Final = 27


@dataclass
class _Scored:
    """A folder and its errors, of the chips that are scored."""

    contents: FolderContents
    errors: ChipErrors

    def describe(self) -> dict[str, Any]:
        """Return all that JSON says of it."""
        contents = asdict(self.contents)
        named = {key: contents[key] for key in ("missing", "extra")}
        return {"folder": str(self.contents.folder), **named, "scores": self.errors.summarise()}


def score(
    folder: Path,
    *,
    against: Path | None = None,
    split: Split = "test",
    as_json: bool = False,
    chips: Path | None = None,
) -> str:
    """Return the scores of a folder of predictions as a table, or as JSON.

    Args:
        folder: Of files CHIP_agbm.tif, of one band or of four.
        against: Another one: both are scored on the chips that both have.
        split: Whose chips these are; their store has the targets.
        as_json: Whether JSON is wanted.
        chips: Where to write a row for each chip as CSV; None = nowhere.

    Raises:
        ChipDataError: The split has no targets, or a folder has no predictions of its chips, or
            files that are none.
    """
    store = ChipStore.open(Path(f"chips/{split}.zarr"))
    known = list_targets(store)
    if not known:
        raise ChipDataError(
            f"expected targets of the {split} chips, got none, at {store.path};"
            " see `python -m biomassters add-test-targets --help`, or score another --split"
        )
    scored = [_score(store, path, known) for path in (folder, against) if path is not None]
    common = set.intersection(*(set(each.errors.chip_ids) for each in scored))
    if not common:
        raise ChipDataError(
            f"expected predictions of the same chips, got no chip of both, at {folder} and"
            f" {against}; check the folders"
        )
    for each in scored:
        each.errors = each.errors.of(common)
    if chips is not None:
        write_whole(chips, _tabulate_chips(*(each.errors for each in scored)).encode())
    document = {
        "unit": "t/ha",
        "split": split,
        "chips": len(common),
        "targets": len(known),
        **scored[0].describe(),
    }
    if against is not None:
        document["against"] = scored[1].describe()
        document["difference"] = subtract_figures(*(each.errors for each in scored))
    return json.dumps(document, indent=2) if as_json else "\n".join(_tabulate(document))


def _score(store: ChipStore, folder: Path, known: list[str]) -> _Scored:
    contents = list_folder(folder, known)
    # A prediction of a chip without a target is of this split, though nothing is to be scored.
    blank = {f"{chip_id}_agbm.tif" for chip_id in set(store.chip_ids) - set(known)}
    contents.extra = [name for name in contents.extra if name not in blank]
    return _Scored(contents, score_folder(store, contents))


def _tabulate(document: dict[str, Any]) -> Iterator[str]:
    folders = {"A": document}
    parts = {"A": document["scores"]}
    if "against" in document:
        folders["B"] = document["against"]
        parts |= {"B": folders["B"]["scores"], "A - B": document["difference"]}
    for name, folder in folders.items():
        yield f"{name} = {folder['folder']}"
        for what in ("missing", "extra"):
            if folder[what]:
                yield f"    {what}: {len(folder[what])}, {name_few(folder[what])}"
    yield (
        f"{document['chips']} of {document['targets']} {document['split']} chips with a target;"
        f" in brackets: 95 % confidence intervals, {N_RESAMPLES} draws of chips"
    )
    yield ""
    yield f"{'t/ha (R² has no unit)':{_WIDTH}}" + "".join(f"{name:>{_WIDTH}}" for name in parts)
    for key, title in COLUMNS.items():
        yield f"{title:{_WIDTH}}" + "".join(
            _format(part[key], part[CONFIDENCE][key]) for part in parts.values()
        )
    for name in document["scores"]["rmse_by_bin"]:
        yield f"{f'RMSE of targets {name}':{_WIDTH}}" + "".join(
            _format(part["rmse_by_bin"][name], part[CONFIDENCE]["rmse_by_bin"][name])
            for part in parts.values()
        )
    if "difference" in document:
        better, worse = (document["difference"][key] for key in ("better_on", "worse_on"))
        yield ""
        yield f"A has the lower RMSE on {better} chips, B on {worse}"


def _format(value: float | None, ends: list[float] | None) -> str:
    text = "-" if value is None else f"{value:.2f}"
    interval = "" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    return f"{text + interval:>{_WIDTH}}"


def _tabulate_chips(ours: ChipErrors, theirs: ChipErrors | None = None) -> str:
    """Return a row a chip: its figures, and those of the other folder."""
    columns = ["chip_id", "pixels", "target_mean", "bias", "mae", "chip_rmse"]
    others = [] if theirs is None else theirs.chip_rmses.tolist()
    if theirs is not None:
        columns += ["against_chip_rmse", "difference"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for number, (chip, rmse) in enumerate(zip(ours.chips, ours.chip_rmses.tolist(), strict=True)):
        pixels, error, absolute, _ = chip.chip_sums[0]
        values = [chip.target_sums[1] / pixels, error / pixels, absolute / pixels, rmse]
        if theirs is not None:
            values += [others[number], rmse - others[number]]
        writer.writerow([chip.chip_ids[0], int(pixels), *(f"{value:.3f}" for value in values)])
    return text.getvalue()
