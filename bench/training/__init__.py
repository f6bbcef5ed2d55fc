"""Training measured: methods side by side, the planner against a GPU, and what selections are worth."""
