import type { Life } from './life';

/** The longest that the button keeps a server for. */
const KEPT_HOURS = 4;
/** A server that was kept is warned of again so long before it stops. */
const NOTICE_MS = 10 * 60_000;
const GIB = 2 ** 30;

/** Milliseconds until a time of the server's, by the server's clock. */
function until(time: string, life: Life): number {
  return Date.parse(time) - Date.parse(life.now);
}

/** Whether its owner is to be told now that the server will stop. */
export function isWarned(life: Life): boolean {
  if (!life.is_warned || life.stop_at === null) {
    return false;
  }
  return life.keep_until === null || until(life.stop_at, life) <= NOTICE_MS;
}

/** For how many hours to ask when the server is to be kept. */
export function hoursToKeep(life: Life): number {
  const most = life.keep_most_until === null ? 0 : until(life.keep_most_until, life) / 3_600_000;
  return Math.min(KEPT_HOURS, most);
}

/** Whether somebody could keep it. */
export function canBeKept(life: Life): boolean {
  return life.why !== 'runtime' && hoursToKeep(life) > 0;
}

/** What stands in the status bar of what the server uses. */
export function usage(life: Life): string {
  const parts = [];
  if (life.memory_used_bytes !== null) {
    const limit = life.memory_limit_bytes === null ? '' : ` of ${gib(life.memory_limit_bytes)}`;
    const used = (life.memory_used_bytes / GIB).toFixed(1);
    parts.push(`Memory ${used}${limit || ' GiB'}`);
  }
  if (life.gpu_percent !== null) {
    parts.push(`GPU ${Math.round(life.gpu_percent)} %`);
  }
  return parts.join(' · ');
}

/** What stands in the status bar of a stop that comes; empty if none does. */
export function timeLeft(life: Life): string {
  if (!isWarned(life)) {
    return '';
  }
  const minutes = Math.ceil(until(life.stop_at!, life) / 60_000);
  if (minutes <= 0) {
    return 'Stops now';
  }
  const hours = Math.floor(minutes / 60);
  return hours >= 2 ? `Stops in ${hours} hours` : `Stops in ${minutes} min`;
}

/** What a warning says: the time that stays true while it is on the screen, and the portal's reason. */
export function warning(life: Life): string {
  return `This server stops ${clock(life.stop_at!, life)}${life.because}`;
}

/** What is said of the disk, by what fills; not of what the server is stopped for, which a warning says. */
export function ofDisk(life: Life): Map<string, string> {
  const said = Object.entries(life.disk);
  return new Map(said.filter(([what]) => !isWarned(life) || life.why !== `${what}-full`));
}

/** What is said of a server that is kept now. */
export function kept(life: Life): string {
  const time = life.keep_until === null ? '' : ` ${clock(life.keep_until, life, 'until')}`;
  return `This server is kept${time}, even if nothing runs in it.`;
}

/** What is said when memory ran out: in 140 characters, as JupyterLab cuts the rest off. */
export function memoryRanOut(life: Life): string {
  const ended = 'The system ended a program. Your files are safe.';
  if (life.is_memory_shared) {
    return `Memory ran out for all your servers together. ${ended} Stop one of them, or load less.`;
  }
  const limit = life.memory_limit_bytes === null ? '' : ` (limit ${gib(life.memory_limit_bytes)})`;
  return `Memory ran out${limit}. ${ended} Load less at a time, or start the server with more memory.`;
}

/** A limit, such as `1.5 GiB` or `0.29 GiB`. */
function gib(bytes: number): string {
  return `${Number((bytes / GIB).toPrecision(3)).toString()} GiB`;
}

/** A time as the clock on the wall has it: `at 14:30`, `on Friday at 14:30`. */
function clock(time: string, life: Life, word = 'at'): string {
  const at = new Date(Date.now() + until(time, life));
  const form = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const;
  const hours = at.toLocaleTimeString(undefined, form);
  if (at.toDateString() === new Date().toDateString()) {
    return `${word} ${hours}`;
  }
  const day = at.toLocaleDateString('en', { weekday: 'long' });
  return word === 'at' ? `on ${day} at ${hours}` : `${word} ${day}, ${hours}`;
}
