import type { ServerConnection } from '@jupyterlab/services';

import { ask } from './ask';

/**
 * What the server tells of its life. Times are ISO texts, null where there are none.
 */
export interface Life {
  /** Whether the portal has answered; without it, only the memory is known. */
  portal: boolean;
  project: string;
  /** Another one answers after a restart. */
  server: string;
  /** The server's clock. */
  now: string;
  stop_at: string | null;
  why: '' | 'idle' | 'stalled' | 'runtime' | 'container-full' | 'workspace-full';
  is_warned: boolean;
  /** How often it was warned of this stop. */
  warnings?: number;
  words: string;
  /** The same, to follow "stops at 14:30". */
  because: string;
  keep_until: string | null;
  /** Until when it could be kept; null if it cannot. */
  keep_most_until: string | null;
  gpu_percent: number | null;
  memory_used_bytes: number | null;
  memory_limit_bytes: number | null;
  /** Programs that the system has ended because memory ran out, since the server's start. */
  memory_kills: number;
  /** Whether the last one was ended by the limit of all the user's servers together. */
  is_memory_shared: boolean;
  /** What to tell of the room on the disk, by what fills: `workspace`, `container`. */
  disk: Record<string, string>;
}

/** A server that is being restarted may take a request and never answer. */
const PATIENCE_MS = 20_000;

/** Ask the server for its life. */
export async function askForLife(settings: ServerConnection.ISettings): Promise<Life> {
  return ask('life', { signal: AbortSignal.timeout(PATIENCE_MS) }, settings);
}

/** Ask to keep the server for some hours; fails with words to be shown. */
export async function askToKeep(
  hours: number,
  settings: ServerConnection.ISettings
): Promise<Life> {
  return ask('keep', { method: 'POST', body: JSON.stringify({ hours }) }, settings);
}

/** Return a life in which what the portal said last still holds, while it is away. */
export function withoutPortal(life: Life, before: Life | null): Life {
  if (life.portal || before === null || before.server !== life.server) {
    return life;
  }
  const { now, memory_used_bytes, memory_limit_bytes, memory_kills, is_memory_shared } = life;
  return { ...before, now, memory_used_bytes, memory_limit_bytes, memory_kills, is_memory_shared };
}
