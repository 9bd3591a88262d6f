"use strict";
// Stored values are shown only through textContent, so markup in a message stays text.

const PAGE = 50;
const REMEMBERED = ["key", "memory", "user"];
const STRATEGIES = {
  all: "The most recent turns",
  relevant: "The turns most relevant to the question",
  both: "Recent turns, and relevant older ones",
};
const REASONS = { recent: "one of the latest turns", match: "matches the question", context: "same turn as a match" };

const byId = (id) => document.getElementById(id);
let session = null; // {user_id, session_id} of the conversation shown
let older = null; // cursor to the messages before it
let latestTask = 0; // number of the latest task, so that a late response does not overwrite a newer one

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function showStatus(text, wrong = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("wrong", wrong);
}

async function request(path, body) {
  const headers = {};
  const key = byId("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { headers };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const response = await fetch(`v1/memories/${encodeURIComponent(byId("memory").value.trim())}${path}`, options);
  const content = await response.json();
  if (!response.ok) throw new Error(`${response.status}: ${content.detail}`);
  return content;
}

// Returns an event handler that runs a task and shows its result or its error.
function task(work) {
  return async (event) => {
    event?.preventDefault();
    const number = ++latestTask;
    showStatus("…");
    try {
      const result = await work(() => number === latestTask);
      if (number === latestTask) showStatus(result);
    } catch (error) {
      if (number === latestTask) showStatus(error.message, true);
    }
  };
}

function formatTime(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? String(seconds) : date.toLocaleString();
}

// Any client may store any JSON where text is usual, and an object may have no text: {"toString": 1}.
function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value ?? "");
}

function textOf(content) {
  if (!Array.isArray(content)) return shown(content ?? "");
  const textOfPart = (part) => (typeof part?.text === "string" ? part.text : `[${shown(part?.type ?? "part")}]`);
  return content.map(textOfPart).join("\n");
}

function scopeOf(item) {
  return [item.user_id ?? "no user", item.session_id ?? "no session"].join(" · ");
}

function card(item, { score = false, scope = false } = {}) {
  const data = item.data;
  const node = element("li", { className: `message ${data.role}` });
  const meta = element("div", { className: "meta" }, element("span", { className: "role", textContent: data.role }));
  if (data.name) meta.append(element("span", { textContent: shown(data.name) }));
  meta.append(element("time", { textContent: formatTime(item.dynamiq_memory.timestamp) }));
  if (item.metadata?.interrupted === true) meta.append(element("span", { className: "badge", textContent: "interrupted" }));
  if (item.reason) {
    meta.append(element("span", { className: "badge reason", textContent: item.reason, title: REASONS[item.reason] }));
    meta.append(element("span", { textContent: REASONS[item.reason] }));
  }
  if (typeof item.score === "number" && (score || item.reason)) {
    const title = Object.entries(item.score_parts ?? {}).map(([name, part]) => `${name} ${part.toFixed(2)}`).join(" + ");
    meta.append(element("span", { className: "score", textContent: `score ${item.score.toFixed(2)}`, title }));
  }
  if (typeof item.metadata?.superseded_at === "number") {
    node.classList.add("superseded");
    const title = "An edit, another answer or an undo replaced it: agents are not given it as conversation.";
    meta.append(element("span", { className: "badge", textContent: "superseded", title }));
  }
  if (scope) meta.append(element("span", { textContent: scopeOf(item) }));
  node.append(meta, element("p", { className: "text", textContent: textOf(data.content) }));
  for (const call of data.tool_calls ?? []) {
    const summary = element("summary", { textContent: `calls ${shown(call?.function?.name ?? call?.id ?? "a tool")}` });
    node.append(element("details", {}, summary, element("pre", { textContent: JSON.stringify(call, null, 2) })));
  }
  return node;
}

// Shows a message as its JSON rather than none of its session.
function cardOrJson(item, options) {
  try {
    return card(item, options);
  } catch (error) {
    const text = JSON.stringify(item, null, 2);
    return element("li", { className: "message" }, element("p", { className: "text", textContent: text }));
  }
}

function cards(list, items, options) {
  const nothing = element("li", { className: "nothing", textContent: "No messages." });
  list.replaceChildren(...(items.length ? items.map((item) => cardOrJson(item, options)) : [nothing]));
}

function scopeBody(sessionOnly) {
  const user = byId("user").value.trim();
  if (sessionOnly && session) return { filters: { user_id: session.user_id, session_id: session.session_id } };
  return user ? { user_id: user } : {};
}

async function open(current) {
  for (const id of REMEMBERED) sessionStorage.setItem(id, byId(id).value.trim());
  const user = byId("user").value.trim();
  const sessions = (await request(`/sessions${user ? `?user_id=${encodeURIComponent(user)}` : ""}`)).data;
  if (!current()) return "";
  session = null;
  byId("messages").replaceChildren();
  byId("older").hidden = true;
  byId("sessions").replaceChildren(...sessions.map(sessionButton));
  if (sessions.length) await show(sessions[0], current);
  return `${sessions.length} session${sessions.length === 1 ? "" : "s"}`;
}

function sessionButton(summary) {
  const name = element("span", { textContent: summary.session_id ?? "no session" });
  const button = element("button", { type: "button" }, name);
  const count = `${summary.messages} message${summary.messages === 1 ? "" : "s"}`;
  const facts = `${summary.user_id ?? "no user"} · ${count} · ${formatTime(summary.last)}`;
  button.append(element("small", { textContent: facts }));
  button.session = summary;
  button.addEventListener("click", task(async (current) => {
    await show(summary, current);
    select("chat");
    return `Session ${summary.session_id ?? "without an id"}`;
  }));
  return element("li", {}, button);
}

async function show(selected, current) {
  const page = await readPage(selected, null);
  if (!current()) return;
  session = selected;
  for (const button of byId("sessions").querySelectorAll("button")) {
    const { user_id, session_id } = button.session;
    const isCurrent = user_id === selected.user_id && session_id === selected.session_id;
    button.setAttribute("aria-current", String(isCurrent));
  }
  cards(byId("messages"), page.data.reverse());
  updateOlder(page);
}

function readPage({ user_id, session_id }, cursor) {
  const filters = { user_id, session_id };
  return request("/items/query", { filters, limit: PAGE, ...(cursor ? { before: cursor } : {}) });
}

function updateOlder(page) {
  const first = page.data[0];
  older = page.has_more
    ? { id: first.id, timestamp: first.dynamiq_memory.timestamp, user_id: first.user_id, session_id: first.session_id }
    : null;
  byId("older").hidden = older === null;
}

async function showOlder(current) {
  const page = await readPage(session, older);
  if (!current()) return "";
  byId("messages").prepend(...page.data.reverse().map((item) => cardOrJson(item)));
  updateOlder(page);
  return `${page.data.length} older messages`;
}

async function search(current) {
  const body = { query: byId("query").value, limit: PAGE, ...scopeBody(byId("within").checked) };
  const results = (await request("/search", body)).data;
  if (current()) cards(byId("results"), results, { score: true, scope: true });
  return `${results.length} found`;
}

async function compareStrategies(current) {
  const query = byId("question").value.trim() || null;
  const limit = Number(byId("limit").value);
  const scope = scopeBody(byId("agent-within").checked);
  const names = Object.keys(STRATEGIES);
  const settings = { query, limit, window: byId("window").value, placement: byId("placement").value, compare: true };
  const results = await Promise.all(names.map((strategy) => request("/search", { ...settings, strategy, ...scope })));
  if (!current()) return "";
  byId("strategies").replaceChildren(...names.map((name, number) => {
    const list = element("ol", { className: "messages" });
    cards(list, results[number].data);
    const title = element("h3", { textContent: name });
    const { data, recalled_block, unchanged } = results[number];
    const facts = [`${STRATEGIES[name]}: ${data.length} messages`];
    if (recalled_block !== null) facts.push("those found are one block before the question");
    if (unchanged !== null) facts.push(`${Math.round(unchanged * 100)} % unchanged since the question before`);
    const section = element("section", {}, title, element("small", { textContent: facts.join("; ") }), list);
    section.dataset.strategy = name;
    return section;
  }));
  return "Messages that the agent would see with each strategy, oldest first";
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
  latestTask += 1;
  session = null;
  byId("key").value = "";
  for (const id of ["sessions", "messages", "results", "strategies"]) byId(id).replaceChildren();
  byId("older").hidden = true;
  showStatus("The key was removed from this tab.");
}

for (const id of REMEMBERED) byId(id).value = sessionStorage.getItem(id) ?? "";
byId("access").addEventListener("submit", task(open));
byId("forget").addEventListener("click", forget);
byId("older").addEventListener("click", task(showOlder));
byId("search-form").addEventListener("submit", task(search));
byId("agent-form").addEventListener("submit", task(compareStrategies));
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => select(tab.getAttribute("aria-controls")));
  tab.addEventListener("keydown", moveTab);
}
if (byId("memory").value) byId("access").requestSubmit();
