"""Planning: which trials a study runs."""
