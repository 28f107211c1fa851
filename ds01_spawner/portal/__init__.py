"""The portal: pages and a REST API beside the Hub's, for what the Hub itself does not show.

An external service of the Hub, in a process of its own that lives through the Hub's restarts:
``python -m ds01_spawner.portal``. It reads the Hub's configuration, holds no state of its own, and
asks the Hub, the policy, Docker and the kernel for each answer.
"""
