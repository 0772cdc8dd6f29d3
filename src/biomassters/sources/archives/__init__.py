"""Zips, whole or in parts, and tars, read in place."""
