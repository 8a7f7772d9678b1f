"""Explain: turns a recorded run into measurements and findings."""
