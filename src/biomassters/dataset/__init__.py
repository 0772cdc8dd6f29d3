"""The official dataset: its catalogue, its files, and how they are written."""
