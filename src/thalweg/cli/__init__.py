"""The command `thalweg`."""
