"""From scores to the modules that are trained: ranking, groups, application to a model, every interchange format."""
