"""Models: what they are trained on, how, and which version answers."""
