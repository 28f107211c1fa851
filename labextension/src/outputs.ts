import type { IOutput } from '@jupyterlab/nbformat';
import type { IOutputAreaModel } from '@jupyterlab/outputarea';
import type { Kernel, ServerConnection } from '@jupyterlab/services';
import { JSONExt } from '@lumino/coreutils';

import { ask } from './ask';

/** A cell that runs, or ran, for a page that is gone. */
export interface KeptCell {
  /** The request to run it. */
  id: string;
  /** Its id in the notebook. */
  cell: string;
  is_done: boolean;
  /** With the next two, only if something has changed since the answer before. */
  outputs?: IOutput[];
  source?: string;
  execution_count?: number | null;
}

export interface Kept {
  version: number;
  cells: KeptCell[];
  /** Whether cells run that are another open page's. */
  others: boolean;
  /** The time of the notebook's file, if the server wrote it. */
  written: string | null;
}

const PATIENCE_MS = 20_000;

/**
 * Ask for what runs in a kernel without this page.
 *
 * @param path - The notebook that is open here.
 * @param since - The version of the answer before, or 0.
 * @param own - Whether to ask for the cells too that this page began before it was away.
 */
export async function askForOutputs(
  kernel: Kernel.IKernelConnection,
  path: string,
  since: number,
  own: boolean,
  settings: ServerConnection.ISettings
): Promise<Kept> {
  const query = new URLSearchParams({ session: kernel.clientId, path, since: `${since}`, own: `${own}` });
  const init = { signal: AbortSignal.timeout(PATIENCE_MS) };
  return ask(`outputs/${kernel.id}?${query}`, init, settings);
}

/** Tell the server that all which a cell has shown is in this page now. */
export async function tellTaken(
  kernel: Kernel.IKernelConnection,
  cell: KeptCell,
  settings: ServerConnection.ISettings
): Promise<void> {
  await ask(`outputs/${kernel.id}/${cell.id}`, { method: 'DELETE' }, settings);
}

/** Make a cell show these outputs, and leave alone what it shows already. */
export function show(model: IOutputAreaModel, outputs: IOutput[]): void {
  const shown = model.toJSON();
  const isLonger = shown.every(
    (output, i) => i < outputs.length && output.output_type === outputs[i].output_type
  );
  if (!isLonger) {
    model.fromJSON(outputs);
    return;
  }
  outputs.forEach((output, i) => {
    if (i >= shown.length) {
      model.add(output);
    } else if (!JSONExt.deepEqual(shown[i], output)) {
      model.set(i, output);
    }
  });
}
