"""Running: one trial, what runs trials, and where their records are stored."""
