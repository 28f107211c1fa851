// The home page: stop, delete and create; and the list stays true while it is looked at.
(() => {
  const { base_url: base, user } = window.jhdata;
  const list = document.getElementById("projects");
  const problem = document.getElementById("home-problem");
  const done = document.getElementById("home-done");
  const path = (server) =>
    encodeURIComponent(user) + (server ? "/" + encodeURIComponent(server) : "");

  // -- stop and delete --

  const QUESTIONS = {
    stop: (name) =>
      `Stop ${name}? What runs in it ends, and packages installed in it go. ` +
      "Your files in /workspace and in your home stay.",
    delete: (name) =>
      `Delete the server of ${name}? Only its choice of image and size is forgotten. ` +
      "Its files stay, and with them the project in this list; an empty folder goes.",
  };

  // What to tell afterwards; null if it is not to be done.
  async function asked(action, row) {
    const { project } = row.dataset;
    const isStop = action === "stop" && row.querySelector(".ds01-state-running");
    if (isStop && window.ds01AskBeforeStop) return window.ds01AskBeforeStop(project);
    return window.confirm(QUESTIONS[action](project)) ? "" : null;
  }

  list.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-action]");
    if (!button) return;
    const { action } = button.dataset;
    const row = button.closest("[data-server]");
    const { server } = row.dataset;
    const told = await asked(action, row);
    if (told === null) return;
    button.disabled = true;
    problem.hidden = true;
    done.textContent = told;
    done.hidden = !told;
    try {
      await window.ds01RemoveServer(server, { forget: action === "delete" });
    } catch (error) {
      problem.textContent = `That did not work: ${error.message}`;
      problem.hidden = false;
    }
    await refresh().catch(() => {});
    // Still there if nothing changed.
    button.disabled = false;
  });

  // -- a list that stays true --

  let shown = list.innerHTML;

  async function refresh() {
    const answer = await fetch(window.location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(`The Hub answered ${answer.status}.`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("projects");
    // Without the list the page is another one, such as the login.
    if (!fresh) return window.location.reload();
    if (fresh.innerHTML === shown) return;
    shown = fresh.innerHTML;
    const focused = document.activeElement.closest("#projects [data-server]");
    list.innerHTML = shown;
    window.ds01ShowTimes(list);
    if (focused) {
      const again = [...list.children].find((row) => row.dataset.server === focused.dataset.server);
      again?.querySelector("a, button")?.focus();
    }
  }

  const soon = () => {
    const changing = list.querySelector(".ds01-state-starting, .ds01-state-stopping");
    setTimeout(watch, changing ? 2000 : 10000);
  };

  async function watch() {
    // A Hub that is away for a moment is asked again the next time.
    // A list that was made anew would have no button for the focus to return to.
    const isSeen = document.visibilityState === "visible" && !document.querySelector("dialog[open]");
    if (isSeen) await refresh().catch(() => {});
    soon();
  }
  soon();

  // -- a new project --

  function wrong(name) {
    if (!name) return "Give the project a name.";
    if (name.length > 30) return `Use at most 30 characters; these are ${name.length}.`;
    if (!/^[a-z0-9-]*$/.test(name)) return "Use only lower-case letters, digits and hyphens.";
    if (!/^[a-z]/.test(name)) return "Begin with a letter.";
    if (/--|-$/.test(name)) return "Use single hyphens, and none at the end.";
    return "";
  }

  document.getElementById("new-project")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const input = document.getElementById("new-project-name");
    const name = input.value.trim();
    const message = wrong(name);
    document.getElementById("new-project-problem").textContent = message;
    input.classList.toggle("is-invalid", Boolean(message));
    if (message) {
      input.setAttribute("aria-invalid", "true");
      input.focus();
    } else {
      // The unnamed server is the project "default".
      window.location.href = `${base}spawn/${path(name === "default" ? "" : name)}`;
    }
  });
})();
