"""The page on one run: its sources and facts, its sections, and the order in which `single` puts them."""
