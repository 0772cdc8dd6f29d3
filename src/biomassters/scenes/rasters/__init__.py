"""Scenes of monthly rasters: any CRS, resolution, extent and place, brought onto the map's grid."""
