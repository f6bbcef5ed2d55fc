"""A selection written for a trainer in the names of the running model, proved by its rule, checked, and mended."""
