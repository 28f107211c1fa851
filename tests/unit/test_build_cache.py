"""What builds leave in the engine's cache."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import docker.errors
import pytest

from ds01_spawner.images import build_cache
from ds01_spawner.images.build_cache import BuildCache, Growth

NOW = datetime.now(timezone.utc)
KIB = 1024


@pytest.fixture
def root(tmp_path):
    return tmp_path


class Engine:
    """Answers with the records it has, and notes what is removed."""

    def __init__(self, *records) -> None:
        self.records = records
        self.asked, self.pruned = 0, []

    async def __call__(self, method, **options):
        if method == "df":
            self.asked += 1
            return {"BuildCache": list(self.records)}
        self.pruned.append(options)
        return {}


def record(name, size, *, seconds=0.0, kind="regular", shared=False, created=None, used=None):
    moment = created or written(NOW + timedelta(seconds=seconds))
    return {
        "ID": name,
        "Type": kind,
        "Size": size,
        "Shared": shared,
        "InUse": False,
        "CreatedAt": moment,
        "LastUsedAt": used,
    }


def written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("created", "counts"),
    [
        ("2026-01-02T03:04:05.999999999Z", False),
        ("2026-01-02T03:04:06Z", True),
        ("2026-01-02T03:04:06.5Z", True),
        ("2026-01-02T05:04:06.000000001+02:00", True),
        ("2026-01-02T03:04:06.5+02:00", False),
    ],
)
async def test_what_was_made_since_is_counted(root, created, counts):
    cache = BuildCache(Engine(record("a", 7, created=created)), root, 0)

    begun = datetime(2026, 1, 2, 3, 4, 6, tzinfo=timezone.utc)
    assert await cache.bytes_since(begun) == (7 if counts else 0)


async def test_a_moment_that_is_none_is_not_taken_for_before(root):
    with pytest.raises(ValueError, match="no moment"):
        await BuildCache(Engine(record("a", 7, created="soon")), root, 0).bytes_since(NOW)


async def test_the_engine_is_asked_when_the_disk_has_lost_enough(root):
    free = [1000]
    engine = Engine()
    growth = Growth(BuildCache(engine, root, 0), lambda: free[0])
    assert not await growth.may_exceed(100)
    free[0] = 900
    assert not await growth.may_exceed(100)
    assert engine.asked == 0
    free[0] = 850
    # Somebody else's, most of it.
    engine.records = [record("a", 60, seconds=5000)]
    assert not await growth.may_exceed(100)
    assert engine.asked == 1
    free[0] = 820
    assert not await growth.may_exceed(100)
    assert engine.asked == 1
    free[0] = 800
    engine.records = [record("a", 60, seconds=5000), record("b", 41, seconds=6000)]
    assert await growth.may_exceed(100)


async def test_an_engine_that_does_not_answer_is_not_nothing_written(root):
    async def silent(method, **options):
        raise docker.errors.DockerException("down")

    with pytest.raises(docker.errors.DockerException):
        await Growth(BuildCache(silent, root, 0), lambda: 1).exceeds(100)
    # After the build it is only a pity.
    await BuildCache(silent, root, 0).tidy(NOW, 1)
    await BuildCache(Engine({"ID": "unknown"}), root, 0).tidy(NOW, 1)


async def test_what_is_in_use_is_waited_for_and_what_stays_so_is_not(root, monkeypatch):
    fill(root, "large", 30)
    ended = record("large", 0, kind="exec.cachemount", used=written(NOW))
    running = {**ended, "InUse": True}
    engine = Engine(running)

    async def answer(method, **options):
        if engine.asked == 2:
            engine.records = [ended]
        return await engine(method, **options)

    await BuildCache(answer, root, 100 * KIB).tidy(NOW, 20 * KIB)
    assert engine.pruned == [{"filters": {"id": ["large"]}}]

    monkeypatch.setattr(build_cache, "_REST_S", 0.1)
    engine = Engine({**running, "ID": "another's"}, ended)
    await BuildCache(engine, root, 100 * KIB).tidy(NOW, 20 * KIB)
    assert engine.pruned == [{"filters": {"id": ["large"]}}]


async def test_an_engine_that_counts_for_somebody_else_is_asked_again(root):
    engine = Engine(record("a", 7))
    answers = ["a disk usage operation is already running", None, "no such thing"]

    async def busy(method, **options):
        if problem := answers.pop(0):
            raise docker.errors.APIError(problem)
        return await engine(method, **options)

    assert await BuildCache(busy, root, 0).bytes_since(NOW) == 7
    with pytest.raises(docker.errors.APIError, match="no such thing"):
        await BuildCache(busy, root, 0).bytes_since(NOW)


async def test_what_is_too_much_is_removed_after_a_build(root):
    later = written(NOW + timedelta(seconds=9))
    engine = Engine(
        record("layer", 70, used=later),
        record("in an image", 500, shared=True, used=later),
    )

    await BuildCache(engine, root, 70).tidy(NOW, 1)
    assert engine.pruned == []
    await BuildCache(engine, root, 69).tidy(NOW, 1)
    assert engine.pruned == [{"keep_storage": 69}]


async def test_caches_are_measured_here_and_emptied_when_they_are_large(root):
    for name, kib in {"large": 30, "small": 5, "another's": 30}.items():
        fill(root, name, kib)
    later, before = written(NOW + timedelta(seconds=9)), written(NOW - timedelta(days=1))
    engine = Engine(
        record("large", 0, kind="exec.cachemount", used=later),
        record("small", 0, kind="exec.cachemount", used=later),
        record("another's", 0, kind="exec.cachemount", used=before),
    )
    cache = BuildCache(engine, root, 100 * KIB)

    await cache.tidy(NOW, 20 * KIB)
    assert engine.pruned == [{"filters": {"id": ["large"]}}]

    # Measured again only after it was used again.
    for name in ("small", "another's"):
        fill(root, name, 90)
    later = written(NOW + timedelta(seconds=20))
    engine.records = [{**engine.records[1], "LastUsedAt": later}, engine.records[2]]
    await cache.tidy(NOW, 20 * KIB)
    assert engine.pruned[1:] == [
        # The least recently used, as both are too much together; the other one as it is large.
        {"filters": {"id": ["another's"]}},
        {"filters": {"id": ["small"]}},
    ]


def fill(root, name: str, kib: int) -> None:
    directory = root / "overlay2" / name / "diff"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "file").write_bytes(b"x" * kib * KIB)
