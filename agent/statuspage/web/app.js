// Keeps the page that the server rendered up to date. The server sends the
// page's texts once a second; an element says in data-bind which of them it
// shows, a list says it in data-each and holds a <template> for new items.
// Texts are set as text and never read as markup.
"use strict";

const POLL_MS = 1000, POLL_TIMEOUT_MS = 5000;
const PREVIEW_MS = 250, PREVIEW_RETRY_MS = 3000, PREVIEWS_AT_ONCE = 2;

const pick = (data, path) => path.split(".").reduce((at, name) => at?.[name], data);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function bind(el, data) {
  for (const pair of el.dataset.bind.split(" ")) {
    const [what, path] = pair.split(":");
    const value = pick(data, path) ?? "";
    if (what === "text") {
      if (el.textContent !== value) el.textContent = value;
    } else if (what === "show") {
      el.hidden = !value;
    } else {
      const name = what === "is" ? "data-is" : what;
      if (value === "" && what !== "is" && what !== "alt") el.removeAttribute(name);
      else if (el.getAttribute(name) !== value) el.setAttribute(name, value);
    }
  }
}

// list keeps one element per item: the same key keeps its element, so that a
// picture, a selection or the focus in it survives.
function list(el, items) {
  const template = el.querySelector(":scope > template");
  const old = new Map();
  for (const child of [...el.children]) {
    if (child === template) continue;
    old.get(child.dataset.key)?.remove(); // keys that are not unique: made anew
    old.set(child.dataset.key, child);
  }
  let last = template;
  for (const item of items ?? []) {
    let child = old.get(item.Key);
    if (child) old.delete(item.Key);
    else {
      child = template.content.firstElementChild.cloneNode(true);
      child.dataset.key = item.Key;
    }
    fill(child, item);
    if (last.nextElementSibling !== child) last.after(child);
    last = child;
  }
  for (const child of old.values()) child.remove();
}

function fill(el, data) {
  if (el.dataset.bind) bind(el, data);
  if (el.dataset.each) return list(el, pick(data, el.dataset.each));
  for (const child of el.children) if (child.tagName !== "TEMPLATE") fill(child, data);
}

async function poll() {
  const query = new URLSearchParams({ as: "page" });
  const history = new URLSearchParams(location.search).get("history");
  if (history) query.set("history", history);
  let lost = true;
  try {
    const answer = await fetch("/api/status?" + query, { signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
    if (answer.ok) {
      fill(document.documentElement, await answer.json());
      lost = false;
    }
  } catch { /* told on the page */ }
  document.getElementById("lost").hidden = !lost;
  document.documentElement.toggleAttribute("data-lost", lost);
}

// shown resolves while somebody looks.
const shown = async () => {
  while (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
};

async function polling() {
  for (;;) {
    await shown();
    await poll();
    await pause(POLL_MS);
  }
}

async function picture(img) {
  let ok = false;
  try {
    const answer = await fetch(img.dataset.preview);
    if (answer.ok) {
      const url = URL.createObjectURL(await answer.blob());
      const next = new Image();
      next.src = url;
      await next.decode().then(() => { ok = true; img.src = url; }, () => URL.revokeObjectURL(url));
      if (ok) {
        if (img.blob) URL.revokeObjectURL(img.blob);
        img.blob = url;
      }
    }
  } catch { /* tried again later */ }
  img.toggleAttribute("data-lost", !ok);
  img.due = performance.now() + (ok ? PREVIEW_MS : PREVIEW_RETRY_MS);
}

// Each camera's pictures come one after the other; a camera that does not
// answer holds one of the turns, not the others' pictures.
async function previewing() {
  for (;;) {
    await shown();
    const now = performance.now();
    const due = [...document.querySelectorAll("img[data-preview]")].filter((img) => img.dataset.preview && !img.busy && !(img.due > now));
    due.sort((a, b) => (a.due ?? 0) - (b.due ?? 0));
    if (!due.length) {
      await pause(50);
      continue;
    }
    due[0].busy = true;
    await picture(due[0]);
    due[0].busy = false;
  }
}

polling();
for (let i = 0; i < PREVIEWS_AT_ONCE; i++) previewing();
