"""What a container, and all of a user's containers together, may use and do use: the kernel's view.

All of a user's containers hang under one cgroup, the user's slice, which holds them to a sum.
"""
