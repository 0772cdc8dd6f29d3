"""Satellite time series in, forest biomass map out: the rooms behind the pipeline's doors."""
