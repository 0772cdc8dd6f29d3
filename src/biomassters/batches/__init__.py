"""From a store to batches on the device, shared among processes."""
