"""The kernel's own accounts of what a container uses."""
