"""An image that tries everything an image can say gains nothing by it."""

import json

import pytest

from ds01_spawner import buildkit
from tests.hub import eventually

DOCKERFILE = """
FROM ds01/python:3.11
RUN cp /bin/sh /usr/local/bin/rootshell && chmod 4755 /usr/local/bin/rootshell \
 && printf '#!/bin/sh\\ntouch /workspace/hacked\\n' > /evil && chmod 755 /evil \
 && mkdir -p /opt/ds01 /data && touch /data/file && cp /evil /opt/ds01/evil \
 && echo 'victim:x:0:0::/:/bin/sh' >> /etc/passwd
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all CUDA_VERSION=12.4 \
    DOCKER_RESOURCE_GPU=all LD_PRELOAD=/evil.so LD_AUDIT=/evil.so LD_LIBRARY_PATH=/evil \
    PYTHONPATH=/evil PYTHONHOME=/evil PYTHONSTARTUP=/evil/x.py \
    JUPYTERHUB_API_TOKEN=forged JUPYTERHUB_API_URL=http://127.0.0.1:1/ DS01_SAFE_START=1
LABEL ds01.protected=true ds01.user=root ds01.gpu.uuids=GPU-1 traefik.enable=true
USER root
WORKDIR /root
VOLUME /workspace /home /opt/ds01 /data /tmp
EXPOSE 22
STOPSIGNAL SIGKILL
HEALTHCHECK --interval=1s CMD /evil
ENTRYPOINT ["/evil"]
CMD ["/evil"]
"""

LOOK = """
import glob, json, os
print(json.dumps({
    "uid": os.getuid(),
    "gpus": glob.glob("/dev/nvidia*"),
    "environment": {key: os.environ.get(key) for key in
                    ("NVIDIA_VISIBLE_DEVICES", "DOCKER_RESOURCE_GPU", "JUPYTERHUB_API_TOKEN")},
    "hacked": os.path.exists("/workspace/hacked"),
    "evil": os.path.exists("/opt/ds01/evil"),
    "copied": os.listdir("/data"),
    "writable": all(os.access(place, os.W_OK) for place in ("/data", "/tmp")),
}))
"""


@pytest.fixture(scope="module")
def server(hub, tmp_path_factory):
    context = tmp_path_factory.mktemp("hostile")
    (context / "Dockerfile").write_text(DOCKERFILE)
    buildkit.build(context, "ds01-test/hostile:1", log=print)
    hub.add_image("brags", "ds01-test/hostile:1")
    started = hub.user("mallory").start(image="brags", memory="1g")
    yield started
    started.owner.stop()


def test_the_notebook_server_runs_all_the_same_and_as_an_ordinary_user(server):
    seen = json.loads(server.run(LOOK))
    assert seen["uid"] >= 400_000
    assert seen["gpus"] == []
    assert seen["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert not seen["environment"]["DOCKER_RESOURCE_GPU"]
    assert seen["environment"]["JUPYTERHUB_API_TOKEN"] != "forged"
    assert seen["hacked"] is False
    assert seen["evil"] is False
    # What the engine would have copied while it makes the container, under the lock of all grants.
    assert seen["copied"] == []
    assert seen["writable"] is True


def test_what_the_image_says_of_itself_is_overridden(server):
    container = server.owner.container()
    config, host = container["Config"], container["HostConfig"]
    assert config["Entrypoint"][0].startswith("/opt/ds01/")
    assert config["Cmd"] in (None, [])
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["NONE"]
    assert "Health" not in container["State"]
    assert config["WorkingDir"] == "/workspace"
    assert config["User"] not in ("root", "0", "0:0", "")
    assert config["Labels"]["ds01.user"] == "mallory"
    for key in ("ds01.protected", "ds01.gpu.uuids", "traefik.enable"):
        assert config["Labels"][key] == ""
    assert host["Runtime"] == "runc"
    assert not host["PortBindings"]


def test_its_volumes_lie_under_ours_and_go_with_the_container(server, hub):
    mounts = {mount["Destination"]: mount for mount in server.owner.container()["Mounts"]}
    assert mounts["/workspace"]["Type"] == "bind"
    assert mounts["/opt/ds01"]["RW"] is False
    assert mounts["/opt/ds01"]["Name"].startswith("ds01-runtime-")
    anonymous = mounts["/data"]["Name"]
    server.owner.stop()
    volumes = hub.docker.volumes()["Volumes"] or []
    assert anonymous not in {volume["Name"] for volume in volumes}
    server.owner.start(image="brags", memory="1g")


def _offer(hub, folder, name, lines):
    """Build an image on top of the Python base, and offer it."""
    (folder / "Dockerfile").write_text(f"FROM ds01/python:3.11\n{lines}")
    buildkit.build(folder, f"ds01-test/{name}:1", log=print)
    hub.add_image(name, f"ds01-test/{name}:1")


def test_an_image_whose_volume_would_lose_files_is_refused(hub, tmp_path):
    _offer(hub, tmp_path, "loses", "VOLUME /workspace/results\n")
    heidi = hub.user("heidi")
    answer = heidi.ask(image="loses")
    assert answer.status_code == 400
    assert "image loses declares a volume at '/workspace/results'" in answer.json()["message"]
    assert heidi.container() is None


def test_a_volume_that_a_link_leads_into_a_users_files_is_refused(hub, tmp_path):
    _offer(hub, tmp_path, "leads", "RUN ln -s /workspace /w\nVOLUME /w/results\n")
    ines = hub.user("ines")
    answer = ines.ask(image="leads")
    assert answer.status_code == 400
    assert "a volume at '/w/results', which a link" in answer.json()["message"]
    assert ines.container() is None


def test_a_setuid_shell_gives_nobody_root(server):
    code, printed = server.owner.execute(["/usr/local/bin/rootshell", "-p", "-c", "id -u"])
    assert code != 0 or int(printed) >= 400_000


def test_the_image_cannot_keep_the_server_from_stopping(server):
    server.owner.stop()
    eventually(lambda: server.owner.container() is None, "the container is gone")
    server.owner.start(image="brags", memory="1g")
