"""Loops that decide and act on what the store holds."""
