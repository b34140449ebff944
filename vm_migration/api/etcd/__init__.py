"""Stubs generated from proto/ by `make proto`; committed, and checked byte for byte."""
