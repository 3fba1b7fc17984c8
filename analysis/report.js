"use strict";
// Sorting, filtering and drawing of the report. Whatever comes from a record is text here, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const narrow = () => window.innerWidth < 700;
const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

function layout(own) {
  const legend = narrow() ? { orientation: "h", yref: "container", y: 0, yanchor: "bottom" } : { orientation: "v" };
  const axis = { automargin: true, gridcolor: "#e5e9ee", zeroline: false };
  const base = { legend, font: { family: "system-ui, sans-serif", size: 13 }, hovermode: "closest", paper_bgcolor: "#fff", plot_bgcolor: "#fff" };
  const margin = narrow() ? { l: 45, r: 10, t: 30, b: 40 } : { l: 60, r: 20, t: 30, b: 50 };
  return { ...base, margin, ...own, xaxis: { ...axis, ...own.xaxis }, yaxis: { ...axis, ...own.yaxis } };
}

function draw(id, traces, own) {
  return Plotly.react(at(id), traces, layout(own), config);
}

// Plotly reads HTML in names and ticks.
function escaped(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function drawBoard() {
  const figures = data.figures[at("key").value];
  draw("sparsity", figures.sparsity.data, figures.sparsity.layout);
  const pareto = figures[at("cost").value];
  draw("pareto", pareto.data, pareto.layout);
}

function drawRow() {
  const row = data.rows[at("row").value];
  const titles = { val_top1: "validation top-1 (%)", loss: "training loss" };
  for (const [id, title] of Object.entries(titles)) {
    at(id).hidden = row[id].length === 0;
    if (row[id].length) draw(id, row[id], { xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: title } }, showlegend: true });
  }
  at("curveless").hidden = row.loss.length > 0;
  drawLayers(Object.keys(row.layers), Object.values(row.layers));
  for (const line of document.querySelectorAll("tr[data-row]")) line.classList.toggle("chosen", line.dataset.row === at("row").value);
}

function drawLayers(names, percents) {
  at("layers").hidden = names.length === 0;
  if (!names.length) return;
  const shown = names.map(escaped);
  const bars = { type: "bar", orientation: "h", x: percents, y: shown, marker: { color: "#0072B2" }, hovertemplate: "%{y}: %{x:.2f}%<extra></extra>" };
  const yaxis = { type: "category", autorange: "reversed", tickfont: { size: narrow() ? 9 : 11 }, dtick: names.length > 200 ? undefined : 1 };
  draw("layers", [bars], { height: Math.max(240, 90 + 18 * names.length), xaxis: { title: { text: "zeros (%)" }, range: [0, 100] }, yaxis, bargap: 0.25 });
}

function chooseKey() {
  const key = at("key").value;
  for (const board of document.querySelectorAll(".board")) board.hidden = board.dataset.key !== key;
  for (const option of at("row").options) option.hidden = option.disabled = option.dataset.key !== key;
  at("row").value = [...at("row").options].find((option) => !option.disabled).value;
  filter();
  resetPanel();
  drawBoard();
  drawRow();
}

function filter() {
  const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const lines = [...document.querySelectorAll(`.board:not([hidden]) tr[data-row]`)];
  for (const line of lines) {
    const text = [...line.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
    line.hidden = !words.every((word) => text.includes(word));
  }
  at("count").textContent = `${lines.filter((line) => !line.hidden).length} of ${lines.length} rows`;
}

// Numbers by size, texts by alphabet; what is unknown stays last either way.
function sort(header) {
  const column = header.cellIndex;
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = header.closest("table").tBodies[0];
  const value = (line) => line.cells[column].dataset.value;
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  const known = [...body.rows].filter((line) => value(line) !== "");
  const unknown = [...body.rows].filter((line) => value(line) === "");
  known.sort((a, b) => (ascending ? 1 : -1) * compare(value(a), value(b)));
  body.append(...known, ...unknown);
}

for (const header of document.querySelectorAll(".board thead th")) {
  if (header.querySelector("button")) header.querySelector("button").addEventListener("click", () => sort(header));
}
function chooseRow(number) {
  at("row").value = number;
  drawRow();
}

for (const line of document.querySelectorAll("tr[data-row]")) line.addEventListener("click", () => chooseRow(line.dataset.row));
at("filter").addEventListener("input", filter);
at("key").addEventListener("change", chooseKey);
at("cost").addEventListener("change", drawBoard);
at("row").addEventListener("change", drawRow);
chooseKey();
