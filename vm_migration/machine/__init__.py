"""The port through which agents see a machine, and its adapters."""
