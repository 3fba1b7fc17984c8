"use strict";
// The budget panel: filters rows by the sliders, and looks up how the best compares with the others. The statistics are analysis/pairs.py's.
const LISTED = 8;
const sliders = [...document.querySelectorAll(".budget")].map((label) => ({
  cost: label.dataset.cost,
  label,
  input: label.querySelector("input"),
  output: label.querySelector("output"),
}));
let widest = false;

function panelBoard() {
  return data.panel.boards[at("key").value];
}

// The distinct values of a cost, smallest first, each with its text.
function steps(cost) {
  const { values, texts } = panelBoard().costs[cost];
  const known = values.map((value, i) => [value, texts[i]]).filter(([value]) => value !== null);
  return [...new Map(known)].sort(([a], [b]) => a - b);
}

// The limits that are set, as [cost, bound, text]. A slider at its right end sets none.
function limits() {
  const set = sliders.filter(({ input }) => Number(input.value) < Number(input.max));
  return set.map(({ cost, input }) => [cost, ...steps(cost)[Number(input.value)]]);
}

function resetPanel() {
  for (const { cost, label, input } of sliders) {
    const count = steps(cost).length;
    label.hidden = count < 2;
    input.max = input.value = count;
  }
  widest = false;
  at("move").hidden = sliders.every(({ label }) => label.hidden);
  drawPanel();
}

// As analysis.budget.decide: the best row that fits, and the others by whether they can be told from it.
function decide(board, bounds) {
  const holds = (i) => bounds.every(([cost, bound]) => board.costs[cost].values[i] !== null && board.costs[cost].values[i] <= bound);
  const [best, ...others] = board.names.map((_, i) => i).filter(holds);
  if (best === undefined) return null;
  const p = (i) => board.p[best][i - best - 1];
  const judged = others.filter((i) => p(i) !== null);
  const corrected = (i) => Math.min(1, judged.length * p(i));
  return {
    best,
    judged: judged.length,
    tied: judged.filter((i) => corrected(i) >= 0.05),
    few: others.filter((i) => p(i) === null),
    sure: 1 - Math.max(0, ...judged.map(corrected)),
  };
}

// As analysis.budget.nearest: the row that oversteps its limits by the smallest factor.
function nearest(board, bounds) {
  const value = (i, cost) => board.costs[cost].values[i];
  const known = board.names.map((_, i) => i).filter((i) => bounds.every(([cost]) => value(i, cost) !== null));
  const excess = (i) => Math.max(...bounds.map(([cost, bound]) => (value(i, cost) - bound) / (Math.abs(bound) || 1)));
  return known.reduce((least, i) => (least === undefined || excess(i) < excess(least) ? i : least), undefined);
}

function rowsInWords(count) {
  return count === 1 ? "1 row" : `${count} rows`;
}

function percent(fraction) {
  const tenths = Math.min(999, Math.floor(1000 * fraction));
  return `${Math.floor(tenths / 10)}.${tenths % 10}`;
}

// As analysis.budget.Answer.sentences.
function sentences({ judged, tied, few, sure }) {
  const phrases = data.panel.phrases;
  const values = { sure: percent(sure), judged: rowsInWords(judged), tied: rowsInWords(tied.length), group: tied.length + 1, few: rowsInWords(few.length) };
  const fill = (phrase) => phrase.replace(/{(\w+)}/g, (_, name) => values[name]);
  const said = judged ? [fill(tied.length ? phrases.tied : phrases.alone)] : [];
  if (few.length) said.push(fill(phrases.few));
  return said.length ? said : [phrases.only];
}

function drawPanel() {
  const board = panelBoard();
  const bounds = limits();
  for (const { cost, input, output } of sliders) {
    const bound = steps(cost)[Number(input.value)];
    output.textContent = bound ? `≤ ${bound[1]}` : "any";
  }
  const answer = decide(board, bounds);
  if (answer) drawAnswer(board, answer);
  else drawNearest(board, bounds);
  at("command").textContent = `${data.panel.command} "${bounds.map(([cost, bound]) => `${cost}<=${bound}`).join(",")}"`;
  at("command").parentNode.hidden = bounds.length === 0;
}

function drawAnswer(board, answer) {
  drawBest(board, answer.best, "");
  at("sure").textContent = sentences(answer).join("\n");
  at("sure").className = answer.tied.length || answer.few.length ? "unsettled" : answer.judged ? "settled" : "";
  drawList("tied", board, answer.tied);
  drawList("few", board, answer.few);
}

function drawNearest(board, bounds) {
  const close = nearest(board, bounds);
  at("best").hidden = close === undefined;
  at("best_numbers").textContent = "";
  if (close !== undefined) drawBest(board, close, "Nearest: ");
  at("sure").textContent = board.names.length ? "No row fits this budget." : "No row has a result.";
  at("sure").className = "unsettled";
  drawList("tied", board, []);
  drawList("few", board, []);
}

function drawBest(board, row, before) {
  const costs = sliders.filter(({ cost }) => steps(cost).length > 0).map(({ cost }) => `${cost} ${board.costs[cost].texts[row]}`);
  at("best").hidden = false;
  fillButton(at("best").querySelector("button"), board, row, before + board.names[row]);
  at("best_numbers").textContent = [board.accuracies[row], ...costs].join(" · ");
}

function fillButton(button, board, row, text) {
  button.textContent = text;
  button.onclick = () => chooseRow(board.numbers[row]);
  return button;
}

// The first rows of a list, and a button that shows the others.
function drawList(id, board, rows) {
  at(id).hidden = rows.length === 0;
  const shown = widest ? rows : rows.slice(0, LISTED);
  const lines = shown.map((row) => {
    const line = document.createElement("li");
    const button = document.createElement("button");
    button.className = "row";
    line.append(fillButton(button, board, row, board.names[row]), ` ${board.accuracies[row]}`);
    return line;
  });
  if (rows.length > shown.length) {
    const more = document.createElement("button");
    more.textContent = `and ${rows.length - shown.length} more`;
    more.onclick = () => { widest = true; drawPanel(); };
    const line = document.createElement("li");
    line.append(more);
    lines.push(line);
  }
  at(id).querySelector("ul").replaceChildren(...lines);
}

for (const { input } of sliders) input.addEventListener("input", drawPanel);
