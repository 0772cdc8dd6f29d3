"""Satellite time series in, forest biomass map out: the modules behind the pipeline's scripts."""
