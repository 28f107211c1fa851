"""What runs inside a server's container, on the runtime's own Python.

`python -m ds01_launch` is the container's command. It looks at the image, makes the place where
``pip install`` goes, and becomes the notebook server in an environment of its own. Kernels and
terminals leave the server's environment again through `ds01_launch.enter`.

Installed in the runtime as ``ds01_launch``; uses nothing but the standard library, except
`connection`, `kernelspecs` and `lab`, which the server loads.
"""
