"""Which trials a study calls for."""
