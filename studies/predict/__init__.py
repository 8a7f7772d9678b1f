"""What theory predicts of a training before or while it runs: where it is stable, and when a search should stop it."""
