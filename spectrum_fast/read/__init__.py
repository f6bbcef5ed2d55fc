"""From a checkpoint, wherever it lies, to weights in memory."""
