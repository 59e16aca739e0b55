// What the page does beyond plain links and forms: selecting, keys, dialogs, and staying current.
import { arrange, reveal, step } from "./grid.js";
import { startMap } from "./map.js";

const $ = (query, within = document) => within.querySelector(query);
const $$ = (query, within = document) => [...within.querySelectorAll(query)];
const dialog = $("#dialog");
export const selected = new Set(); // rows of regions
let focused = { row: null, index: 0, list: 0 }; // to restore after the view was replaced
let anchor = null; // where a selection with Shift begins
let scroll = 0;
const about = new Set(); // the regions that a decision is being made about

// Speaking -------------------------------------------------------------------------------------

let silence;
function say(text, wrong = false) {
  const says = $("#says");
  says.textContent = text;
  says.classList.toggle("wrong", wrong);
  says.classList.add("on");
  clearTimeout(silence);
  silence = setTimeout(() => says.classList.remove("on"), wrong ? 8000 : 3500);
}

// Decisions ------------------------------------------------------------------------------------

async function decide(values) {
  const answer = await fetch("/decide", { method: "POST", body: new URLSearchParams(values) });
  if (!answer.ok) {
    say(await answer.text(), true);
    return false;
  }
  decided(JSON.parse(answer.headers.get("HX-Trigger")).decided);
  return true;
}

function decided({ message, version }) {
  if (dialog.open) dialog.close();
  const list = $$("[role=listbox]")[focused.list];
  const places = list ? tilesOf(list).filter((t) => about.has(Number(t.dataset.row))).map(placeOf) : [];
  if (places.length && about.has(Number(focused.row))) {
    focused = { ...focused, row: "", index: Math.min(...places) }; // the next one takes its place
  }
  about.clear();
  select([], false);
  say(message);
  refresh(version);
}

function refresh(version) {
  $("#view").dataset.version = version; // so that polling does not refresh once more
  htmx.trigger("#view", "refresh");
}

document.addEventListener("htmx:beforeOnLoad", (event) => {
  const header = event.detail.xhr.getResponseHeader("HX-Trigger");
  if (!header) return;
  const form = event.detail.elt.closest("form");
  if (form?.dataset.then) location.assign(form.dataset.then);
  else decided(JSON.parse(header).decided);
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.pathInfo.requestPath === "/learn") say("Learning …");
});
document.addEventListener("htmx:responseError", (event) => say(event.detail.xhr.responseText, true));
document.addEventListener("htmx:sendError", () => say("The review is not running any more.", true));
document.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.elt.closest("[data-selected]")) event.detail.parameters.regions = moving.join(",");
});

async function poll() {
  try {
    const answer = document.hidden ? null : await fetch("/version");
    if (answer?.ok) {
      const version = await answer.text();
      if (Number(version) !== Number($("#view").dataset.version) && !dialog.open) refresh(version);
    } else if (answer) say(await answer.text(), true);
  } catch {
    say("The review is not running any more: start anomalyncd review again.", true);
  }
  setTimeout(poll, 2000);
}

// Selecting ------------------------------------------------------------------------------------

export function select(rows, add = true) {
  if (!add) selected.clear();
  for (const row of rows) selected.add(Number(row));
  showSelection();
}

function toggle(tile) {
  const row = Number(tile.dataset.row);
  if (!selected.delete(row)) selected.add(row);
  showSelection();
}

export function showSelection() {
  for (const tile of $$("[role=option]")) {
    tile.setAttribute("aria-selected", String(selected.has(Number(tile.dataset.row))));
  }
  $("#bar").hidden = selected.size === 0;
  $("#count").textContent = selected.size === 1 ? "1 selected" : `${selected.size} selected`;
  document.dispatchEvent(new Event("selected"));
}

const listOf = (tile) => tile.closest("[role=listbox]");
const tilesOf = (list) => $$("[role=option]", list).sort((a, b) => placeOf(a) - placeOf(b));
const placeOf = (tile) => Number(tile.ariaPosInSet ?? tile.getAttribute("aria-posinset"));

function selectTo(tile) {
  const [from, to] = [anchor ?? tile, tile].map(placeOf).sort((a, b) => a - b);
  select(tilesOf(listOf(tile)).filter((t) => placeOf(t) >= from && placeOf(t) <= to).map((t) => t.dataset.row));
}

document.addEventListener("click", (event) => {
  const tile = event.target.closest("[role=option]");
  if (!tile) return;
  focusTile(tile);
  if (event.shiftKey) selectTo(tile);
  else if (event.ctrlKey || event.metaKey || selected.size) toggle(tile);
  else return show(tile.dataset.row);
  if (!event.shiftKey) anchor = tile;
});

// Focus: one tile of each list can be reached with Tab, the arrows move within the list -------------

function focusTile(tile) {
  for (const other of $$("[role=option][tabindex='0']", listOf(tile))) other.tabIndex = -1;
  tile.tabIndex = 0;
  tile.focus({ preventScroll: true });
  tile.scrollIntoView({ block: "nearest", inline: "nearest" });
}

document.addEventListener("focusin", ({ target }) => {
  if (target.role !== "option" && target.getAttribute("role") !== "option") return;
  const list = listOf(target);
  focused = { row: target.dataset.row, index: placeOf(target), list: $$("[role=listbox]").indexOf(list) };
});

function prepare() {
  const grid = $("#grid");
  if (grid) arrange(grid, () => { showSelection(); makeReachable(grid); });
  for (const list of $$("[role=listbox]")) makeReachable(list);
  startMap({ select, show, selected });
  showSelection();
}

function makeReachable(list) {
  if (!$("[role=option][tabindex='0']", list)) tilesOf(list)[0]?.setAttribute("tabindex", "0");
}

document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "view") scroll = window.scrollY;
});
document.addEventListener("htmx:afterSwap", async (event) => {
  if (event.detail.target.id !== "view") return;
  prepare();
  window.scrollTo(0, scroll);
  if (dialog.open || focused.row === null) return;
  if (document.activeElement && document.activeElement !== document.body) return;
  const list = $$("[role=listbox]")[focused.list];
  if (!list) return $("#view").focus({ preventScroll: true });
  if (list.id === "grid") await reveal(list, Math.min(focused.index, Number(list.dataset.total)) - 1);
  const all = tilesOf(list);
  const tile = all.find((t) => t.dataset.row === focused.row) ?? all.findLast((t) => placeOf(t) <= focused.index) ?? all[0];
  if (tile) focusTile(tile);
});

// Dialogs --------------------------------------------------------------------------------------

let moving = []; // the regions that a dialog is about

async function open(address) {
  const answer = await fetch(address);
  if (!answer.ok) return say(await answer.text(), true);
  present(await answer.text());
}

function present(content) {
  const body = $("#dialog-body");
  body.innerHTML = content; // rendered by our server, every name in it escaped
  htmx.process(body);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  const single = $("#single-keys");
  if (single) single.checked = singleKeys();
  ($("[autofocus]", body) ?? $("[data-close]", body))?.focus();
  $("input[autofocus]", body)?.select();
}

async function findLike(file) {
  say("Looking for regions like those of this photograph …");
  const answer = await fetch("/similar", { method: "POST", body: file });
  if (!answer.ok) return say(await answer.text(), true);
  present(await answer.text());
}

document.addEventListener("dragover", (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
document.addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (!file) return;
  event.preventDefault();
  findLike(file);
});

const show = (row, heat = "") => open(`/region?row=${row}${heat && "&heat=1"}`);

function ask(what, classId) {
  const query = new URLSearchParams({ what });
  if (classId) query.set("class", classId);
  if (what === "move") query.set("row", moving[0]);
  open(`/ask?${query}`);
}

function act(what, rows) {
  if (what === "clear") return select([], false);
  if (!rows.length) return say("Select a region first.", true);
  moving = rows;
  about.clear();
  for (const one of rows) about.add(Number(one));
  if (what === "move") return ask("move");
  const values = { regions: rows.join(",") };
  if (what === "confirm") decide({ ...values, what });
  else decide({ ...values, what: "reject", reason: what });
}

const chosen = () => {
  const row = dialog.open ? $(".region", dialog)?.dataset.row : document.activeElement?.dataset?.row;
  if (dialog.open && row) return [row];
  return selected.size ? [...selected] : row ? [row] : [];
};
const classHere = () => document.activeElement?.closest("[data-class]")?.dataset.class ?? $("#view > [data-class]")?.dataset.class;

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return event.target === dialog && dialog.close();
  const { ask: what, do: action, region, row, answer, undo } = button.dataset;
  if ("close" in button.dataset) dialog.close();
  else if (what) ask(what, button.dataset.class);
  else if (action === "confirm_all") decide({ what: action, class: button.dataset.class });
  else if (action) act(action, row ? [row] : [...selected]);
  else if (region) show(region, button.dataset.heat);
  else if (answer) reply(answer, button.dataset.class);
  else if (undo) decide({ what: "undo", decision: undo });
  else if (button.id === "undo") decide({ what: "undo" });
});
document.addEventListener("change", ({ target }) => {
  if (target.id === "photograph" && target.files.length) findLike(target.files[0]);
  if (target.id === "single-keys") localStorage.setItem("single-keys", target.checked ? "on" : "off");
  if (target.matches(".filters select")) target.form.requestSubmit();
});
document.addEventListener("submit", ({ target }) => {
  if (target.matches(".filters")) for (const field of target.elements) field.disabled ||= !field.value;
});

// Questions ------------------------------------------------------------------------------------

async function reply(answer, classId) {
  const asked = $("[data-question]")?.dataset;
  if (!asked?.question) return;
  if (asked.question === "pair") {
    if (answer === "yes") await decide({ what: "merge", class: asked.other, into: asked.class });
    else if (answer === "no") await decide({ what: "apart", class: asked.class, other: asked.other });
    return;
  }
  if (answer === "skip") {
    const skip = asked.skip ? `${asked.skip},${asked.row}` : asked.row;
    return location.assign(`/question?skip=${skip}`);
  }
  const values = { regions: asked.row, drawn: asked.drawn };
  if (answer === "yes") await decide({ ...values, what: "confirm", class: asked.class });
  else if (answer === "no") await decide({ ...values, what: "deny", class: asked.class });
  else if (answer === "move") await decide({ ...values, what: "move", class: classId });
  else await decide({ ...values, what: "reject", reason: answer });
}

// Keys -----------------------------------------------------------------------------------------

const singleKeys = () => localStorage.getItem("single-keys") !== "off";
const VIEWS = ["/", "/question", "/regions", "/map", "/history"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", async (event) => {
  const { key } = event;
  if (event.altKey && VIEWS[key - 1]) return location.assign(VIEWS[key - 1]);
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.target.matches("input, select, textarea")) return;
  const tile = event.target.closest("[role=option]");
  if (tile && !dialog.open) {
    if (ARROWS[key]) {
      event.preventDefault();
      if (event.shiftKey && !anchor?.isConnected) anchor = tile;
      const next = await neighbour(tile, ...ARROWS[key]);
      if (next) focusTile(next);
      if (event.shiftKey && next) selectTo(next);
      else if (!event.shiftKey) anchor = null;
      return;
    }
    if (key === " ") { event.preventDefault(); anchor = tile; return toggle(tile); }
    if (key === "Enter") { event.preventDefault(); return show(tile.dataset.row); }
  }
  if (key === "Escape" && !dialog.open) return select([], false);
  if (!singleKeys() || event.repeat) return;
  const asked = $("[data-question]");
  if (asked && !dialog.open) {
    const answer = { y: "yes", n: "no", s: "skip", x: "false_alarm", d: "not_a_defect" }[key];
    if (answer) return reply(answer);
    if (key === "m" && asked.dataset.row) return act("move", [asked.dataset.row]);
    const other = $(`.choice[aria-keyshortcuts="${CSS.escape(key)}"][data-answer=move]`);
    if (other) return other.click();
  }
  const region = $(".region", dialog);
  if (dialog.open && !region) return;
  const action = { m: "move", c: "confirm", x: "false_alarm", d: "not_a_defect" }[key];
  if (action && (region || !asked)) { event.preventDefault(); return act(action, chosen()); }
  if (key === "u") return decide({ what: "undo" });
  if (dialog.open) return;
  const classId = classHere();
  if (key === "?") ask("keys");
  else if (key === "l") { event.preventDefault(); ask("learn"); }
  else if (key === "a" && tile) select(tilesOf(listOf(tile)).map((t) => t.dataset.row));
  else if (key === "r" && classId) { event.preventDefault(); ask("name", classId); }
  else if (key === "g" && classId) ask("merge", classId);
  else if (key === "t" && classId) location.assign(`/split?class=${encodeURIComponent(classId)}`);
});

async function neighbour(tile, dx, dy) {
  const list = listOf(tile);
  if (list.id === "grid") return step(list, placeOf(tile) - 1, dx, dy);
  if (dx) return tilesOf(list)[tilesOf(list).indexOf(tile) + dx];
  const lists = $$("[role=listbox]");
  const next = lists[lists.indexOf(list) + dy];
  return next && ($("[tabindex='0']", next) ?? tilesOf(next)[0]);
}

prepare();
poll();
