"""The versions of the packages that results come from.

They rerun nothing: a new version would retrain for eight days though it rarely changes a result.
Weights and metrics say which ones made them, and `python -m biomassters why` which differ now.
"""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

PACKAGES: Final = ("biomassters", "numpy", "rasterio", "timm", "torch", "torchvision")
"""Those whose arithmetic a result can show."""


def list_versions() -> dict[str, str]:
    """Return the installed versions by package, and Python's; "" = not installed."""
    return {"python": platform.python_version(), **{name: _find(name) for name in PACKAGES}}


def _find(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
