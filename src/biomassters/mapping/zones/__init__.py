"""The biomass of polygons on a map: read, summed, with intervals, as files."""
