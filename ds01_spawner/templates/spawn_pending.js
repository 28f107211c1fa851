// The start of one server, as it happens.
(() => {
  const { base_url: base } = window.jhdata;
  const { server } = document.getElementById("start-page").dataset;
  const find = (id) => document.getElementById(id);
  const message = find("progress-message");
  const log = find("progress-log");

  // Numbers change in place: a download says its megabytes many times.
  const kindOf = (text) => text.replace(/[0-9.]+/g, "#");

  function show({ progress, message: text }) {
    if (progress !== undefined) {
      find("progress").setAttribute("aria-valuenow", progress);
      find("progress-bar").style.width = `${progress}%`;
    }
    if (!text) return;
    message.textContent = text;
    let line = log.lastElementChild;
    if (!line || kindOf(line.textContent) !== kindOf(text)) {
      line = log.appendChild(document.createElement("li"));
    }
    line.textContent = text;
  }

  function fail(text) {
    document.title = "The start failed";
    find("heading").lastChild.textContent = " did not start";
    find("heading").firstChild.textContent = "";
    find("progress-bar").className = "progress-bar bg-danger";
    message.hidden = find("while-starting").hidden = find("stop-server-btn").hidden = true;
    find("failure-message").textContent = text.replace(/^Spawn failed: /, "");
    find("failure").hidden = false;
    find("progress-details").open = true;
  }

  let events;

  function follow() {
    events = new EventSource(progressUrl);
    // After a broken connection the Hub tells everything again.
    events.onopen = () => log.replaceChildren();
    events.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.ready) {
        events.close();
        window.location.reload();
      } else if (event.failed) {
        events.close();
        fail(event.message);
      } else {
        show(event);
      }
    };
    events.onerror = () => {
      // Refused, not only interrupted: the start is over, and the page will say how.
      if (events.readyState === EventSource.CLOSED) setTimeout(() => window.location.reload(), 2000);
    };
  }
  follow();

  find("stop-server-btn").addEventListener("click", async ({ target }) => {
    target.disabled = true;
    target.textContent = "Cancelling …";
    find("stop-problem").hidden = true;
    // The end of a cancelled start is no failure to show.
    events.close();
    try {
      await window.ds01RemoveServer(server);
      window.location.href = `${base}home`;
    } catch (error) {
      find("stop-problem").textContent = `The start could not be cancelled: ${error.message}`;
      find("stop-problem").hidden = false;
      target.disabled = false;
      target.textContent = "Cancel the start";
      follow();
    }
  });
})();
