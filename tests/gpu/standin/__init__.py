"""Stand-ins for the programs of NVIDIA's toolkit that an engine calls."""
