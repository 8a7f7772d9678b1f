"""The page on several runs side by side."""
