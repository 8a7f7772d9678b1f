"""Explain: turns a recorded run into measurements and findings.

- ``analysis``: from snapshots to one labelled dataset.
- ``findings``: from that dataset to sentences with evidence.
- ``comparison``: several runs against each other.
- ``claims``: what the papers claim, and what decides it.
"""
