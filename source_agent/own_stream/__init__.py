"""Machines that send their own stream, at their source: the sibling of the rounds."""
