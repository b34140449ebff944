"""The measured comparisons: `make bench`."""
