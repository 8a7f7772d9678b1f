"""What wtdiag costs (`bench.speed`) and how right it is (`bench.evidence`): ``python -m bench``."""
