"""The pages on studies, sweeps and transfers, and the sections that they share."""
