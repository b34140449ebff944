"""Another machine process takes a machine over while its devices go on (semantics 9)."""
