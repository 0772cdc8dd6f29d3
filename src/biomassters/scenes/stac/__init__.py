"""Scenes of STAC items: the JSON of a search becomes months of both sensors, block by block."""
