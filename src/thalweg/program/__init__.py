"""A rule traced once: symbols, sweeps over entries, formulas."""
