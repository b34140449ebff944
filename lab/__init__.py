"""Scenarios of the documents: rehearsed in one process in virtual time, or through real agents."""
