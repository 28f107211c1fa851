"""The parts of `bench/cull.py`, each a process of its own."""
