import pytest
from pydantic import TypeAdapter, ValidationError

from biomassters.errors import ParamsError
from biomassters.params.map_sections import MapParams, SceneNames, parse_scene

NAMES = TypeAdapter(SceneNames)


def test_scenes_are_names() -> None:
    assert NAMES.validate_python(["lakeland", "my-scene_2"]) == ("lakeland", "my-scene_2")
    assert parse_scene(["lakeland"]) == "lakeland"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.yaml"], r"names of scenes.*got 'a\.yaml'"),
        (["../a"], "names of scenes"),
        (["a", "a"], "each scene once"),
        ([], "at least 1 item"),
    ],
)
def test_what_no_scene_can_be_called_is_refused(names: list[str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        NAMES.validate_python(names)


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["../a"], ["scenes/a.yaml"]])
def test_command_line_names_one_scene(arguments: list[str]) -> None:
    with pytest.raises(ParamsError, match="expected the name of a scene"):
        parse_scene(arguments)


def test_windows_overlap_by_at_most_half() -> None:
    assert MapParams(overlap=0.5, tta="none").overlap == 0.5
    with pytest.raises(ValidationError):
        MapParams(overlap=0.6, tta="none")
