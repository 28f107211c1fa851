// Keeps the numbers of an open page up to date; without this script a reload does.
"use strict";

const EVERY_MS = 5000;

async function refresh() {
  const live = document.getElementById("live");
  if (!live || document.hidden) {
    return;
  }
  const xsrf = document.querySelector("meta[name=xsrf]").content;
  const headers = { "X-XSRFToken": xsrf };
  const answer = await fetch(location.href, { redirect: "error", headers });
  if (!answer.ok) {
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("live");
  // The same again is left alone: a reader or a selection may be in it.
  if (fresh && fresh.innerHTML !== live.innerHTML) {
    live.replaceChildren(...fresh.childNodes);
  }
}

async function follow() {
  try {
    await refresh();
  } catch {
    // The Hub or the portal is away for a moment; the next try tells.
  }
  setTimeout(follow, EVERY_MS);
}

// As the Hub's own pages: what was chosen there, else what the system prefers.
const chosen = localStorage.getItem("jupyterhub-bs-theme");
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.bsTheme = chosen || (dark ? "dark" : "light");
setTimeout(follow, EVERY_MS);
