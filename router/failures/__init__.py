"""Failed batches: kept, delivered from the store, let go of."""
