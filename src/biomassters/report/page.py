"""The page: its sections in order, of which those without anything to show are left out."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment

from biomassters.params.whole import Params
from biomassters.report.card import describe_limits, describe_reproduction
from biomassters.report.curves import Training
from biomassters.report.pictures import (
    Picture,
    choose_chips,
    draw_chip,
    draw_trainings,
    find_picture,
)
from biomassters.report.section import Section
from biomassters.report.tables import (
    Table,
    describe_scene,
    format_figure,
    tabulate_conditions,
    tabulate_data,
    tabulate_figures,
    tabulate_intervals,
    tabulate_params,
    tabulate_revisions,
    tabulate_runs,
)
from biomassters.report.template import PAGE, SCRIPT, STYLE
from biomassters.store.chips import ChipStore

TITLE: Final = "Forest biomass from a year of Sentinel-1 and Sentinel-2"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the pipeline left, as the page reads it.

    Attributes:
        params: All of params.yaml.
        winner: The winner's preset.
        metrics: The folder of metrics.
        predictions: The folder of the test chips' predictions.
        validation: The folder of the folds' predictions.
        stores: By split.
        evaluation: Of evaluation.json.
        robustness: Of robustness.json; empty where there is none.
        trainings: Their curves.
    """

    params: Params
    winner: Mapping[str, Any]
    metrics: Path
    predictions: Path
    validation: Path
    stores: Mapping[str, ChipStore]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    robustness: Mapping[str, Any] = field(default_factory=dict)
    trainings: Sequence[Training] = ()

    @property
    def sets(self) -> dict[str, Mapping[str, Any]]:
        """The scores of each set of chips by its name in files, those of the test chips first."""
        of_folds = self.evaluation.get("validation") or {}
        sets = {name.replace("_", "-"): scores for name, scores in of_folds.items()}
        test = self.evaluation.get("test")
        return {"test": test, **sets} if test else sets

    @property
    def first_set(self) -> str | None:
        """The set that the page shows first: the test chips, or those that a fold held out."""
        return next(iter(self.sets), None)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is no file."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return content


def render_page(run: Run) -> str:
    """Return the page as HTML."""
    sections = [section for section in list_sections(run) if section.has_content]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(PAGE).render(
        title=TITLE,
        question=_describe_question(run),
        simulated=run.params.data.source == "synthetic",
        headline=list(_list_headline(run)),
        sections=sections,
        style=STYLE,
        script=SCRIPT,
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )


def list_sections(run: Run) -> list[Section]:
    """Return all sections, in the page's order."""
    images = run.metrics / "evaluation/images"
    name = run.first_set or "test"
    return [
        *_show_scenes(run),
        _show_maps(images, name),
        Section(
            anchor="results",
            title="Results, beside something simple",
            texts=[
                "Chip RMSE, the competition's metric, is the mean over chips of each chip's RMSE;"
                " pooled RMSE is over all pixels. Intervals are bootstrapped over chips."
            ],
            tables=[tabulate_figures(s, name_set(kind)) for kind, s in run.sets.items()],
        ),
        _show_intervals(run, images, name),
        Section(
            anchor="errors",
            title="Where it errs",
            pictures=[
                *find_picture(
                    images / f"density_{name}.png",
                    "Predicted against reference biomass of all pixels, as a density",
                    "On the diagonal the two agree; where the cloud bends below it, high biomass"
                    " is underestimated.",
                ),
                *find_picture(
                    images / f"error_by_bin_{name}.png",
                    "RMSE by bin of reference biomass",
                    "RMSE of the pixels of each biomass bin, beside simpler models.",
                ),
            ],
            in_pairs=True,
        ),
        _show_chips(run, name),
        _show_robustness(run),
        _show_data(run),
        Section(
            anchor="training",
            title="Training",
            pictures=draw_trainings(run.trainings),
        ),
        _show_params(run),
        Section(
            anchor="runs",
            title="Time, machine, revisions",
            tables=[
                tabulate_runs(run.params.folds),
                tabulate_revisions(run.evaluation.get("packages") or {}),
            ],
        ),
        describe_reproduction(run.params),
        describe_limits(run.params, calibrated=_is_calibrated(run)),
    ]


def name_set(name: str) -> str:
    """Return a set of chips by its name in files, for people."""
    return "test chips" if name == "test" else f"chips that {name.replace('-', ' ')} held out"


def _describe_question(run: Run) -> str:
    stores = run.stores
    return (
        f"How much above-ground biomass stands on each 10 m pixel of {len(stores['test'])} test"
        f" chips, as a model trained on {len(stores['train'])} others reads it from twelve months"
        " of radar and optical images, and how far can that be trusted?"
    )


def _list_headline(run: Run) -> list[tuple[str, str, str]]:
    name = run.first_set
    if name is None:
        return []
    scores = run.sets[name]
    model = scores["model"]
    headline = [
        ("chip RMSE", f"{model['chip_rmse']:.1f} t/ha", _format_ends(model, "chip_rmse")),
        ("R²", format_figure({"r2": model["r2"]}, "r2"), _format_ends(model, "r2", digits=2)),
    ]
    for kind, title in (("baseline", "the training mean"), ("trees", "trees by pixel")):
        other = scores.get(kind)
        if other is not None and other["chip_rmse"]:
            share = model["chip_rmse"] / other["chip_rmse"] - 1
            side = "below" if share <= 0 else "above"
            headline.append((f"against {title}", f"{abs(share):.0%} {side}", "by chip RMSE"))
    intervals = scores.get("intervals")
    if intervals and intervals["pixel"]["coverage"] is not None:
        inside = f"{intervals['pixel']['coverage']:.0%}"
        note = f"of pixels in their {100 * intervals['level']:g} % interval"
        headline.append(("coverage", inside, note))
    return headline


def _format_ends(figures: Mapping[str, Any], name: str, digits: int = 1) -> str:
    ends = (figures.get("ci95") or {}).get(name)
    return f"95 %: {ends[0]:.{digits}f}…{ends[1]:.{digits}f}" if ends else ""


def _show_scenes(run: Run) -> Iterator[Section]:
    """Yield the maps of whole scenes, with what they hold."""
    scenes = {name: read_json(run.metrics / f"maps/{name}.json") for name in run.params.maps}
    pictures = [
        picture
        for name, figures in scenes.items()
        for picture in find_picture(
            run.metrics / f"maps/images/{name}.png",
            f"Above-ground biomass of the scene {name}, and its standard deviation",
            describe_scene(name, figures),
        )
    ]
    yield Section(anchor="scenes", title="Whole scenes", pictures=pictures)


def _show_maps(images: Path, name: str) -> Section:
    of = name_set(name)
    return Section(
        anchor="maps",
        title="Maps of chips",
        pictures=find_picture(
            images / f"panels_{name}.png",
            f"Sentinel-2, Sentinel-1, reference, prediction and error of some {of}",
            f"Some {of}, from poor to rich in biomass. Press a picture to enlarge it.",
        ),
    )


def _show_intervals(run: Run, images: Path, name: str) -> Section:
    judged = {
        kind: scores["intervals"] for kind, scores in run.sets.items() if "intervals" in scores
    }
    return Section(
        anchor="trust",
        title="How far to trust a pixel, and a total",
        texts=[
            "Intervals are conformal: of new chips like those that calibrated them, the stated"
            " share of targets lies inside. Those of areas follow from how errors correlate with"
            " distance; summed as if pixels erred independently, they would hold far less. They"
            " refer to the LiDAR-derived reference maps, not to field plots."
        ],
        tables=[tabulate_intervals(i, name_set(kind)) for kind, i in judged.items()],
        pictures=find_picture(
            images / f"coverage_{name}.png",
            "Coverage of the intervals by decile of the prediction, and by size of the area",
            "Share of targets inside their intervals; the line is what was promised.",
        ),
    )


def _show_chips(run: Run, name: str) -> Section:
    table = run.metrics / "evaluation/chips.csv"
    rows: list[dict[str, str]] = []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["set"] == name]
    pictures = []
    if rows:
        store = run.stores["test" if name == "test" else "train"]
        folder = run.predictions if name == "test" else run.validation / name
        errors = {row["chip_id"]: float(row["chip_rmse"]) for row in rows}
        for word, chip_id in choose_chips(rows).items():
            caption = f"The {word} chip by RMSE: {chip_id}, {errors[chip_id]:.1f} t/ha."
            pictures.append(draw_chip(store, folder, chip_id, caption))
    return Section(
        anchor="chips", title="The best, the median and the worst chip", pictures=pictures
    )


def _show_robustness(run: Run) -> Section:
    table = tabulate_conditions(run.robustness)
    return Section(
        anchor="robustness",
        title="When data are missing",
        tables=[] if table is None else [table],
        pictures=find_picture(
            run.metrics / "robustness/images/robustness.png",
            "Chip RMSE as Sentinel-2 months are removed, and under each condition",
            "The same model, shown less: which months are removed is drawn once and kept.",
        ),
    )


def _show_data(run: Run) -> Section:
    audits = {split: read_json(run.metrics / f"fetch/{split}.json") for split in ("train", "test")}
    known = {split: audit for split, audit in audits.items() if audit}
    pictures: list[Picture] = []
    for split in known:
        pictures += find_picture(
            run.metrics / f"fetch/images/{split}.png",
            f"Audit of the {split} chips: months, orbits, clouds, biomass",
            f"Audit of the {split} chips.",
        )
    tables = [tabulate_data(known)] if known else []
    return Section(anchor="data", title="The data", tables=tables, pictures=pictures, in_pairs=True)


def _show_params(run: Run) -> Section:
    table = tabulate_params(run.params.model_dump(mode="json"), run.winner)
    differing = [row for row in table.rows if row[2] != "the same"]
    caption = f"{len(differing)} of {len(table.rows)} params differ from the winner's recipe"
    return Section(
        anchor="params",
        title="Params",
        tables=[Table(table.header, differing, caption)] if differing else [],
        folded=table,
    )


def _is_calibrated(run: Run) -> bool:
    return any("intervals" in scores for scores in run.sets.values())
