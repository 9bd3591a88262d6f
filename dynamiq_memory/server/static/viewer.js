"use strict";
// Whatever was stored is shown by textContent alone: markup in a message is text.

const PAGE = 50;
const REMEMBERED = ["key", "memory", "user"];
const STRATEGIES = {
  all: "The most recent turns",
  relevant: "The turns most relevant to the question",
  both: "Recent turns, and relevant older ones",
};
const REASONS = { recent: "one of the latest turns", match: "matches the question", context: "same turn as a match" };

const byId = (id) => document.getElementById(id);
let session = null; // {user_id, session_id} of the conversation that is shown
let older = null; // the cursor to what is before it
let asked = 0; // numbers what is asked, so that a late answer does not overwrite a newer one

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function say(text, wrong = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("wrong", wrong);
}

async function ask(path, body) {
  const headers = {};
  const key = byId("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { headers };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const response = await fetch(`v1/memories/${encodeURIComponent(byId("memory").value.trim())}${path}`, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(`${response.status}: ${answer.detail}`);
  return answer;
}

// Runs what a button asks for, and says what went wrong.
function task(work) {
  return async (event) => {
    event?.preventDefault();
    const number = ++asked;
    say("…");
    try {
      const done = await work(() => number === asked);
      if (number === asked) say(done);
    } catch (error) {
      if (number === asked) say(error.message, true);
    }
  };
}

function when(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? String(seconds) : date.toLocaleString();
}

function textOf(content) {
  if (typeof content === "string") return content;
  const shown = (part) => (typeof part.text === "string" ? part.text : `[${part.type ?? "part"}]`);
  return (content ?? []).map(shown).join("\n");
}

function whose(item) {
  return [item.user_id ?? "no user", item.session_id ?? "no session"].join(" · ");
}

function card(item, { score = false, place = false } = {}) {
  const data = item.data;
  const made = element("li", { className: `message ${data.role}` });
  const meta = element("div", { className: "meta" }, element("span", { className: "role", textContent: data.role }));
  if (data.name) meta.append(element("span", { textContent: data.name }));
  meta.append(element("time", { textContent: when(item.dynamiq_memory.timestamp) }));
  if (item.reason) {
    meta.append(element("span", { className: "badge reason", textContent: item.reason, title: REASONS[item.reason] }));
    meta.append(element("span", { textContent: REASONS[item.reason] }));
  }
  if (typeof item.score === "number" && (score || item.reason)) {
    meta.append(element("span", { className: "score", textContent: `score ${item.score.toFixed(2)}` }));
  }
  if (place) meta.append(element("span", { textContent: whose(item) }));
  made.append(meta, element("p", { className: "text", textContent: textOf(data.content) }));
  for (const call of data.tool_calls ?? []) {
    const summary = element("summary", { textContent: `calls ${call.function?.name ?? call.id ?? "a tool"}` });
    made.append(element("details", {}, summary, element("pre", { textContent: JSON.stringify(call, null, 2) })));
  }
  return made;
}

function cards(list, items, options) {
  const nothing = element("li", { className: "nothing", textContent: "Nothing." });
  list.replaceChildren(...(items.length ? items.map((item) => card(item, options)) : [nothing]));
}

function scope(alone) {
  const user = byId("user").value.trim();
  if (alone && session) return { filters: { user_id: session.user_id, session_id: session.session_id } };
  return user ? { user_id: user } : {};
}

async function open(current) {
  for (const id of REMEMBERED) sessionStorage.setItem(id, byId(id).value.trim());
  const user = byId("user").value.trim();
  const answer = await ask(`/sessions${user ? `?user_id=${encodeURIComponent(user)}` : ""}`);
  if (!current()) return "";
  session = null;
  byId("messages").replaceChildren();
  byId("older").hidden = true;
  byId("sessions").replaceChildren(...answer.data.map(sessionButton));
  if (answer.data.length) await show(answer.data[0], current);
  return `${answer.data.length} session${answer.data.length === 1 ? "" : "s"}`;
}

function sessionButton(found) {
  const button = element("button", { type: "button" }, element("span", { textContent: found.session_id ?? "no session" }));
  const count = `${found.messages} message${found.messages === 1 ? "" : "s"}`;
  const facts = `${found.user_id ?? "no user"} · ${count} · ${when(found.last)}`;
  button.append(element("small", { textContent: facts }));
  button.found = found;
  button.addEventListener("click", task(async (current) => {
    await show(found, current);
    select("chat");
    return `Session ${found.session_id ?? "without a name"}`;
  }));
  return element("li", {}, button);
}

async function show(found, current) {
  const answer = await page(found, null);
  if (!current()) return;
  session = found;
  for (const button of byId("sessions").querySelectorAll("button")) {
    const shown = button.found.user_id === found.user_id && button.found.session_id === found.session_id;
    button.setAttribute("aria-current", String(shown));
  }
  cards(byId("messages"), answer.data.reverse());
  remember(answer);
}

function page(found, cursor) {
  const filters = { user_id: found.user_id, session_id: found.session_id };
  return ask("/items/query", { filters, limit: PAGE, ...(cursor ? { before: cursor } : {}) });
}

function remember(answer) {
  const first = answer.data[0];
  older = answer.has_more
    ? { id: first.id, timestamp: first.dynamiq_memory.timestamp, user_id: first.user_id, session_id: first.session_id }
    : null;
  byId("older").hidden = older === null;
}

async function showOlder(current) {
  const answer = await page(session, older);
  if (!current()) return "";
  byId("messages").prepend(...answer.data.reverse().map((item) => card(item)));
  remember(answer);
  return `${answer.data.length} older messages`;
}

async function search(current) {
  const answer = await ask("/search", { query: byId("query").value, limit: PAGE, ...scope(byId("within").checked) });
  if (current()) cards(byId("results"), answer.data, { score: true, place: true });
  return `${answer.data.length} found`;
}

async function given(current) {
  const query = byId("question").value.trim() || null;
  const limit = Number(byId("limit").value);
  const where = scope(byId("agent-within").checked);
  const names = Object.keys(STRATEGIES);
  const answers = await Promise.all(names.map((strategy) => ask("/search", { query, limit, strategy, ...where })));
  if (!current()) return "";
  byId("strategies").replaceChildren(...names.map((name, number) => {
    const list = element("ol", { className: "messages" });
    cards(list, answers[number].data);
    const count = `${STRATEGIES[name]}: ${answers[number].data.length} messages`;
    const made = element("section", {}, element("h3", { textContent: name }), element("small", { textContent: count }), list);
    made.dataset.strategy = name;
    return made;
  }));
  return "What each strategy gives the agent, oldest first";
}

function select(name) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
}

function moveTab(event) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const steps = { ArrowRight: 1, ArrowLeft: -1 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = tabs[(tabs.indexOf(document.activeElement) + steps[event.key] + tabs.length) % tabs.length];
  select(next.getAttribute("aria-controls"));
  next.focus();
}

function forget() {
  for (const id of REMEMBERED) sessionStorage.removeItem(id);
  asked += 1;
  session = null;
  byId("key").value = "";
  for (const id of ["sessions", "messages", "results", "strategies"]) byId(id).replaceChildren();
  byId("older").hidden = true;
  say("The key is forgotten.");
}

for (const id of REMEMBERED) byId(id).value = sessionStorage.getItem(id) ?? "";
byId("access").addEventListener("submit", task(open));
byId("forget").addEventListener("click", forget);
byId("older").addEventListener("click", task(showOlder));
byId("search-form").addEventListener("submit", task(search));
byId("agent-form").addEventListener("submit", task(given));
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => select(tab.getAttribute("aria-controls")));
  tab.addEventListener("keydown", moveTab);
}
if (byId("memory").value) byId("access").requestSubmit();
