"""Statistics: what the runs of a study show, and how sure that is."""
