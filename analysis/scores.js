"use strict";
// The figures of scores across models and data sets. The numbers are analysis/scores.py's.
function drawScores() {
  const level = at("level").value;
  const { ranks, profiles } = data.scores[level];
  draw("ranks", ranks.data, ranks.layout);
  draw("profiles", profiles.data, profiles.layout);
  for (const text of document.querySelectorAll(".level")) text.hidden = text.dataset.level !== level;
}

if (at("level")) {
  at("level").addEventListener("change", drawScores);
  drawScores();
}
