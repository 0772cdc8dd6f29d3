from biomassters.store.layout import AGBM, FACTS, LABELS, S1, S2, fact_shape, image_shapes


def test_shapes_of_the_official_chips() -> None:
    assert image_shapes(256) == {S1: (12, 4, 256, 256), S2: (12, 11, 256, 256), AGBM: (256, 256)}


def test_images_have_a_shape_of_every_dimension_but_that_of_the_chips() -> None:
    for layout, shape in image_shapes(32).items():
        assert layout.dimensions[0] == "chip"
        assert len(shape) == len(layout.dimensions) - 1


def test_labels_are_as_many_as_their_dimension_is_long() -> None:
    lengths = {}
    for layout, shape in image_shapes(32).items():
        lengths |= dict(zip(layout.dimensions[1:], shape, strict=True))
    for label, names in LABELS:
        assert len(names) == lengths.get(label.name, len(names))


def test_every_array_has_a_name_of_its_own() -> None:
    arrays = [*image_shapes(32), *FACTS, *(layout for layout, _ in LABELS)]
    assert len({layout.name for layout in arrays}) == len(arrays)


def test_facts_of_a_chip_have_a_shape_of_their_dimensions() -> None:
    shapes = {layout.name: fact_shape(layout) for layout in FACTS}
    assert shapes["chip_id"] == ()
    assert shapes["s1_nodata"] == (12, 4)
    assert shapes["s2_block"] == (12, 2)
    assert shapes["transform"] == (6,)
