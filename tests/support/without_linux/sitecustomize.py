"""Python without the calls that Linux alone has, as on macOS; read by Python where it starts.

Not the system itself: libraries may read /proc, and find there what macOS would tell them in its
own ways.
"""

import ctypes
import os
import select
import signal
import sys
import sysconfig
from types import FrameType
from typing import Any

OF_LINUX = {
    os: "copy_file_range eventfd getrandom memfd_create pidfd_open posix_fadvise posix_fallocate"
    " sched_getaffinity sched_setaffinity setns splice unshare",
    select: "epoll",
    signal: "pidfd_send_signal",
}
FUNCTIONS_OF_C = {"mallopt", "prctl"}

for module, names in OF_LINUX.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

find_function = ctypes.CDLL.__getattr__


def refuse_functions(library: ctypes.CDLL, name: str) -> Any:
    if name in FUNCTIONS_OF_C:
        raise AttributeError(f"{name}: symbol not found")
    return find_function(library, name)


ctypes.CDLL.__getattr__ = refuse_functions  # type: ignore[method-assign]

STANDARD_LIBRARY = (sysconfig.get_path("stdlib"), "<frozen")
SITE_PACKAGES = sysconfig.get_path("purelib")


def refuse_proc(event: str, arguments: tuple[Any, ...]) -> None:
    """Hide /proc from this project's own code."""
    if event in ("open", "os.listdir", "os.scandir") and isinstance(
        arguments[0], str | os.PathLike
    ):
        path = os.fspath(arguments[0])
        if str(path).startswith("/proc/") and "biomassters" in find_reader(sys._getframe(1)):
            raise FileNotFoundError(2, "No such file or directory", path)


def find_reader(frame: FrameType | None) -> str:
    """Return the file of the code that reads, be it by the standard library."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(SITE_PACKAGES) or not name.startswith(STANDARD_LIBRARY):
            return name
        frame = frame.f_back
    return ""


sys.addaudithook(refuse_proc)
