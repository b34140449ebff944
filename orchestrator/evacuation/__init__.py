"""A host's machines, moved away together, and brought back."""
