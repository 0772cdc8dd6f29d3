"""Curves of a training for `dvc plots` and `dvc metrics`, through DVCLive."""

from collections.abc import Iterator, Mapping
from pathlib import Path


class Recorder:
    """Writes `folder`/metrics.json and `folder`/plots/metrics/**.tsv, one step an epoch.

    DVC deletes the folder before a rerun, so a checkpoint carries a copy of its files, and a
    resumed training restores them first: the curves go on where they stopped.
    """

    def __init__(self, folder: Path, files: Mapping[str, str] | None = None) -> None:
        """Open the folder.

        Args:
            folder: Where the curves go.
            files: The copy from a checkpoint to go on from; None starts anew.
        """
        from dvclive.live import Live  # brings pandas: not for a training that is refused

        self.folder = folder
        # What a killed run recorded after its last checkpoint will be recorded again.
        for path in list(self._list_files()):
            path.unlink()
        for name, text in (files or {}).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        # Without these, DVCLive would rewrite dvc.yaml, commit experiments and leave reports.
        self.live = Live(
            str(folder), resume=bool(files), dvcyaml=None, save_dvc_exp=False, report=None
        )
        if files:  # DVCLive takes "step 0 is done" for "nothing is done"
            self.live.step = self.live.read_step() + 1  # type: ignore[no-untyped-call]

    def record_epoch(self, values: Mapping[str, float]) -> None:
        """Write one epoch's values."""
        for name, value in values.items():
            self.live.log_metric(name, value)
        self.live.next_step()  # type: ignore[no-untyped-call]

    def copy_files(self) -> dict[str, str]:
        """Return the folder's files, for a checkpoint."""
        return {
            str(path.relative_to(self.folder)): path.read_text(encoding="utf-8")
            for path in self._list_files()
        }

    def _list_files(self) -> Iterator[Path]:
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in (".json", ".tsv"):
                yield path
