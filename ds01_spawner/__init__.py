"""JupyterHub servers in limited Docker containers, one GPU server shared by many."""

__version__ = "0.1.0.dev0"
