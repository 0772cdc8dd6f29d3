"""Synthetic chips: land, weather, both sensors; and the official files of them."""
