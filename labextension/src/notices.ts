import { Notification } from '@jupyterlab/apputils';

import type { Life } from './life';
import * as words from './words';

/**
 * Tells what a person has to know at once, each thing once.
 *
 * - A warning of a stop, and the second one in its place. It goes when the server is busy again.
 * - That the disk fills, until there is room again.
 * - That memory ran out: once for each count in this page, and again in no page opened later.
 */
export class Notices {
  /**
   * @param keep - Keeps the server, and returns how it is then.
   * @param place - Where this browser remembers what was told of this server.
   */
  constructor(
    private readonly keep: (hours: number) => Promise<Life>,
    private readonly place: string
  ) {}

  /** See what is new. */
  see(life: Life): void {
    this.seeMemory(life);
    this.seeStop(life);
    this.seeDisk(words.ofDisk(life));
  }

  /** Show the warning, also if somebody has put it away. */
  warn(life: Life): void {
    const message = words.warning(life);
    const actions = words.canBeKept(life) ? [this.keeping(words.hoursToKeep(life))] : [];
    if (Notification.manager.has(this.warningId)) {
      const id = this.warningId;
      Notification.update({ id, message, type: 'warning', autoClose: false, actions });
    } else {
      this.warningId = Notification.warning(message, { autoClose: false, actions });
    }
  }

  private seeStop(life: Life): void {
    const warnings = words.isWarned(life) ? life.warnings || 1 : 0;
    if (warnings > this.warnings) {
      this.warn(life);
    } else if (warnings === 0 && this.warnings > 0) {
      Notification.dismiss(this.warningId);
    }
    this.warnings = warnings;
  }

  private seeDisk(told: Map<string, string>): void {
    for (const [what, id] of this.disk) {
      if (!told.has(what)) {
        Notification.dismiss(id);
        this.disk.delete(what);
      }
    }
    for (const [what, message] of told) {
      // The figures change with each measurement: an update would show what was put away.
      if (!this.disk.has(what)) {
        this.disk.set(what, Notification.warning(message, { autoClose: false }));
      }
    }
  }

  private keeping(hours: number): Notification.IAction {
    return {
      label: 'Keep it running',
      caption: 'Keep this server although nothing runs in it',
      displayType: 'accent',
      callback: () => void this.keepFor(hours)
    };
  }

  private async keepFor(hours: number): Promise<void> {
    try {
      const life = await this.keep(hours);
      Notification.success(words.kept(life), { autoClose: 10_000 });
    } catch (error) {
      Notification.error(error instanceof Error ? error.message : String(error));
    }
  }

  private seeMemory(life: Life): void {
    if (life.server !== this.server) {
      this.server = life.server;
      this.kills = this.remembered();
    }
    if (life.memory_kills > this.kills) {
      this.kills = life.memory_kills;
      this.remember();
      Notification.error(words.memoryRanOut(life), { autoClose: false });
    }
  }

  private remembered(): number {
    try {
      const [server, kills] = (localStorage.getItem(this.place) ?? '').split(' ');
      return server === this.server ? Number(kills) : 0;
    } catch {
      return 0; // A browser may keep nothing.
    }
  }

  private remember(): void {
    try {
      localStorage.setItem(this.place, `${this.server} ${this.kills}`);
    } catch {
      // Then a page opened later tells it again.
    }
  }

  private server = '';
  private kills = 0;
  private warnings = 0;
  private warningId = '';
  /** The ids of what is told of the disk, by what fills. */
  private readonly disk = new Map<string, string>();
}
