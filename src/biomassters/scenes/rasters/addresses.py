"""Where a raster lies: a local path or an address, as people, GDAL and messages have it."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Address:
    """A file's place.

    Attributes:
        written: As the scene's YAML has it, of a month.
        gdal: As GDAL opens it.
        shown: For messages: without a query, which may hold a signature, and without a password.
        is_remote: Whether it is read over a network.
    """

    written: str
    gdal: str
    shown: str
    is_remote: bool

    @classmethod
    def parse(cls, written: str, folder: Path) -> "Address":
        """Return the place that a YAML names.

        Args:
            written: A path or an address.
            folder: That relative paths begin at.
        """
        lower = written.lower()
        if lower.startswith(("http://", "https://")):
            return cls(written, f"/vsicurl/{written}", strip_secrets(written), True)
        if lower.startswith("s3://"):
            return cls(written, f"/vsis3/{written[5:]}", strip_secrets(written), True)
        path = str(folder / written)
        is_remote = path.startswith(("/vsicurl", "/vsis3", "/vsigs", "/vsiaz"))
        return cls(written, path, strip_secrets(path), is_remote)

    @property
    def stable(self) -> str:
        """What names it in a scene's identity: that of a signed address without its signature."""
        return strip_secrets(self.written)


def strip_secrets(address: str) -> str:
    """Return an address without query, fragment, user and password."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
