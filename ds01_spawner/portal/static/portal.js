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

const SHOW_EVERY_MS = 100;
const MOST_LINES = 5000;

function written(said) {
  const line = document.createElement("span");
  const number = said.begins ? `[${said.step}/${said.of}] ` : "";
  line.className = said.begins ? "portal-step" : "";
  line.textContent = `${said.seconds.toFixed(1).padStart(7)}  ${number}${said.text}\n`;
  return line;
}

// The log of a build: each line as it comes, and the page anew when it is over. What is sent carries
// its number, so a connection that breaks goes on where it was.
function followBuild(build) {
  const log = document.getElementById("build-log");
  const step = document.getElementById("build-step");
  let last = Number(build.dataset.last);
  const events = new EventSource(build.dataset.log);
  // Many lines may come at once: the page is laid out for all of them together.
  let waiting = [];
  const show = () => {
    const lines = waiting.slice(-MOST_LINES);
    waiting = [];
    // Somebody who reads further up is left there.
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(...lines.map(written));
    while (log.childElementCount > MOST_LINES) {
      log.firstElementChild.remove();
    }
    if (atEnd) {
      log.scrollTop = log.scrollHeight;
    }
    const said = lines[lines.length - 1];
    if (step && said.of) {
      step.textContent = `Step ${said.step} of ${said.of}, ${Math.round(said.seconds)} s`;
    }
  };
  events.onmessage = (event) => {
    if (Number(event.lastEventId) <= last) {
      return;
    }
    last = Number(event.lastEventId);
    if (!waiting.length) {
      setTimeout(show, SHOW_EVERY_MS);
    }
    waiting.push(JSON.parse(event.data));
  };
  events.addEventListener("end", () => {
    events.close();
    location.reload();
  });
}

const build = document.querySelector("#build[data-log]");
if (build) {
  followBuild(build);
}

// A switch is sent when it is turned; without this script there is a button.
for (const turned of document.querySelectorAll("[data-sent-at-once]")) {
  turned.addEventListener("change", () => turned.form.requestSubmit());
}

// As the Hub's own pages: what was chosen there, else what the system prefers.
const chosen = localStorage.getItem("jupyterhub-bs-theme");
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.bsTheme = chosen || (dark ? "dark" : "light");
setTimeout(follow, EVERY_MS);
