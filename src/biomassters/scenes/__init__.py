"""What a map is made of: scenes of any size, as rasters, as STAC items, or simulated."""
