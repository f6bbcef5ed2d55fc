"""From a weight to its spectrum and its score."""
