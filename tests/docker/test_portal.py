"""The portal beside a real Hub: who sees what, and what a server's own token gets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import requests

from tests.hub import Hub, eventually

SMALL = {"image": "python", "memory": "1g", "cpus": 0.5}
POLICY = {
    "defaults": {"max_containers_per_user": 2, "memory": "2g", "memory_swap": "2g"},
    "groups": {
        "staff": {"members": ["paula"], "aggregate": {"cpu_quota": "125%", "memory_max": "3g"}}
    },
}


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory):
    deployment = Hub(tmp_path_factory.mktemp("hub"), "portal", portal=True)
    try:
        deployment.write_policy(POLICY)
        deployment.start()
        yield deployment
    finally:
        deployment.close()


def get(hub, path, token):
    headers = {"Authorization": f"token {token}"}
    address = f"{hub.url}/services/ds01/{path}"
    return requests.get(address, headers=headers, timeout=60, allow_redirects=False)


def limits_of(answer):
    assert answer.status_code == 200, answer.text
    return {limit["key"]: limit for limit in answer.json()["limits"]}


def admin_token(hub):
    """Return a token with an admin's full rights."""
    answer = hub.api("POST", "/users/admin/tokens", json={"note": "for a test"})
    assert answer.status_code == 201, answer.text
    return answer.json()["token"]


@pytest.fixture(scope="module")
def paula(hub):
    paula = hub.user("paula")
    paula.start("thesis", **SMALL)
    return paula


def test_somebody_sees_what_they_have_and_where_each_limit_comes_from(hub, paula):
    answer = get(hub, "api/limits", paula.token)
    limits = limits_of(answer)

    assert limits["max_containers_per_user"] == {
        "key": "max_containers_per_user",
        "label": "Servers",
        "used": 1,
        "limit": 2,
        "unit": "servers",
        "source": "defaults",
    }
    assert (limits["aggregate.cpu_quota"]["limit"], limits["aggregate.memory_max"]["limit"]) == (
        1.25,
        3 << 30,
    )
    assert limits["aggregate.cpu_quota"]["source"] == "group staff"
    assert 20 << 20 < limits["aggregate.memory_max"]["used"] < 1 << 30
    assert limits["max_tasks"]["used"] > 1

    (server,) = answer.json()["servers"]
    assert (server["project"], server["state"], server["gpus"]) == ("thesis", "running", [])
    assert server["cpus"]["limit"] == 0.5
    assert server["memory"]["limit_bytes"] == 1 << 30
    assert 20 << 20 < server["memory"]["used_bytes"] < 1 << 30
    assert answer.json()["enforced"] == "slice"


def test_a_server_asks_with_its_own_token_and_the_command_prints_it(hub, paula):
    command = ["sh", "-c", "/opt/ds01/commands/ds01 limits"]
    status, said = paula.execute(command, "thesis")
    assert status == 0, said
    assert "All servers of paula (group staff):" in said
    assert "group staff" in said
    assert "thesis" in said

    status, said = paula.execute(["/opt/ds01/commands/ds01", "limits", "--json"], "thesis")
    assert (status, json.loads(said)["user"]) == (0, "paula")


def test_the_command_is_in_a_terminal_and_gives_way_to_the_images_own(hub, paula):
    server = paula.start("thesis2", **SMALL)
    try:
        assert server.run("!command -v ds01") == "/opt/ds01/commands/ds01\r\n"
        fake = (
            "mkdir -p /opt/temporary/bin && printf '#!/bin/sh\\necho own' > /opt/temporary/bin/ds01"
        )
        assert server.run(f"!{fake}; chmod 755 /opt/temporary/bin/ds01; ds01").strip() == "own"
    finally:
        paula.stop("thesis2")


def test_nobody_but_an_admin_sees_somebody_else(hub, paula):
    quinn = hub.user("quinn")
    for path in ("api/users/paula/limits", "users/paula/limits", "admin", "find?user=paula"):
        answer = get(hub, path, quinn.token)
        assert answer.status_code == 403, (path, answer.text)
        assert "thesis" not in answer.text

    token = admin_token(hub)
    assert get(hub, "api/users/paula/limits", token).json()["servers"][0]["project"] == "thesis"
    assert get(hub, "api/users/nobody-here/limits", token).status_code == 404
    assert "paula" in get(hub, "admin", token).text


def test_the_token_of_an_admins_server_is_no_admins(hub, paula):
    admin = replace(paula, name="admin", token=admin_token(hub))
    admin.start(**SMALL)
    ask = (
        "import os, urllib.request as r; q = r.Request(os.environ['DS01_URL'] + "
        "'api/users/paula/limits', headers={'Authorization': 'token ' + "
        "os.environ['JUPYTERHUB_API_TOKEN']})\n"
        "try: print(r.urlopen(q).status)\n"
        "except Exception as error: print(error)"
    )
    assert "403" in admin.execute(["python3", "-c", ask])[1]
    admin.stop()


def test_what_the_portal_takes_no_token_for(hub, paula):
    narrow = hub.api(
        "POST", "/users/paula/tokens", json={"note": "x", "scopes": ["read:users:name!user"]}
    ).json()["token"]
    for token in ("nonsense", narrow, hub.token):
        answer = get(hub, "api/limits", token)
        assert answer.status_code == 403
        assert "servers" not in answer.json()


def test_a_stopped_servers_token_is_dead_for_the_portal_too(hub):
    rosa = hub.user("rosa")
    rosa.start(**SMALL)
    token = rosa.execute(["sh", "-c", "echo $JUPYTERHUB_API_TOKEN"])[1].strip()
    assert get(hub, "api/limits", token).status_code == 200

    rosa.stop()
    eventually(lambda: get(hub, "api/limits", token).status_code == 403, "the token is dead", 30)


def test_an_admin_reads_why_the_policy_is_not_in_force_and_what_is_missing(hub, tmp_path):
    gone = f"[{{name: gone, path: {tmp_path}/gone, mode: ro, groups: ['*']}}]"
    hub.write_policy({**POLICY, "defualts": {}}, {"storage.yaml": gone})
    try:
        page = get(hub, "admin", admin_token(hub)).text
        assert "defualts: unknown key; the nearest known is &#39;defaults&#39;" in page
        assert f"The shared folder gone: {tmp_path}/gone: No such file or directory" in page
        assert "A cgroup around all servers of a user" in page
    finally:
        hub.write_policy(POLICY, {"storage.yaml": ""})
    assert "The policy is in force as its files are now" in get(hub, "admin", admin_token(hub)).text


def test_the_portal_lives_through_a_hub_that_is_killed(hub, paula):
    portal = hub.portal.pid
    hub.kill()
    answer = requests.get(
        f"http://127.0.0.1:{hub.portal_port}/services/ds01/api/limits",
        headers={"Authorization": f"token {paula.token}x"},
        timeout=60,
    )
    assert answer.status_code in (403, 500, 502, 503)

    hub.start()
    assert hub.portal.poll() is None
    assert hub.portal.pid == portal
    assert limits_of(get(hub, "api/limits", paula.token))["max_containers_per_user"]["used"] == 1


def test_one_portal_at_a_time(hub):
    second = hub.launch_portal()
    assert second.wait(60) == 1
    assert "One runs already" in hub.log.read_text()
