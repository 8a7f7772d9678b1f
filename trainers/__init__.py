"""Learn: rules, conversion, recording and training. The only folder that imports torch."""
