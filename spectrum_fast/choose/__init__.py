"""From scores to the modules that are trained."""
