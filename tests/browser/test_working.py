"""A student's way: choose, start, work, stop, come back."""

import json
import re

from playwright.sync_api import expect

from ds01_spawner.policy import GIB

from ..hub import eventually

LOOK_AROUND = """
import json, os, pwd
from pathlib import Path

def first(*names):
    return next(Path(name).read_text().strip() for name in names if Path(name).exists())

print(json.dumps({
    "uid": os.getuid(),
    "login": pwd.getpwuid(os.getuid()).pw_name,
    "cwd": os.getcwd(),
    "memory": first("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "pids": first("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
}))
Path("result.txt").write_text("forty-two")
"""

LOOK_BACK = """
import subprocess
from pathlib import Path
print(Path("result.txt").read_text())
print(subprocess.check_output(["git", "config", "user.name"], text=True))
"""


def test_a_student_works_and_finds_everything_again(hub, person):
    sofia = person("sofia")
    sofia.go("/hub/spawn")
    sofia.choose("Image", "datascience")
    sofia.choose("CPUs", "1")
    sofia.choose("Memory", "2 GiB")
    sofia.press_start()
    sofia.wait_for_lab()

    sofia.open_notebook()
    seen = json.loads(sofia.run_cell(LOOK_AROUND).splitlines()[0])
    assert seen["uid"] >= 400_000
    assert seen["login"] == "sofia"
    assert seen["cwd"] == "/workspace"
    assert int(seen["memory"]) == 2 * GIB
    assert int(seen["pids"]) == 4096

    sofia.type_in_terminal('git config --global user.name "Sofia K"')
    student = hub.user("sofia")
    eventually(lambda: "Sofia K" in student.execute(["git", "config", "user.name"])[1], "git asks")
    first_container = student.container()["Id"]

    stop_from_home(sofia)
    assert student.container() is None
    sofia.log_out()
    sofia.log_in()
    sofia.go("/hub/home")
    expect(sofia.row("default")).to_contain_text(
        re.compile("Stopped by you. Your files in /workspace are safe. .a few seconds|a minute ago")
    )

    sofia.row("default").get_by_role("link", name="Start").click()
    expect(sofia.page.get_by_text("Stopped by you.")).to_be_visible()
    expect(sofia.choice("Image", "datascience")).to_be_checked()
    expect(sofia.choice("Memory", "2 GiB")).to_be_checked()
    sofia.press_start()
    sofia.wait_for_lab()
    # The notebook that was open, and not saved, would ask for a kernel.
    sofia.go("/user/sofia/lab?reset")
    sofia.wait_for_lab()
    sofia.open_notebook()
    assert sofia.run_cell(LOOK_BACK).splitlines()[:2] == ["forty-two", "Sofia K"]
    assert student.container()["Id"] != first_container


def stop_from_home(someone, project="default"):
    someone.go("/hub/home")
    row = someone.row(project)
    expect(row).to_contain_text("running")
    someone.page.once("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Stop").click()
    expect(row).to_contain_text("stopped", timeout=30_000)


def test_a_memory_hog_is_explained_while_its_server_lives(hub, person):
    tom = person("tom")
    tom.start(memory="1 GiB")
    tom.open_notebook()
    tom.page.locator(".jp-Notebook .cm-content").last.click()
    tom.page.keyboard.insert_text("hog = []\nwhile True:\n    hog.append(bytearray(50_000_000))")
    tom.page.keyboard.press("Shift+Enter")
    expect(tom.page.get_by_role("dialog")).to_contain_text("have died", timeout=60_000)
    eventually(lambda: "Memory ran out" in home_of(tom), "the home page tells of it")
    expect(tom.row("default")).to_contain_text("running")
    warning = tom.row("default").get_by_role("status")
    expect(warning).to_contain_text("the server may use 1 GiB")
    assert hub.user("tom").ready()["ready"]


def home_of(someone):
    someone.go("/hub/home")
    return someone.row("default").inner_text()


def test_the_progress_tells_each_step_until_jupyterlab_opens(hub, person, held):
    ada = person("ada")
    ada.go("/hub/spawn")
    ada.press_start()
    ada.page.wait_for_url("**/hub/spawn-pending/ada**")
    # Kept over the change to JupyterLab's page, which comes by itself.
    ada.page.evaluate(
        """new MutationObserver(() => {
            const lines = [...document.querySelectorAll("#progress-log li")];
            sessionStorage.setItem("steps", JSON.stringify(lines.map((line) => line.textContent)));
        }).observe(document.getElementById("progress-log"), {childList: true, subtree: true})"""
    )
    held.unlink()
    ada.wait_for_lab()
    steps = json.loads(ada.page.evaluate("sessionStorage.getItem('steps')"))
    said = [step for step in steps if step.endswith("…")]
    assert said == [
        "Checking the servers' network …",
        "Preparing the image python …",
        "Creating your container …",
        "Starting your container …",
        "Waiting for JupyterLab …",
    ]


def test_cancelling_a_start_leaves_the_other_server_alone(hub, person, held):
    held.unlink()
    mia = person("mia")
    student = hub.user("mia")
    student.start(memory="1g")
    held.touch()
    mia.go("/hub/spawn/mia/second")
    mia.press_start()
    mia.page.wait_for_url("**/hub/spawn-pending/mia/second**")
    mia.page.get_by_role("button", name="Cancel the start").click()
    mia.page.wait_for_url("**/hub/home")
    expect(mia.row("second")).to_contain_text("stopped", timeout=30_000)
    expect(mia.row("default")).to_contain_text("running")
    assert student.container("second") is None
    assert student.ready()["ready"]


def test_a_start_that_fails_says_why_and_safe_start_is_one_way_on(hub, person, held):
    leo = person("leo")
    leo.go("/hub/spawn/leo/thesis")
    leo.choose("Image", "vanished")
    leo.press_start()
    leo.page.wait_for_url("**/hub/spawn-pending/leo/thesis**")
    held.unlink()
    expect(leo.page.get_by_role("heading", level=1)).to_have_text("thesis did not start")
    expect(leo.page.get_by_role("alert")).to_contain_text(
        "The image ds01-test/vanished:1 is not on this machine and cannot be fetched."
    )
    leo.page.reload()
    expect(leo.page.get_by_role("alert")).to_contain_text("ds01-test/vanished:1")
    leo.page.get_by_role("link", name="Safe start").click()
    expect(leo.page.get_by_role("heading", level=1)).to_have_text("Start project thesis")
    expect(leo.page.get_by_role("checkbox", name="Safe start")).to_be_checked()
    leo.go("/hub/home")
    expect(leo.row("thesis")).to_contain_text("The last start failed.")
