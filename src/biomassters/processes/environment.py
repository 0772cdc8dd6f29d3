"""What this machine is asked for: the environment variables BIOMASSTERS_..., all of them, typed.

A machine's matters alone are here (places, numbers of processes); what an experiment is belongs
into params.yaml. Whoever needs a variable reads them by `Environment()` or `S3Environment()`, which
refuse in one line what cannot be what it must be.
"""

import difflib
import logging
import os
import re
import shlex
from typing import Annotated, Final

from pydantic import BeforeValidator, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from biomassters.errors import ParamsError

PREFIX: Final = "BIOMASSTERS_"
FOLDER_VARIABLE: Final = "BIOMASSTERS_FOLDER"
HUB_REVISION_VARIABLE: Final = "BIOMASSTERS_HUB_REVISION"
WORKERS_VARIABLE: Final = "BIOMASSTERS_WORKERS"
PROCESSES_VARIABLE: Final = "BIOMASSTERS_PROCESSES"
LAUNCH_VARIABLE: Final = "BIOMASSTERS_LAUNCH"
ACTIVATION_CHECKPOINTING_VARIABLE: Final = "BIOMASSTERS_ACTIVATION_CHECKPOINTING"
S3_REGION_VARIABLE: Final = "BIOMASSTERS_S3_REGION"
S3_ENDPOINT_VARIABLE: Final = "BIOMASSTERS_S3_ENDPOINT"
S3_FOLDER_VARIABLE: Final = "BIOMASSTERS_S3_FOLDER"

DEFAULT_CONNECTIONS: Final = 32
MOST_CONNECTIONS: Final = 256
OF_S3: Final = " (data.source is s3)"

log = logging.getLogger(__name__)


def refuse_variable(
    variable: str, *, expected: str, got: str, remedy: str, context: str = ""
) -> ParamsError:
    """Return the error of an environment variable that is not as it must be.

    Args:
        variable: Its whole name; also one of other programs, such as AWS_REGION.
        expected: What it should be.
        got: Its value; "" = none.
        remedy: What to do about it.
        context: When it matters, such as " (data.source is s3)".
    """
    return ParamsError(
        f"expected {expected}, got {got!r}, at the environment variable {variable}{context};"
        f" {remedy}"
    )


def _whole_number(
    expected: str, least: int, *, remedy: str, most: int = 10**6 - 1, context: str = ""
) -> BeforeValidator:
    """Read digits; pydantic's own `int` would take "+2", "1_000" and other scripts' digits."""

    def read(text: str, info: ValidationInfo) -> int:
        if not re.fullmatch(r"[0-9]{1,6}", text) or not least <= int(text) <= most:
            raise refuse_variable(
                _name(info), expected=expected, got=text, remedy=remedy, context=context
            )
        return int(text)

    return BeforeValidator(read)


def _read_flag(text: str, info: ValidationInfo) -> bool:
    if text not in ("0", "1"):
        remedy = "set it to 1 to save memory"
        raise refuse_variable(_name(info), expected="0 or 1", got=text, remedy=remedy)
    return text == "1"


def _split_command(text: str, info: ValidationInfo) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        expected = f"a command as a shell reads it ({error})"
        raise refuse_variable(
            _name(info), expected=expected, got=text, remedy="mend or unset it"
        ) from error


def _name(info: ValidationInfo) -> str:
    return f"{PREFIX}{info.field_name}".upper()


class _Variables(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, validate_default=False)


class Environment(_Variables):
    """The variables that any stage may ask for.

    Attributes:
        folder: Of the files or archives of chips; None = not set. Whether it exists is seen by the
            source that needs it.
        hub_revision: A branch, tag or commit of the official repository; "" = main.
        workers: Threads that read chips, processes that fetch them; None = by the cores.
        processes: Of a stage on this machine; None = one a visible GPU.
        launch: The words of a command that starts a stage's processes; none: no such command.
        activation_checkpointing: Train with less memory in more time.

    Raises:
        ParamsError: One of them cannot be what it must be.
    """

    folder: str | None = None
    hub_revision: str = ""
    workers: Annotated[
        int | None, _whole_number("a number of processes", 0, remedy="set it to 0 or more")
    ] = None
    processes: Annotated[
        int | None,
        _whole_number(
            "a number of processes from 1 on",
            1,
            remedy="set another, or unset it for one a GPU",
        ),
    ] = None
    launch: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_command)] = ()
    activation_checkpointing: Annotated[bool, BeforeValidator(_read_flag)] = False


class S3Environment(_Variables):
    """The variables that `data.source: s3` asks for; "" is as good as not set.

    Attributes:
        s3_region: One of the catalogue's regions.
        s3_endpoint: URL of a service.
        s3_folder: `s3://bucket/prefix` of a mirror.
        connections: Requests at a time, of all processes.

    Raises:
        ParamsError: There are no such connections; whether the others are well-formed is seen by
            the source.
    """

    s3_region: str = ""
    s3_endpoint: str = ""
    s3_folder: str = ""
    connections: Annotated[
        int,
        _whole_number(
            f"a number of 1 to {MOST_CONNECTIONS}",
            1,
            most=MOST_CONNECTIONS,
            remedy="set it so, or unset it",
            context=OF_S3,
        ),
        BeforeValidator(lambda text: text or str(DEFAULT_CONNECTIONS)),
    ] = DEFAULT_CONNECTIONS


VARIABLES: Final = tuple(
    f"{PREFIX}{field}".upper()
    for group in (Environment, S3Environment)
    for field in group.model_fields
)
"""The names of all of them."""


def warn_of_unknown_variables() -> None:
    """Log a line for each variable of this project's prefix that it does not know: a slip."""
    for variable in sorted(os.environ):
        name = variable.upper()  # as pydantic reads them
        if name.startswith(PREFIX) and name not in VARIABLES:
            nearest = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0)[0]
            log.warning(
                "expected one of README's environment variables, got %s, which nothing reads;"
                " unset it, or set %s if that is meant",
                variable,
                nearest,
            )
