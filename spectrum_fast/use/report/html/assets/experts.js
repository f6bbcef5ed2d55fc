// One row of the heat map opened: layer by expert, for a projection whose experts share a row.

/** Whether the modules of this row are told apart by an expert's number, one a layer. */
function isExpertRow(scan, row) {
  return [...row.cells.values()].every((indices) => new Set(indices.map((index) => scan.expert[index])).size === indices.length) &&
    [...row.cells.values()].some((indices) => indices.length > 1 && indices.every((index) => scan.expert[index] >= 0));
}

const MOST_EXPERTS = 4096;

function expertsFigure(scan, selection, row, colours, width) {
  const layers = [...row.cells.keys()];
  const first = layers.reduce((a, b) => Math.min(a, b));
  const columns = layers.reduce((a, b) => Math.max(a, b)) - first + 1;
  let experts = 0;
  for (const indices of row.cells.values()) for (const index of indices) experts = Math.max(experts, scan.expert[index] + 1);
  if (experts > MOST_EXPERTS) return `The highest number of an expert is ${count(experts - 1)}: too many rows to draw; see the table.`;
  const values = Array.from({ length: experts }, () => new Array(columns).fill(null));
  const text = Array.from({ length: experts }, () => new Array(columns).fill(""));
  const chosen = Array.from({ length: experts }, () => new Uint8Array(columns));
  const stars = [];
  for (const [layer, indices] of row.cells) {
    for (const index of indices) {
      const expert = scan.expert[index];
      if (expert < 0) continue;
      values[expert][layer - first] = scan.snr[index];
      text[expert][layer - first] = moduleText(scan, selection, index);
      chosen[expert][layer - first] = selection.state[index] > 0;
      if (scan.snr[index] === null) stars.push([expert, layer - first, text[expert][layer - first]]);
    }
  }
  const scale = scoreScale(values.flat());
  const step = Math.max(1, 2 ** Math.ceil(Math.log2(experts / 16)));
  const ticks = [];
  for (let expert = 0; expert < experts; expert += step) ticks.push(expert);
  const grid = {
    rows: values.map((_, expert) => String(expert)), first, columns, text, stars, crosses: [],
    z: values.map((line) => line.map(scale.transform)), share: (r, c) => chosen[r][c],
    heat: { zmin: scale.zmin, zmax: scale.zmax, colorbar: { ...scale.colorbar, titleText: "SNR" } },
    rowHeight: Math.max(2.2, Math.min(ROW_HEIGHT, 560 / experts)), tickRows: ticks, tickText: ticks.map(String), rowTitle: "expert", byRow: false,
  };
  return { ...gridFigure(grid, colours, width), note: "Pink outline: selected. Click a cell to see that expert's spectrum." };
}

/** The module at a cell of the opened row. */
function expertAt(row, scan, layerColumn, expert) {
  const layers = [...row.cells.keys()];
  const first = layers.reduce((a, b) => Math.min(a, b));
  const indices = row.cells.get(first + layerColumn) ?? [];
  return indices.find((index) => scan.expert[index] === expert) ?? null;
}
