"""From a scene's YAML to the scene: described rightly, and checked."""

from pathlib import Path

from biomassters.errors import ParamsError, SceneError
from biomassters.params.reading import read_document, validate_document
from biomassters.scenes.scene import Scene

SOURCES = ("rasters", "stac", "synthetic")


def open_scene(path: Path) -> Scene:
    """Open the scene that a YAML describes.

    Args:
        path: The YAML; paths in it are relative to its folder.

    Raises:
        SceneError: It is absent, is not as it must be, or its rasters do not make a scene.
        UnreadableRasterError: A raster cannot be opened.
    """
    if not path.is_file():
        raise SceneError(
            f"expected a scene's YAML, got no file, at {path}; name another (docs/maps.md)"
        )
    try:
        return _open(path)
    except ParamsError as error:  # the same findings, of another file
        raise SceneError(str(error)) from None


def _open(path: Path) -> Scene:
    # Each imports its own library, of which a scene needs one.
    document = read_document(path)
    source = document.get("source")
    if source == "rasters":
        from biomassters.scenes.rasters.description import RasterDescription
        from biomassters.scenes.rasters.opening import open_raster_scene

        return open_raster_scene(validate_document(RasterDescription, document, path), path)
    if source == "stac":
        from biomassters.scenes.stac.description import StacDescription
        from biomassters.scenes.stac.stac_scene import open_stac_scene

        return open_stac_scene(validate_document(StacDescription, document, path), path)
    if source == "synthetic":
        from biomassters.scenes.description import SyntheticDescription
        from biomassters.scenes.synthetic import open_synthetic_scene

        return open_synthetic_scene(validate_document(SyntheticDescription, document, path), path)
    raise SceneError(
        f"expected one of {', '.join(SOURCES)}, got {source!r}, at {path}: source; mend it"
    )
