"""Synthetic chips and landscapes: land, weather, both sensors; and the official files of chips."""
