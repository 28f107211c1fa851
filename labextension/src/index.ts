import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IStatusBar } from '@jupyterlab/statusbar';

import { Item } from './item';
import { askForLife, askToKeep, withoutPortal, type Life } from './life';
import { Notices } from './notices';
import { Watch } from './watch';

const plugin: JupyterFrontEndPlugin<void> = {
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
    statusBar?.registerStatusItem(plugin.id, { item, align: 'left', rank: 100, priority: 1 });
    const watch = new Watch(() => askForLife(settings), see);
    // Not in the way of what the page starts with.
    void app.restored.then(() => watch.start());
  }
};

export default plugin;
