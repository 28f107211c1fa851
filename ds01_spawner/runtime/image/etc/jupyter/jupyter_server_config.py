"""How every server is set up; a user's own file in ~/.jupyter goes before this one."""

from ds01_launch.enter import SHELL

c = get_config()  # noqa: F821

c.ServerApp.kernel_spec_manager_class = "ds01_launch.kernelspecs.ImageKernelSpecManager"
c.ServerApp.terminado_settings = {"shell_command": SHELL}

# Nothing is fetched from outside, and nothing can be installed into the runtime.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
