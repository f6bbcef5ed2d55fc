"""This package inside of trainers that others have written, by their own ways of being extended."""
