"""What an engine's answers, and its silence, are taken for."""

import asyncio

import docker.errors
import pytest
import requests

from ds01_spawner import engine
from ds01_spawner.errors import Refused


def api_error(status):
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("", response)


class Answers:
    """Gives prepared answers, one after the other, and keeps what was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def __call__(self, method, *args, **kwargs):
        self.asked.append(method)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("error", "silent"),
    [
        (requests.exceptions.ConnectionError(), True),
        (requests.exceptions.ReadTimeout(), True),
        (docker.errors.DockerException("no version"), True),
        (api_error(500), True),
        (api_error(409), False),
        (api_error(404), False),
        (ValueError(), False),
    ],
)
def test_silence_is_not_an_answer(error, silent):
    assert engine.is_silent(error) is silent


async def test_only_a_clear_no_means_that_there_is_no_container():
    assert await engine.inspect(Answers(docker.errors.NotFound("no")), "c") is None
    with pytest.raises(docker.errors.APIError):
        await engine.inspect(Answers(api_error(500)), "c")


async def test_a_create_whose_answer_was_lost_is_found_again():
    found = {"Id": "c1", "Config": {"Labels": {"ds01.start": "n1"}}}
    lost = requests.exceptions.ReadTimeout()
    call = Answers(lost, requests.exceptions.ConnectionError(), found)
    assert await engine.create(call, "name", {}, "n1") == "c1"


@pytest.mark.parametrize(
    "found", [docker.errors.NotFound("no"), {"Id": "c2", "Config": {"Labels": {"ds01.start": "x"}}}]
)
async def test_a_create_that_did_not_happen_takes_no_other_container(found):
    call = Answers(requests.exceptions.ReadTimeout(), found)
    with pytest.raises(requests.exceptions.ReadTimeout):
        await engine.create(call, "name", {}, "n1")


async def test_a_name_that_is_taken_is_explained():
    with pytest.raises(Refused, match="removed or renamed") as refused:
        await engine.create(Answers(api_error(409)), "name", {}, "n1")
    assert refused.value.status_code == 409


@pytest.mark.parametrize("answer", [None, docker.errors.NotFound("gone"), api_error(409)])
async def test_removing_what_is_gone_or_going_is_fine(answer):
    call = Answers(answer)
    await engine.remove(call, "c")
    assert call.asked == ["remove_container"]


async def test_removing_waits_for_an_engine_that_restarts():
    call = Answers(requests.exceptions.ConnectionError(), api_error(500), None)
    await engine.remove(call, "c")
    assert len(call.asked) == 3


class Registry:
    """Streams the events of a pull."""

    def __init__(self, *events):
        self.events = events

    def pull(self, _reference, stream, decode):
        assert stream
        assert decode
        return (event for event in self.events)


async def in_thread(call):
    return await asyncio.get_running_loop().run_in_executor(None, call)


async def test_a_pull_tells_its_bytes_over_all_layers():
    def downloading(layer, current, total):
        detail = {"current": current, "total": total}
        return {"status": "Downloading", "id": layer, "progressDetail": detail}

    registry = Registry(
        {"status": "Pulling fs layer", "id": "a", "progressDetail": {}},
        downloading("a", 10, 100),
        downloading("b", 50, 300),
        downloading("a", 100, 100),
        {"status": "Download complete", "id": "a", "progressDetail": {}},
    )
    told = []
    await engine.pull(registry, "image", in_thread, lambda *bytes_: told.append(bytes_))
    assert told == [(10, 100), (60, 400), (150, 400)]


async def test_a_pull_that_fails_is_explained():
    registry = Registry({"error": "manifest unknown"})
    with pytest.raises(Refused, match="cannot be fetched") as refused:
        await engine.pull(registry, "image", in_thread, lambda *_: None)
    assert refused.value.status_code == 503
