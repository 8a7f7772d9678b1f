"""What a run is: its settings and schedules, the device it computes on, and the network that they build."""
