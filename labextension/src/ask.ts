import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

/** Ask this server's own extension; fails with words to be shown. */
export async function ask<Answer>(
  what: string,
  init: RequestInit,
  settings: ServerConnection.ISettings
): Promise<Answer> {
  const url = URLExt.join(settings.baseUrl, 'ds01', what);
  // The Hub, which answers for a server that has stopped, leads everything else to its pages.
  const headers = { Accept: 'application/json' };
  const response = await ServerConnection.makeRequest(url, { ...init, headers }, settings);
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) {
    throw new Error(answer.message ?? response.statusText);
  }
  return answer;
}
