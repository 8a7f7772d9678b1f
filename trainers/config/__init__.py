"""The configuration of a run: its settings and schedules, its data and device, and the network built from them."""
