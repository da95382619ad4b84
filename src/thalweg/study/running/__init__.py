"""One trial after another: what runs them, where they are kept, what tells them apart."""
