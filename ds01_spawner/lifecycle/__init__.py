"""The life of a server: what it does, when it counts as idle, and what follows."""
