// Before a stop: the portal says what would go with the server, and keeps what is wanted of it.
window.ds01AskBeforeStop = (() => {
  const { base_url: base, user, xsrf_token: xsrf } = window.jhdata;
  const LOOK_MS = 30000;
  const KEEP_MS = 90000;
  const MOST_NAMED = 10;
  const JSON_SENT = { "Content-Type": "application/json" };
  const SCOPES = ["access:services!service=ds01", "custom:ds01:images"];
  const part = (name) => document.getElementById(`leaving-${name}`);

  async function answered(address, options) {
    const answer = await fetch(address, options).catch(() => {
      throw new Error("There is no answer.");
    });
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(told.message || `The answer was ${answer.status}.`);
    return told;
  }

  // The portal takes no cookie from this page: a token of the user's that lasts for this dialog.
  async function portalOf(project, address) {
    const tokens = `${base}api/users/${encodeURIComponent(user)}/tokens`;
    const made = await answered(`${tokens}?_xsrf=${xsrf}`, {
      method: "POST",
      headers: JSON_SENT,
      body: JSON.stringify({ note: "Stop on the home page", expires_in: 900, scopes: SCOPES }),
      signal: AbortSignal.timeout(LOOK_MS),
    });
    return {
      ask: (what, ms, body) =>
        answered(`${address}api/servers/${encodeURIComponent(project)}/${what}`, {
          method: body ? "POST" : "GET",
          headers: { ...JSON_SENT, Authorization: `token ${made.token}` },
          credentials: "omit",
          body: body && JSON.stringify(body),
          signal: AbortSignal.timeout(ms),
        }),
      close: () =>
        fetch(`${tokens}/${made.id}?_xsrf=${xsrf}`, { method: "DELETE" }).catch(() => {}),
    };
  }

  // -- words --

  function size(bytes) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    for (; bytes >= 1024 && at < units.length - 1; at += 1) bytes /= 1024;
    return `${bytes < 100 ? Number(bytes.toPrecision(3)) : Math.round(bytes)} ${units[at]}`;
  }

  const named = (file) => `${file.path} (${size(file.size_bytes)})`;

  function more(number, complete, bytes) {
    if (!complete) return "and others, which could not all be looked at";
    return number > 0 ? `and ${number} more${bytes ? `, ${size(bytes)} in all` : ""}` : "";
  }

  // -- what is shown --

  function showPackages(packages, isOwn, savePage) {
    const names = packages.map((each) => each.name);
    const rest = more(names.length - MOST_NAMED, true);
    part("packages").hidden = !names.length;
    part("packages-named").textContent = `${names.slice(0, MOST_NAMED).join(", ")} ${rest}`;
    part("save-row").hidden = !isOwn;
    part("save").checked = isOwn && names.length > 0;
    part("save-page").hidden = isOwn;
    part("save-page").firstElementChild.href = savePage;
  }

  function showFiles(files, mostBytes) {
    const any = files.number > 0 || !files.is_complete;
    const lines = files.named.slice(0, MOST_NAMED).map(named);
    lines.push(more(files.number - lines.length, files.is_complete, files.size_bytes));
    part("files").hidden = !any;
    part("files-named").replaceChildren(
      ...lines.filter(Boolean).map((line) => {
        const item = document.createElement("li");
        item.textContent = line;
        return item;
      }),
    );
    part("keep-row").hidden = !mostBytes;
    part("keep").checked = any && mostBytes > 0;
    part("keep-hint").textContent =
      `In the folder rescued of this project${files.size_bytes > mostBytes ? `; up to ${size(mostBytes)}, the smallest first` : ""}.`;
  }

  function show(found, project, address) {
    const { packages, files } = found;
    const asked = (packages || []).filter((each) => each.requested);
    const savePage = `${address}servers/${encodeURIComponent(project)}/save`;
    showPackages(asked, found.image_is_own, savePage);
    showFiles(files || { named: [], number: 0, is_complete: true, size_bytes: 0 }, found.most_bytes);
    const unknown = [!packages && "packages", !files && "files"].filter(Boolean).join(" and ");
    if (unknown) warn(`It is not known which ${unknown} would go with it.`);
    part("said").textContent =
      part("packages").hidden && part("files").hidden
        ? "What runs in it ends. Your files in /workspace and in your home stay."
        : "What runs in it ends, and this goes with it. Your files in /workspace and in your home stay.";
    return asked;
  }

  function warn(text) {
    part("problem").textContent = text;
    part("problem").hidden = false;
  }

  function doing(text) {
    part("doing").textContent = text;
    part("stop").disabled = Boolean(text);
  }

  // -- what is done --

  // Adds to `done` what there is to tell afterwards. With a problem, its box is off: the next Stop
  // goes on without it.
  async function keep(portal, packages, done) {
    if (part("save").checked) {
      part("save").checked = false;
      doing("Saving the packages …");
      const chosen = packages.map((each) => `${each.name}==${each.version}`);
      await portal.ask("save", LOOK_MS, { packages: chosen }).catch((error) => {
        throw new Error(`The packages are not saved: ${error.message}`);
      });
      done.push("Your image is being built with the packages.");
    }
    if (part("keep").checked) {
      part("keep").checked = false;
      doing("Keeping the files …");
      const kept = await portal.ask("rescue", KEEP_MS, {}).catch((error) => {
        throw new Error(`The files are not kept: ${error.message}`);
      });
      const { missed } = kept;
      if (missed.number || !missed.is_complete) {
        const lines = missed.named.slice(0, MOST_NAMED).map(named);
        lines.push(more(missed.number - lines.length, missed.is_complete));
        const why = kept.problem ? ` (${kept.problem})` : "";
        if (kept.number) done.push(`Files are in ${kept.place}.`);
        const all = kept.number ? "Not all is kept" : "Nothing is kept";
        throw new Error(`${all}${why}: ${lines.filter(Boolean).join(", ")}.`);
      }
      if (kept.number) done.push(`The files are in ${kept.place}.`);
    }
  }

  // Resolves to null for a server that is to run on, and else to what there is to tell of its stop.
  return async (project) => {
    const dialog = document.getElementById("leaving");
    const address = dialog.dataset.portal;
    for (const name of ["packages", "files", "problem"]) part(name).hidden = true;
    for (const name of ["save", "keep"]) part(name).checked = false;
    part("title").textContent = `Stop ${project}?`;
    part("said").textContent = "";
    doing("Looking what would go with it …");
    dialog.returnValue = "";
    dialog.showModal();

    let portal = null;
    let packages = [];
    const done = [];
    // What comes later is not for the dialog about another server.
    let isOpen = true;
    const closed = new Promise((resolve) => {
      const close = () => {
        isOpen = false;
        resolve(dialog.returnValue === "stop");
      };
      dialog.addEventListener("close", close, { once: true });
    });
    part("cancel").onclick = () => dialog.close("");
    dialog.querySelector("form").onsubmit = async (event) => {
      event.preventDefault();
      part("problem").hidden = true;
      try {
        await keep(portal, packages, done);
        if (isOpen) dialog.close("stop");
      } catch (error) {
        if (!isOpen) return;
        warn(`${error.message} Press Stop to stop it all the same.`);
        doing("");
        part("stop").focus();
      }
    };
    try {
      portal = await portalOf(project, address);
      const found = await portal.ask("leaving", LOOK_MS);
      if (isOpen) packages = show(found, project, address);
    } catch (error) {
      if (isOpen) {
        part("said").textContent =
          "What runs in it ends. Your files in /workspace and in your home stay.";
        warn(`It is not known what would go with it: ${error.message}`);
      }
    }
    if (isOpen) {
      doing("");
      part("stop").focus();
    }
    const isToStop = await closed;
    portal?.close();
    return isToStop ? done.join(" ") : null;
  };
})();
