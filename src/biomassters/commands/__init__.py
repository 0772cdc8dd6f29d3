"""The commands beside the pipeline: python -m biomassters COMMAND."""
