// Keeps a page up to date: fetches it again every few seconds and puts its live parts in place of the old ones. Shows of
// a form what counts, and copies.
"use strict";
(() => {
  const trouble = document.getElementById("trouble");
  const shown = new Map(); // what the server sent last for each part, by id
  let seconds = Number(document.body.dataset.live);
  let tag = null;
  let failures = 0;
  let timer = null;

  const put = (fresh) => {
    for (const part of document.querySelectorAll("[data-live][id]")) {
      const sent = fresh.getElementById(part.id);
      const text = sent ? sent.innerHTML : "";
      if (text === (shown.get(part.id) ?? part.innerHTML)) continue;
      shown.set(part.id, text);
      const inside = part.contains(document.activeElement);
      const focused = inside ? document.activeElement.id : "";
      const open = [...part.querySelectorAll("details[open][id]")].map((details) => details.id);
      part.replaceChildren(...(sent ? sent.childNodes : []));
      for (const id of open) document.getElementById(id)?.setAttribute("open", "");
      if (inside) (document.getElementById(focused) ?? document.getElementById("main")).focus();
    }
    document.title = fresh.title;
    seconds = Number(fresh.body.dataset.live);
  };

  const refresh = async () => {
    if (document.hidden) return; // looked at again: see below
    try {
      const headers = tag ? { "If-None-Match": tag } : {};
      const answer = await fetch(location.href, { headers, cache: "no-store", credentials: "same-origin" });
      if (answer.redirected) return location.reload(); // the session is over
      if (answer.status !== 304 && !answer.ok) throw new Error(answer.status);
      if (answer.ok) {
        tag = answer.headers.get("ETag");
        put(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
      failures = 0;
      trouble.textContent = "";
    } catch {
      failures += 1;
      trouble.textContent = "The service does not answer. Trying again.";
    }
    plan();
  };

  const plan = () => {
    clearTimeout(timer);
    if (seconds) timer = setTimeout(refresh, Math.min(60, seconds * 2 ** failures) * 1000);
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && seconds) refresh();
  });
  plan();

  const method = document.getElementById("method"); // of the form that plans a job: only its own options count
  const own = () => {
    for (const part of document.querySelectorAll("[data-method]")) part.hidden = part.dataset.method !== method.value;
  };
  if (method) {
    method.addEventListener("change", own);
    own();
  }

  if (navigator.clipboard) {
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
        const words = button.firstChild.data;
        button.firstChild.data = "Copied";
        setTimeout(() => (button.firstChild.data = words), 1500);
      });
    }
  }
})();
