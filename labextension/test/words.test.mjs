import assert from 'node:assert/strict';
import test from 'node:test';

import * as words from '../lib/words.js';

const GIB = 2 ** 30;
const NOW = '2026-06-01T12:00:00+00:00';
const MINUTE = 60_000;

function after(minutes) {
  return new Date(Date.parse(NOW) + minutes * MINUTE).toISOString();
}

function life(more) {
  return {
    portal: true,
    project: 'thesis',
    server: 'a',
    now: NOW,
    stop_at: after(9),
    why: 'idle',
    is_warned: true,
    warnings: 1,
    words: 'It will be stopped in 9 minutes if nothing runs in it.',
    because: ' if nothing runs in it.',
    keep_until: null,
    keep_most_until: after(24 * 60),
    gpu_percent: null,
    memory_used_bytes: 0.42 * GIB,
    memory_limit_bytes: GIB,
    memory_kills: 0,
    is_memory_shared: false,
    disk: {},
    ...more
  };
}

test('the item shows what is known', () => {
  assert.equal(words.usage(life()), 'Memory 0.4 of 1 GiB');
  assert.equal(words.usage(life({ gpu_percent: 34.6 })), 'Memory 0.4 of 1 GiB · GPU 35 %');
  assert.equal(words.usage(life({ memory_limit_bytes: 300 * 2 ** 20 })), 'Memory 0.4 of 0.293 GiB');
  assert.equal(words.usage(life({ memory_limit_bytes: null })), 'Memory 0.4 GiB');
  assert.equal(words.usage(life({ memory_used_bytes: null })), '');
});

test('time left is shown once its owner is warned, by the clock of the server', () => {
  assert.equal(words.timeLeft(life()), 'Stops in 9 min');
  assert.equal(words.timeLeft(life({ stop_at: after(8.2) })), 'Stops in 9 min');
  assert.equal(words.timeLeft(life({ stop_at: after(119) })), 'Stops in 119 min');
  assert.equal(words.timeLeft(life({ stop_at: after(6.5 * 60) })), 'Stops in 6 hours');
  assert.equal(words.timeLeft(life({ stop_at: after(-1) })), 'Stops now');
  assert.equal(words.timeLeft(life({ is_warned: false })), '');
  assert.equal(words.timeLeft(life({ stop_at: null })), '');
});

test('what a warning says of the disk is not said twice', () => {
  const disk = { workspace: 'Your files take much.', container: 'Others do, too.' };
  assert.deepEqual([...words.ofDisk(life({ disk })).keys()], ['workspace', 'container']);
  const full = life({ disk, why: 'container-full' });
  assert.deepEqual([...words.ofDisk(full).keys()], ['workspace']);
  assert.deepEqual([...words.ofDisk({ ...full, is_warned: false }).keys()], ['workspace', 'container']);
});

test('one that is kept is warned of again before the end of that', () => {
  assert.equal(words.isWarned(life({ keep_until: after(240), stop_at: after(240) })), false);
  assert.equal(words.isWarned(life({ keep_until: after(9), stop_at: after(9) })), true);
});

test('it is kept for four hours, or as long as it can be', () => {
  assert.equal(words.hoursToKeep(life()), 4);
  assert.equal(words.hoursToKeep(life({ keep_most_until: after(90) })), 1.5);
  assert.equal(words.canBeKept(life()), true);
  assert.equal(words.canBeKept(life({ keep_most_until: null })), false);
  assert.equal(words.canBeKept(life({ keep_most_until: after(-1) })), false);
  assert.equal(words.canBeKept(life({ why: 'runtime' })), false);
});

test('no message is longer than what JupyterLab shows', () => {
  const said = {
    idle: ' if nothing runs in it. An open page does not count.',
    stalled: ': what runs in it uses neither CPU nor GPU, and may wait for an input.',
    runtime: ': then it has run as long as a server may.',
    'container-full':
      ': its files outside /workspace and your home take too much of the disk. Delete some, for ' +
      'example in /tmp.'
  };
  for (const [why, because] of Object.entries(said)) {
    const message = words.warning(life({ why, because }));
    assert.match(message, /^This server stops at \d\d:\d\d/);
    assert.ok(message.endsWith(because));
    assert.ok(message.length <= 140, `${message.length}: ${message}`);
  }
  for (const is_memory_shared of [true, false]) {
    const limit = { memory_limit_bytes: 3.35 * GIB, is_memory_shared };
    const message = words.memoryRanOut(life(limit));
    assert.ok(message.length <= 140, `${message.length}: ${message}`);
  }
  assert.match(words.memoryRanOut(life()), /limit 1 GiB.*files are safe/);
  assert.match(words.kept(life({ keep_until: after(0) })), /^This server is kept until /);
});
