"""What it means that the client gave an object up: whether to try anew, and how to say it.

Knows the client's errors; how often anything is tried, its caller decides.
"""

import re
from enum import Enum, auto
from typing import Final, NamedTuple

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from biomassters.dataset.files import FileError


class Meaning(Enum):
    """What a fault means for the object, or for the place as a whole."""

    OUTAGE = auto()
    """The service did not answer, or not to the end; it may do later."""
    DAMAGE = auto()
    """An answer came, but not the file that the catalogue describes."""
    ABSENCE = auto()
    """The service has no such object."""
    REFUSAL = auto()
    """The service will not give the object, however often it is asked."""
    NO_PLACE = auto()
    """There is no such bucket here."""


class Fault(NamedTuple):
    """Why an object was not had.

    Attributes:
        meaning: What follows from it.
        expected: What was expected in its place.
        got: What was found.
    """

    meaning: Meaning
    expected: str
    got: str


# Both parts of a message that matter are near its ends; between them may be a page of HTML.
_READ_CHARACTERS: Final = 2_000
_STATUS: Final = re.compile(r"status code: (\d{3}(?: [A-Za-z][A-Za-z -]*)?)")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_RETRIED_STATUSES: Final = ("408", "425", "429")
_RETRIED_CODE: Final = "RequestTimeout"

_SIGNS: Final = (
    ("TooManyRedirects", Meaning.REFUSAL, "redirects without end"),
    ("redirect without LOCATION", Meaning.NO_PLACE, "a bucket of another region"),
    ("ConnectionRefused", Meaning.OUTAGE, "connection refused"),
    ("ConnectionReset", Meaning.OUTAGE, "connection reset"),
    ("dns error", Meaning.OUTAGE, "no address of that host"),
    ("TimedOut", Meaning.OUTAGE, "no answer in time"),
    ("kind: Timeout", Meaning.OUTAGE, "no answer in time"),
    ("UnexpectedEof", Meaning.OUTAGE, "a body cut short"),
    ("IncompleteMessage", Meaning.OUTAGE, "connection closed without an answer"),
    ("MissingContentLength", Meaning.OUTAGE, "an answer without its length"),
    ("Parse(", Meaning.OUTAGE, "an answer that is not HTTP"),
)
"""What the client's errors contain, what it means and what to call it; the first found counts."""


def explain_fault(error: Exception, address: str) -> Fault:
    """Return what an error of a request for the object at `address` means.

    Args:
        error: `FileError`, of a verification, or the client's.
        address: Names the object.
    """
    the_object = f"the object {address}"
    if isinstance(error, FileError):
        return Fault(Meaning.DAMAGE, error.expected, error.got)
    text = str(error)
    text = text[:_READ_CHARACTERS] + text[-_READ_CHARACTERS:]
    code = _CODE.search(text)
    name = code[1] if code else ""
    if name == "NoSuchBucket":
        return Fault(Meaning.NO_PLACE, the_object, "no such bucket")
    if isinstance(error, FileNotFoundError):
        return Fault(Meaning.ABSENCE, the_object, "none")
    status = _STATUS.search(text)
    if status is None:
        meaning, got = _read_signs(text)
        return Fault(meaning, the_object, got)
    got = f"{status[1]} ({name})" if name else status[1]
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        # Where listing is not allowed, S3 says so of absent objects too.
        return Fault(Meaning.REFUSAL, the_object, f"{got}: forbidden, or absent")
    is_passing = not got.startswith("4") or got.startswith(_RETRIED_STATUSES)
    is_passing |= name == _RETRIED_CODE
    return Fault(Meaning.OUTAGE if is_passing else Meaning.REFUSAL, the_object, got)


def _read_signs(text: str) -> tuple[Meaning, str]:
    for sign, meaning, words in _SIGNS:
        if sign in text:
            return meaning, words
    return Meaning.OUTAGE, text.partition("\n")[0][:200]
