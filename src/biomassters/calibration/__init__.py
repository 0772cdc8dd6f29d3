"""How far to trust a map: intervals of pixels and of areas, from the errors on held-out chips."""
