"""A selection met with a model: its names found there, its parameters freed, adapters hung on its modules."""
