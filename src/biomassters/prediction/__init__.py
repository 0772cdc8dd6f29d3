"""From chips to maps of biomass, and how good a map is."""
