"""Who gets a GPU: the limits on it, and the one critical section in which it is granted."""
