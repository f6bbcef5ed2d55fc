"""What people do with a scan or a selection: look, train, cut, evaluate; the command line."""
