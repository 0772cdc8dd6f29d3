"""The schema of params.yaml, one module a section, so that a stage depends on no other's."""
