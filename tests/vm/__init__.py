"""A virtual machine with what GPU servers have: systemd, cgroup v2, Docker's systemd driver.

`image` makes the machine's disk from Debian's packages and keeps it, `payload` packs what belongs
to the checkout, `machine` boots one with the other. ``python -m tests.vm`` does all three.
"""
