"""Scores and pictures of sets of chips."""
