"""Failed batches run again: from the store, from records, from queues."""
