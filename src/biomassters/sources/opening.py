"""Which source `data.source` means."""

from biomassters.params.sections import DataParams
from biomassters.sources.archives.archive_source import ArchiveSource
from biomassters.sources.folder_source import FolderSource
from biomassters.sources.s3.s3_source import open_s3
from biomassters.sources.source import Source, read_folder_variable
from biomassters.sources.synthetic_source import SyntheticSource


def open_source(data: DataParams, n_workers: int) -> Source:
    """Open the source that params.yaml names.

    Args:
        data: The section `data`.
        n_workers: Processes that will fetch from it at a time.

    Raises:
        ParamsError: An environment variable that it needs is not as it must be.
    """
    match data.source:
        case "synthetic":
            return SyntheticSource(data.chip_size)
        case "folder":
            return FolderSource(read_folder_variable(data.source))
        case "archives":
            return ArchiveSource(read_folder_variable(data.source))
        case "s3":
            return open_s3(n_workers)
        case "hub":
            # Its client takes most of a second to import, which no other source should cost.
            from biomassters.sources.hub.hub_source import open_hub

            return open_hub()
