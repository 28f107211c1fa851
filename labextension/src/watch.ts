import type { Life } from './life';

/** Seconds between two looks at the server: while the page is seen, and while it is not. */
const SEEN_S = 3;
const HIDDEN_S = 15;

/**
 * Asks for the server's life again and again, also of a server that is away for a while.
 */
export class Watch {
  /**
   * @param ask - Asks the server.
   * @param told - Called with each answer, with null if there is none.
   */
  constructor(
    private readonly ask: () => Promise<Life>,
    private readonly told: (life: Life | null) => void
  ) {}

  /** Begin. */
  start(): void {
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) {
        this.soon(0);
      }
    });
    this.soon(0);
  }

  private soon(seconds: number): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.look(), seconds * 1000);
  }

  private async look(): Promise<void> {
    if (this.isLooking) {
      return;
    }
    this.isLooking = true;
    let life: Life | null = null;
    try {
      life = await this.ask();
    } catch {
      // It restarts, or the network is away; JupyterLab says so itself.
    }
    this.isLooking = false;
    this.soon(life !== null && !document.hidden ? SEEN_S : HIDDEN_S);
    this.told(life);
  }

  private timer = 0;
  private isLooking = false;
}
