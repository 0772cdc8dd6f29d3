"""Which S3 service chips come from, as the environment says it.

No setting here changes a result: every file is held against the catalogue, wherever it came from.
"""

import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from biomassters.dataset.files import REGIONS, FileRecord, Region, is_s3_folder
from biomassters.errors import ParamsError
from biomassters.processes.environment import (
    OF_S3,
    S3_ENDPOINT_VARIABLE,
    S3_FOLDER_VARIABLE,
    S3_REGION_VARIABLE,
    S3Environment,
    refuse_variable,
)

AWS_REGIONS: Final[Mapping[Region, str]] = {
    "us": "us-east-1",
    "eu": "eu-central-1",
    "as": "ap-southeast-1",
}
"""Where the public buckets lie, by the end of their names.

Source: where DrivenData, who run them, keep buckets of these names: US East (N. Virginia), Europe
(Frankfurt) and Asia Pacific (Singapore). A bucket that lies elsewhere answers with a redirect,
which is reported as that; BIOMASSTERS_S3_ENDPOINT=https://s3.<region>.amazonaws.com mends it.
"""

DEFAULT_REGION: Final[Region] = "eu"

_AWS_REGION: Final = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)


class S3Settings(NamedTuple):
    """Where objects are, and how they are asked for.

    Attributes:
        region: Which of the catalogue's three addresses to take.
        aws_region: The service's own name of the region.
        endpoint: URL of the service, without a slash at its end.
        folder: `s3://bucket/prefix` of a mirror in the official layout, which replaces the
            catalogue's addresses; "" = none.
        is_signed: Requests carry the credentials of the environment; else they are anonymous.
    """

    region: Region
    aws_region: str
    endpoint: str
    folder: str
    is_signed: bool

    def find_address(self, record: FileRecord) -> str | None:
        """Return the address of a file, or None where the catalogue does not give it."""
        if self.folder:
            return f"{self.folder}/{record.folder}/{record.filename}"
        return record.find_address(self.region)


def read_s3_settings() -> S3Settings:
    """Read the environment.

    Raises:
        ParamsError: A variable is not as it must be.
    """
    environment = S3Environment()
    region = _find_region(environment.s3_region)
    endpoint = _check_endpoint(environment.s3_endpoint)
    folder = environment.s3_folder.removesuffix("/")
    if folder and not is_s3_folder(folder):
        raise _refuse(S3_FOLDER_VARIABLE, "s3://bucket/prefix of letters, digits and ._=-", folder)
    is_own = bool(endpoint or folder)
    # The public buckets are read without credentials: those of the environment are not for them.
    is_signed = is_own and bool(os.environ.get("AWS_ACCESS_KEY_ID"))
    if is_signed and not os.environ.get("AWS_SECRET_ACCESS_KEY"):
        raise _refuse("AWS_SECRET_ACCESS_KEY", "the secret of AWS_ACCESS_KEY_ID", "")
    aws_region = _read_aws_region(AWS_REGIONS[region]) if is_own else AWS_REGIONS[region]
    endpoint = endpoint or f"https://s3.{aws_region}.amazonaws.com"
    return S3Settings(region, aws_region, endpoint, folder, is_signed)


def count_connections(n_workers: int) -> int:
    """Return how many connections each of `n_workers` processes may have, at least one.

    Raises:
        ParamsError: BIOMASSTERS_CONNECTIONS is no such number.
    """
    return max(1, S3Environment().connections // max(1, n_workers))


def _find_region(value: str) -> Region:
    value = value or DEFAULT_REGION
    for region in REGIONS:
        if value == region:
            return region
    raise _refuse(S3_REGION_VARIABLE, f"one of {', '.join(REGIONS)}", value)


def _check_endpoint(value: str) -> str:
    if value and not _is_url(value):
        expected = "http://host:port or https://host without user, query and fragment"
        raise _refuse(S3_ENDPOINT_VARIABLE, expected, value)
    return value.rstrip("/")


def _is_url(text: str) -> bool:
    if not re.fullmatch(r"[!-~]+", text):
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is none
    except ValueError:
        return False
    is_bare = not (parts.query or parts.fragment or "@" in parts.netloc)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and is_bare


def _read_aws_region(default: str) -> str:
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        value = os.environ.get(variable)
        if value and not _AWS_REGION.fullmatch(value):
            raise _refuse(variable, "an AWS region such as eu-west-1", value)
        if value:
            return value
    return default


def _refuse(variable: str, expected: str, got: str) -> ParamsError:
    remedy = "set it so, or unset it"
    return refuse_variable(variable, expected=expected, got=got, remedy=remedy, context=OF_S3)
