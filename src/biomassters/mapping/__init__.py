"""From a scene to a map of tiles, whose pixels do not depend on how it is cut."""
