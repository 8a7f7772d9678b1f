"""What a package adds to wtdiag: a rule, a probe and a kind of finding, each named as an entry point."""
