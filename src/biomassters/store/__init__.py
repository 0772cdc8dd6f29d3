"""The chip store: its bands, its files, its chips, and how these are cleaned when read."""
