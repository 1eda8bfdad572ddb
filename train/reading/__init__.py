"""Reading: batches on the devices, from a store."""
