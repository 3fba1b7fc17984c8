"use strict";
// Keeps a report up to date: asks whether something has changed, loads the new report behind the old one, carries over what was chosen, and swaps them.
const EVERY_MS = 3000;
const at = (id) => document.getElementById(id);
let shown = null; // the frame with the report
let tags = { state: null, report: null };

async function poll() {
  try {
    const answer = await fetch("state", { headers: tags.state ? { "If-None-Match": tags.state } : {}, cache: "no-store" });
    if (answer.status === 200) {
      const state = await answer.json();
      at("running").innerHTML = state.running; // escaped where it is made; the policy of this page lets no script in it run
      at("line").textContent = state.line;
      if (state.report !== tags.report && !selecting()) {
        tags.report = state.report;
        load(state.report);
      }
      if (state.report === tags.report) tags.state = answer.headers.get("ETag");
    }
    document.querySelector("header").classList.toggle("lost", !(answer.ok || answer.status === 304));
  } catch {
    document.querySelector("header").classList.add("lost");
    at("line").textContent = "the server does not answer: was it ended?";
    tags.state = null;
  }
  setTimeout(poll, EVERY_MS);
}

// Whoever is marking text to copy it keeps the page for now.
function selecting() {
  const selection = shown && shown.contentWindow.getSelection();
  return Boolean(selection && !selection.isCollapsed);
}

function load(tag) {
  const next = document.createElement("iframe");
  next.className = "next";
  next.title = "report";
  next.src = "report?" + tag;
  next.addEventListener("load", () => {
    if (shown) carry(shown, next);
    if (shown) shown.remove();
    next.className = "";
    if (shown) refocus(shown.focused, next);
    shown = next;
  }, { once: true });
  at("report").append(next);
}

function carry(from, to) {
  const [before, after] = [from.contentDocument, to.contentDocument];
  for (const box of before.querySelectorAll("select[id], input[id]:not([type=range])")) carryBox(box, after.getElementById(box.id), to.contentWindow);
  carryBudgets(from, to);
  for (const head of before.querySelectorAll(".board th[aria-sort]")) carrySort(head, after);
  const open = new Set([...before.querySelectorAll("details[open] > summary")].map((line) => line.textContent));
  for (const line of after.querySelectorAll("details > summary")) line.parentNode.open = open.has(line.textContent) || line.parentNode.open;
  for (const plot of before.querySelectorAll(".js-plotly-plot")) carryZoom(plot, after.getElementById(plot.id), to.contentWindow.Plotly);
  const lists = [...after.querySelectorAll(".scroll")];
  [...before.querySelectorAll(".scroll")].forEach((list, index) => lists[index] && lists[index].scrollTo(list.scrollLeft, list.scrollTop));
  to.contentWindow.scrollTo(from.contentWindow.scrollX, from.contentWindow.scrollY);
  const active = before.activeElement;
  from.focused = document.activeElement === from && active && active.id ? { id: active.id, start: active.selectionStart, end: active.selectionEnd } : null;
}

// Rows have other numbers when ranks have changed, so a choice is known by its text.
function carryBox(box, other, view) {
  if (!other) return;
  if (box.tagName === "SELECT") {
    const chosen = box.selectedOptions[0];
    const same = chosen && [...other.options].find((option) => option.textContent === chosen.textContent && option.dataset.key === chosen.dataset.key);
    if (!same || same.selected) return;
    same.selected = true;
  } else if (box.type === "checkbox" || box.type === "radio") {
    if (other.checked === box.checked) return;
    other.checked = box.checked;
  } else {
    if (other.value === box.value) return;
    other.value = box.value;
  }
  for (const name of ["input", "change"]) other.dispatchEvent(new view.Event(name, { bubbles: true }));
}

// A slider of the panel stands on the cost of a row, and new rows have costs of their own: the bound stays, not the position.
function carryBudgets(from, to) {
  for (const label of from.contentDocument.querySelectorAll(".budget")) {
    const [cost, input] = [label.dataset.cost, label.querySelector("input")];
    const other = to.contentDocument.querySelector(`.budget[data-cost="${CSS.escape(cost)}"] input`);
    if (!other || Number(input.value) >= Number(input.max)) continue;
    const [bound] = from.contentWindow.steps(cost)[Number(input.value)];
    other.value = Math.max(0, to.contentWindow.steps(cost).filter(([value]) => value <= bound).length - 1);
    other.dispatchEvent(new to.contentWindow.Event("input", { bubbles: true }));
  }
}

function carrySort(head, after) {
  const key = head.closest(".board").dataset.key;
  const boards = [...after.querySelectorAll(".board")].filter((board) => board.dataset.key === key && board.querySelector("thead"));
  const same = boards.length && [...boards[0].querySelectorAll("thead th")].find((other) => other.textContent === head.textContent && other.cellIndex === head.cellIndex);
  for (let tries = 0; same && tries < 2 && same.getAttribute("aria-sort") !== head.getAttribute("aria-sort"); tries++) same.querySelector("button").click();
}

function carryZoom(plot, other, plotly) {
  if (!other || !other.layout || !plot.layout) return;
  const zoomed = {};
  for (const axis of ["xaxis", "yaxis"]) {
    if (plot.layout[axis] && plot.layout[axis].autorange === false) zoomed[`${axis}.range`] = [...plot.layout[axis].range];
  }
  if (Object.keys(zoomed).length) plotly.relayout(other, zoomed);
}

function refocus(focused, frame) {
  if (!focused) return;
  const box = frame.contentDocument.getElementById(focused.id);
  if (!box) return;
  frame.focus();
  box.focus({ preventScroll: true });
  if (focused.start !== null && focused.start !== undefined && box.setSelectionRange) box.setSelectionRange(focused.start, focused.end);
}

poll();
