import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import type { CodeCell } from '@jupyterlab/cells';
import { IDocumentManager } from '@jupyterlab/docmanager';
import { INotebookTracker, NotebookActions, type Notebook } from '@jupyterlab/notebook';
import { IStatusBar } from '@jupyterlab/statusbar';

import { Item } from './item';
import { askForLife, askToKeep, withoutPortal, type Life } from './life';
import { Notices } from './notices';
import { Reopened, saveIf } from './reopened';
import { Watch } from './watch';

/** A cell that runs for so long is saved: it may go on when the page is closed. */
const LONG_MS = 3000;

const life: JupyterFrontEndPlugin<void> = {
  id: 'ds01-life:plugin',
  description: 'Shows what the server uses and when it stops, and says when its memory ran out.',
  autoStart: true,
  optional: [IStatusBar],
  activate: (app: JupyterFrontEnd, statusBar: IStatusBar | null) => {
    const settings = app.serviceManager.serverSettings;
    let last: Life | null = null;

    const see = (found: Life | null) => {
      const life = found && withoutPortal(found, last);
      last = life ?? last;
      item.see(life);
      if (life !== null) {
        notices.see(life);
      }
    };
    const item = new Item(() => last !== null && notices.warn(last));
    const notices = new Notices(
      async hours => {
        const life = await askToKeep(hours, settings);
        see(life);
        return life;
      },
      `ds01-life ${settings.baseUrl}`
    );
    statusBar?.registerStatusItem(life.id, { item, align: 'left', rank: 100, priority: 1 });
    const watch = new Watch(() => askForLife(settings), see);
    // Not in the way of what the page starts with.
    void app.restored.then(() => watch.start());
  }
};

const outputs: JupyterFrontEndPlugin<void> = {
  id: 'ds01-life:outputs',
  description: 'Shows what cells printed while their page was closed.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [IDocumentManager],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker, documents: IDocumentManager | null) => {
    const mayWrite = () => documents?.autosave ?? true;
    const reopened = new WeakMap<Notebook, Reopened>();
    tracker.widgetAdded.connect((_, panel) => {
      const settings = app.serviceManager.serverSettings;
      reopened.set(panel.content, new Reopened(panel, settings, mayWrite));
    });
    NotebookActions.executionScheduled.connect((_, { notebook, cell }) => {
      const { model } = cell as CodeCell;
      reopened.get(notebook)?.scheduled(model);
      setTimeout(() => {
        const panel = tracker.find(({ content }) => content === notebook);
        if (panel && model.executionState === 'running') {
          void saveIf(panel, mayWrite());
        }
      }, LONG_MS);
    });
  }
};

export default [life, outputs];
