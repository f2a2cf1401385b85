// Sends files one after another, says how far each is and what came of it. Without it the form sends one by itself.
"use strict";
(() => {
  const form = document.getElementById("upload");
  const input = document.getElementById("file");
  const drop = document.getElementById("drop");
  const list = document.getElementById("queue");
  const said = document.getElementById("said");
  const button = document.getElementById("send");
  const budget = document.getElementById("budget");
  const task = document.getElementById("task");
  const unit = document.getElementById("privacy_budget.unit");
  const largest = Number(form.dataset.largest);
  const token = form.elements.token.value;
  const queue = []; // what was chosen and is not taken in yet, in order
  let taken = []; // where those stand that are
  let busy = false;

  // The form shows, asks for and sends what counts.
  const put = (part, shown) => {
    part.hidden = !shown;
    for (const field of part.querySelectorAll("input, select")) field.disabled = !shown;
  };
  const need = (id, needed) => {
    document.getElementById(id).required = needed;
  };
  const arrange = () => {
    const secret = form.elements.purpose.value === "fine-tune";
    const columns = task.selectedOptions[0].dataset.columns.split(" ");
    for (const part of form.querySelectorAll("[data-column]"))
      put(part, columns.includes(part.dataset.column) || (part.dataset.column === "user" && secret));
    for (const part of form.querySelectorAll("[data-without]")) put(part, !columns.includes(part.dataset.without));
    for (const part of form.querySelectorAll("[data-private]")) put(part, secret);
    const opens = secret && !budget.value;
    const users = secret && (opens ? unit.value : budget.selectedOptions[0].dataset.unit) === "user";
    put(form.querySelector("[data-new]"), opens);
    put(form.querySelector("[data-users]"), opens && users);
    for (const part of form.querySelectorAll("[data-task]")) part.hidden = part.dataset.task !== task.value;
    for (const tick of form.querySelectorAll("[data-instead]")) {
      const field = document.getElementById(tick.dataset.instead);
      field.disabled = tick.disabled || tick.checked;
      need(field.id, secret && !field.disabled);
    }
    need("privacy_budget.epsilon", opens);
    need("privacy_budget.max_records_per_user", opens && users);
    need("columns.user", users);
    if (users) document.getElementById("columns").open = true;
  };

  const complain = (id, words) => {
    const field = document.getElementById(id);
    const place = document.createElement("p");
    place.className = "wrong";
    place.id = `wrong-${id}`;
    place.textContent = words;
    field.after(place);
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", `help-${id} ${place.id}`);
    field.closest("details")?.setAttribute("open", "");
    field.focus();
  };
  const forgive = () => {
    for (const place of form.querySelectorAll("p.wrong")) place.remove();
    for (const field of form.querySelectorAll("[aria-invalid]")) {
      field.removeAttribute("aria-invalid");
      field.setAttribute("aria-describedby", `help-${field.id}`);
    }
  };

  // One file: its line in the list.
  const size = (bytes) => {
    const units = ["bytes", "kB", "MB", "GB", "TB"];
    let at = 0;
    for (; bytes >= 1000 && at < 4; at += 1) bytes /= 1000;
    return `${at ? bytes.toPrecision(3) : bytes} ${units[at]}`;
  };
  const say = (one, words, aloud = true) => {
    one.part("[data-word]").textContent = words;
    if (aloud) said.textContent = `${one.file.name}: ${words}`;
  };
  const show = (one, ...names) => {
    for (const name of ["data-report", "data-again", "data-cancel"]) one.part(`[${name}]`).hidden = !names.includes(name);
    one.part("progress").hidden = !names.includes("progress");
    one.part("ol").hidden = !names.includes("ol");
    one.part("[data-cancel]").firstChild.data = names.includes("progress") ? "Cancel" : "Remove";
  };
  const add = (files) => {
    for (const file of files) {
      const item = document.getElementById("one").content.cloneNode(true).firstElementChild;
      const one = { file, item, request: null, waits: true, part: (name) => item.querySelector(name) };
      list.append(item);
      one.part("[data-name]").textContent = file.name;
      one.part("[data-size]").textContent = size(file.size);
      one.part("progress").setAttribute("aria-label", `Sent of ${file.name}`);
      for (const name of ["data-report", "data-again", "data-cancel"]) {
        const of = document.createElement("span");
        of.className = "unseen";
        of.textContent = ` ${file.name}`;
        one.part(`[${name}]`).append(of);
      }
      one.part("[data-cancel]").addEventListener("click", () => {
        if (one.request) return one.request.abort();
        queue.splice(queue.indexOf(one), 1);
        item.remove();
        input.required = !queue.length;
      });
      one.part("[data-again]").addEventListener("click", () => {
        one.waits = true;
        say(one, "Waits to be sent.");
        form.requestSubmit();
      });
      queue.push(one);
      one.waits = file.size <= largest;
      show(one, "data-cancel");
      say(one, one.waits ? "Waits to be sent." : `It is larger than ${size(largest)}, and is not sent.`);
    }
    if (files.length && [...files].every((file) => file.name.toLowerCase().endsWith(".zip"))) {
      task.value = "image"; // a zip holds nothing else
      arrange();
    }
    input.value = "";
    input.required = !queue.length;
  };
  const refuse = (one, words, errors = [], further = 0) => {
    one.waits = false;
    const lines = one.part("ol");
    lines.replaceChildren();
    const name = one.file.name.toLowerCase();
    const row = name.endsWith(".parquet") ? "Row" : name.endsWith(".zip") ? "Entry" : "Line";
    for (const error of errors) {
      const line = document.createElement("li");
      line.textContent = error.line === null ? error.message : `${row} ${error.line}: ${error.message}`;
      lines.append(line);
    }
    if (further > 0) {
      const rest = document.createElement("li");
      rest.textContent = `and ${further} more`;
      lines.append(rest);
    }
    show(one, "data-again", "data-cancel", ...(errors.length ? ["ol"] : []));
    say(one, words);
  };
  const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;

  // One file: sent, and what the service says of it. True: the next one may go.
  const send = (one, fields) =>
    new Promise((next) => {
      const body = new FormData();
      for (const [name, value] of fields) body.append(name, value);
      body.append("file", one.file, one.file.name);
      const request = new XMLHttpRequest();
      const bar = one.part("progress");
      let percent = 0;
      let whole = false;
      one.request = request;
      request.open("POST", form.action);
      request.responseType = "json";
      request.setRequestHeader("Accept", "application/json");
      request.setRequestHeader("X-Form-Token", token);
      request.upload.onprogress = (event) => {
        percent = Math.floor((100 * event.loaded) / event.total);
        bar.value = (1000 * event.loaded) / event.total;
        say(one, `${percent} % is sent.`, false);
      };
      request.upload.onload = () => {
        whole = true;
        bar.removeAttribute("value");
        show(one, "progress"); // the service goes on by itself: there is nothing left to cancel
        say(one, "All of it is sent. It is being checked.");
      };
      request.onload = () => next(answered(one, request, fields));
      request.onerror = () => {
        refuse(
          one,
          whole
            ? "The connection was lost while the file was checked. It may have been taken in: look at the budget's files before you send it again."
            : `The upload was cut off at ${percent} %, or the file has changed since you chose it. Nothing of it was kept.`,
        );
        next(true);
      };
      request.onabort = () => {
        refuse(one, "Cancelled. Nothing of it was kept.");
        next(true);
      };
      request.onloadend = () => (one.request = null);
      bar.value = 0;
      show(one, "progress", "data-cancel");
      say(one, "It is being sent.");
      request.send(body);
    });

  const answered = (one, request, fields) => {
    const answer = request.response;
    if (request.status === 201 && answer) {
      queue.splice(queue.indexOf(one), 1);
      one.part("[data-report]").href = answer.page;
      taken.push(answer.page);
      show(one, "data-report");
      if (answer.waits) say(one, "It waits for your answer: the page of the file asks whose its records are.");
      else if (answer.inherited) say(one, "Taken in. No budget was opened: another one has its people already, and has the file now.");
      else say(one, "Taken in.");
      const opens = fields.some(([name]) => name === "privacy_budget[epsilon]");
      if (opens && !answer.waits && !answer.inherited) choose(answer.budget, fields);
      if (!opens || !answer.waits) return true;
      for (const other of queue) if (other.waits) say(other, "Not sent yet: its budget is not open until you have answered.");
      return false;
    }
    if (!answer?.error) {
      refuse(one, `The service did not answer as it should (${request.status}). Look at the budget's files before you send it again.`);
      return false;
    }
    const { code, param } = answer.error;
    const lines = answer.errors.filter((error) => "line" in error);
    if (lines.length) {
      refuse(one, "It cannot be used, and nothing of it was kept.", lines, answer.problem_count - lines.length);
      return true;
    }
    const field = param && param !== "file" && document.getElementById(param);
    if (!field) {
      refuse(one, sentence(answer.detail));
      return code === "invalid_request"; // what is true of the session, a limit or the disk is true of the next file too
    }
    refuse(one, "Nothing of it was kept: a field of the form needs a change.");
    complain(param, sentence(answer.detail.replace(`${param}: `, "")));
    return false;
  };

  // Files that come after the one that opened the budget belong to it as well.
  const choose = (id, fields) => {
    const of = unit.value || "record";
    const option = new Option(`${document.getElementById("privacy_budget.name").value || id}, for each ${of}`, id);
    option.dataset.unit = of;
    budget.add(option, 1);
    budget.value = id;
    const rest = fields.filter(([name]) => !name.startsWith("privacy_budget["));
    fields.splice(0, fields.length, ...rest, ["budget", id]);
    arrange();
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = button.disabled = true;
    forgive();
    const fields = [...new FormData(form)].filter(([name, value]) => name !== "token" && name !== "file" && value);
    for (let one; (one = queue.find((other) => other.waits)); ) if (!(await send(one, fields))) break;
    busy = button.disabled = false;
    if (taken.length === 1 && !queue.length && list.children.length === 1) location.assign(taken[0]);
  });
  addEventListener("beforeunload", (event) => {
    if (busy) event.preventDefault();
  });

  input.multiple = true;
  document.getElementById("several").hidden = false;
  input.addEventListener("change", () => add(input.files));
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    add(event.dataTransfer.files);
  });
  form.addEventListener("change", arrange);
  arrange();
})();
