"""Addresses of objects in S3 buckets, such as `s3://bucket/folder/file.tif`.

Knows which are sound; knows nothing of catalogues and of how an object is fetched.
"""

import re
from typing import Final

SCHEME: Final = "s3://"

# Source: Amazon S3 User Guide, "General purpose bucket naming rules".
_BUCKET: Final = r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]"
# Of the characters that a key may have, those that mean the same in every URL, file system and
# shell; without a dot in front, no name is `.` or `..`.
_NAME: Final = r"[0-9A-Za-z_=-][0-9A-Za-z_.=-]*"
_FOLDER: Final = re.compile(rf"s3://{_BUCKET}(?:/{_NAME})*", re.ASCII)
_LONGEST: Final = 1024


def is_s3_folder(text: str) -> bool:
    """Tell whether a text is `s3://bucket` or `s3://bucket/prefix`, without a slash at its end."""
    return len(text) <= _LONGEST and _FOLDER.fullmatch(text) is not None


def split_address(address: str) -> tuple[str, str]:
    """Return the bucket and the key of an object's address."""
    bucket, _, key = address.removeprefix(SCHEME).partition("/")
    return bucket, key
