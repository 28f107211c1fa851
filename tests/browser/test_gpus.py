"""Choosing a GPU on the start form, on a machine with pretended ones."""

import pytest
from playwright.sync_api import expect

from ds01_spawner.pretend.machine import Machine

from ..hub import Hub


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory):
    """Return a running Hub on a machine with one whole GPU and one cut in two."""
    machine = Machine(tmp_path_factory.mktemp("gpus"), "a100-80gb:2,mig=2x3g.40gb@1")
    deployment = Hub(tmp_path_factory.mktemp("hub"), "gpus", machine.environment())
    lock = deployment.data / "gpus.lock"
    deployment.configure(f"c.DS01Spawner.gpu_lock_file = {str(lock)!r}\n")
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()


def test_the_form_counts_what_is_free_and_the_server_has_what_was_chosen(person):
    anna = person("anna")
    anna.go("/hub/spawn/anna")
    expect(anna.page.get_by_text("The GPUs of this server are pretended")).to_be_visible()
    expect(anna.choice("GPU", "None")).to_be_checked()
    expect(anna.choice("GPU", "3g.40gb 0.43 of a GPU, 2 of 2 free")).to_have_value("3g.40gb")
    anna.choose("GPU", "A100 80 GB whole GPU, 1 of 1 free")
    anna.press_start()
    anna.wait_for_lab()
    status, nodes = anna.hub.user("anna").execute(["sh", "-c", "ls -d /dev/nvidia?*"])
    assert (status, nodes.split()) == (0, ["/dev/nvidia0"])

    anna.go("/hub/home")
    expect(anna.page.get_by_text("The GPUs of this server are pretended")).to_be_visible()
    expect(anna.row("default")).to_contain_text("GPU")

    ben = person("ben")
    ben.go("/hub/spawn/ben")
    expect(ben.choice("GPU", "A100 80 GB whole GPU, 0 of 1 free")).to_have_value("full")
    ben.choose("GPU", "A100 80 GB")
    ben.press_start()
    alert = ben.page.get_by_role("alert").filter(has_text="Nothing was started")
    expect(alert).to_contain_text("A whole GPU is not free at the moment")
    expect(alert).to_contain_text("a 3g.40gb")
    # What was chosen is chosen still, to be changed.
    expect(ben.choice("GPU", "A100 80 GB")).to_be_checked()

    anna.hub.user("anna").stop()


def test_two_devices_of_one_size_are_more_than_the_limit(person):
    clara = person("clara")
    clara.go("/hub/spawn/clara")

    expect(clara.page.get_by_role("group", name="Number of GPUs")).to_have_count(0)
    refused = clara.hub.user("clara").ask(gpu="3g.40gb", gpu_count=2)
    assert refused.status_code == 403
