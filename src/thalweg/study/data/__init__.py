"""The examples that are learned from: arrays, files that are fetched and checked, and known data sets."""
