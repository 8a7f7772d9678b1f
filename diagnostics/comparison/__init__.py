"""Several runs against each other: what may be paired, what differs, and how sure that is."""
