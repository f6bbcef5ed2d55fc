"""Makes the parts of the documentation site that come from code and from committed results."""
