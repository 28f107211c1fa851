import type { CodeCell, ICodeCellModel } from '@jupyterlab/cells';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel, ServerConnection } from '@jupyterlab/services';

import { askForOutputs, show, tellTaken, type Kept, type KeptCell } from './outputs';

/** Seconds between two looks: at cells that run, and at those that other pages follow. */
const RUNNING_S = 1;
const OTHERS_S = 10;
/** Of the time, looks take a part like this at most: much output, or a slow network. */
const BUSY_SHARE = 0.2;

/**
 * Shows in a notebook what its cells print that were begun before this page was opened, or before
 * it lost its connection: what was on its way then is missing in the page.
 *
 * Other cells that this page runs itself are JupyterLab's own affair.
 */
export class Reopened {
  /**
   * @param mayWrite - Whether the user has notebooks saved without asking for it.
   */
  constructor(
    private readonly panel: NotebookPanel,
    private readonly settings: ServerConnection.ISettings,
    private readonly mayWrite: () => boolean
  ) {
    panel.sessionContext.kernelChanged.connect((_, { newValue }) => this.begin(newValue));
    panel.sessionContext.connectionStatusChanged.connect((_, status) => this.connection(status));
    panel.disposed.connect(() => clearTimeout(this.timer));
    this.begin(panel.sessionContext.session?.kernel ?? null);
  }

  /** Note that this page runs a cell now: what is on its way here is of the run before. */
  scheduled(model: ICodeCellModel): void {
    this.scheduledAt.set(model, performance.now());
  }

  private begin(kernel: Kernel.IKernelConnection | null): void {
    this.kernel = kernel;
    this.wasConnected = kernel?.connectionStatus === 'connected';
    this.wasAway = false;
    this.version = 0;
    this.models.clear();
    this.soon(0);
  }

  private connection(status: Kernel.ConnectionStatus): void {
    if (status === 'connected' && this.wasConnected) {
      this.wasAway = true;
      this.version = 0;
      this.soon(0);
    }
    this.wasConnected ||= status === 'connected';
  }

  private soon(seconds: number): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.look(), seconds * 1000);
  }

  private async look(): Promise<void> {
    const { kernel, panel } = this;
    if (kernel === null) {
      return;
    }
    let kept: Kept;
    let askedAt = 0;
    try {
      await panel.context.ready;
      if (this.wasAway) {
        panel.content.widgets
          .filter(cell => cell.model.type === 'code')
          .forEach(cell => (cell as CodeCell).outputArea.future?.dispose());
      }
      askedAt = performance.now();
      const path = panel.context.localPath;
      kept = await askForOutputs(kernel, path, this.version, this.wasAway, this.settings);
    } catch {
      // It restarts, or the network is away; JupyterLab says so itself.
      this.soon(OTHERS_S);
      return;
    }
    if (panel.isDisposed || kernel !== this.kernel) {
      return;
    }
    await this.readAgain(kept);
    this.wasAway = false;
    this.version = kept.version;
    const tookS = (performance.now() - askedAt) / 1000;
    const known = kept.cells.filter(cell => {
      const model = this.find(cell);
      return model !== undefined && !(this.scheduledAt.get(model)! > askedAt);
    });
    known.forEach(cell => this.see(cell));
    await this.take(
      kernel,
      known.filter(cell => cell.is_done)
    );
    if (known.some(cell => !cell.is_done)) {
      this.soon(Math.max(RUNNING_S, tookS / BUSY_SHARE));
    } else if (kept.others) {
      this.soon(OTHERS_S);
    }
  }

  /** Read a file again that the server wrote just after this page had read it. */
  private async readAgain({ written }: Kept): Promise<void> {
    const { context } = this.panel;
    const read = context.contentsModel?.last_modified;
    const isOlder = written !== null && !!read && Date.parse(read) < Date.parse(written);
    if (isOlder && !context.model.dirty) {
      await context.revert();
      this.models.clear();
    }
  }

  private see(cell: KeptCell): void {
    const model = this.find(cell)!;
    if (cell.outputs !== undefined) {
      model.trusted = true;
      show(model.outputs, cell.outputs);
    }
    if (!cell.is_done) {
      model.executionState = 'running';
    } else {
      model.executionCount = cell.execution_count ?? model.executionCount;
      model.executionState = 'idle';
    }
  }

  /** From now on, what they show is this page's, to be saved like everything else. */
  private async take(kernel: Kernel.IKernelConnection, ended: KeptCell[]): Promise<void> {
    if (ended.length === 0) {
      return;
    }
    try {
      await Promise.all(ended.map(cell => tellTaken(kernel, cell, this.settings)));
      await saveIf(this.panel, this.mayWrite());
    } catch {
      this.soon(OTHERS_S);
    }
  }

  /** The cell in this notebook; one from a file without ids is known by its text. */
  private find(cell: KeptCell): ICodeCellModel | undefined {
    let model = this.models.get(cell.id);
    if (model === undefined || model.isDisposed) {
      const all = Array.from(this.panel.content.model?.cells ?? []);
      const code = all.filter(other => other.type === 'code') as ICodeCellModel[];
      const alike = code.filter(other => other.sharedModel.getSource() === cell.source);
      model = code.find(other => other.id === cell.cell) ?? (alike.length === 1 ? alike[0] : undefined);
    }
    if (model !== undefined) {
      this.models.set(cell.id, model);
    }
    return model;
  }

  private kernel: Kernel.IKernelConnection | null = null;
  private wasConnected = false;
  private wasAway = false;
  private version = 0;
  private timer = 0;
  private readonly models = new Map<string, ICodeCellModel>();
  private readonly scheduledAt = new WeakMap<ICodeCellModel, number>();
}

/** Save a notebook that has changed, if the user has such things done. */
export async function saveIf(panel: NotebookPanel, mayWrite: boolean): Promise<void> {
  const { context } = panel;
  if (mayWrite && !panel.isDisposed && context.model.dirty && context.canSave) {
    // Somebody who answers "Cancel" to JupyterLab's question is asked again by JupyterLab.
    await context.save().catch(() => undefined);
  }
}
