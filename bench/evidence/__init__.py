"""How right: what predictions, findings and claims came to where the truth is known. Writes pages of docs/."""
