import { Widget } from '@lumino/widgets';

import type { Life } from './life';
import { timeLeft, usage } from './words';

/**
 * The item in the status bar: what the server uses, and when it stops once that is near.
 */
export class Item extends Widget {
  /** @param clicked - Called when somebody wants to know more of the stop. */
  constructor(clicked: () => void) {
    super();
    this.addClass('ds01-Life');
    this.usage = document.createElement('span');
    this.usage.title = 'What this server uses, of what it may use';
    this.stop = document.createElement('button');
    this.stop.title = 'Why, and how to keep it running';
    this.stop.addEventListener('click', clicked);
    this.node.append(this.usage, this.stop);
    this.see(null);
  }

  /** Show how it is now; null if the server does not answer. */
  see(life: Life | null): void {
    set(this.usage, life === null ? '' : usage(life));
    set(this.stop, life === null ? '' : timeLeft(life));
  }

  private readonly usage: HTMLElement;
  private readonly stop: HTMLButtonElement;
}

/** A text that has not changed is left alone: it may have the focus, or be selected. */
function set(element: HTMLElement, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
  element.hidden = text === '';
}
