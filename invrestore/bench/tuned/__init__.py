"""Tuned settings as JSON files, one for each suite."""
