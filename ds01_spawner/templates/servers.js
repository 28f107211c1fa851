// Stops one of the servers of the user whose page this is; or forgets it as well. Its being gone
// already is as good. Throws an error with words for the user.
window.ds01RemoveServer = async (server, { forget = false } = {}) => {
  const { base_url: base, user, xsrf_token: xsrf } = window.jhdata;
  const kind = server ? `servers/${encodeURIComponent(server)}` : "server";
  const address = `${base}api/users/${encodeURIComponent(user)}/${kind}?_xsrf=${xsrf}`;
  const answer = await fetch(address, {
    method: "DELETE",
    body: forget ? JSON.stringify({ remove: true }) : undefined,
  }).catch(() => {
    throw new Error("The Hub does not answer.");
  });
  if (!answer.ok && answer.status !== 404) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.message || `The Hub answered ${answer.status}.`);
  }
};
