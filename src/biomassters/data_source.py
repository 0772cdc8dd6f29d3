"""Which source `data.source` means."""

from biomassters.params.data import DataParams
from biomassters.sources import FolderSource, Source, SyntheticSource, read_folder_variable


def open_source(data: DataParams, n_workers: int) -> Source:
    """Open the source that params.yaml names.

    Args:
        data: The section `data`.
        n_workers: Processes that will fetch from it at a time.

    Raises:
        ParamsError: An environment variable that it needs is not as it must be.
    """
    if data.source == "synthetic":
        return SyntheticSource(data.chip_size)
    if data.source == "folder":
        return FolderSource(read_folder_variable(data.source))
    raise NotImplementedError(n_workers)
