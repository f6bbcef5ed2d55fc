// Layer by module type: colour is the score, the outline is the selection.

const ROW_HEIGHT = 25;
const LABEL_ROOM = 26;

/**
 * What both heat maps (scores here, differences in compare.js) share: a grid with row labels, layers below, an outline.
 *
 * `grid` has `rows` (names), `first` (layer of the first column), `columns`, `z`, `text`, `share(row, column)` (part of
 * the cell's modules that is selected), `stars`, `crosses` (lists of [row, column, text]), and `heat` (trace options).
 */
function gridFigure(grid, colours, width) {
  const { rows, first, columns } = grid;
  const narrow = width < NARROW;
  const lines = outline((row, column) => grid.share(row, column) >= 1, rows.length, columns, grid.byRow ?? true);
  const bars = { x: [], y: [] };
  rows.forEach((_, row) => {
    for (let column = 0; column < columns; column += 1) {
      const share = grid.share(row, column);
      if (share <= 0 || share >= 1) continue;
      bars.x.push(column - 0.42, column - 0.42 + 0.84 * share, null);
      bars.y.push(row + 0.38, row + 0.38, null);
    }
  });
  const cellWidth = (width - 190) / columns;
  const gap = cellWidth > 7 ? 1 : 0;
  const height = rows.length * (grid.rowHeight ?? ROW_HEIGHT) + (narrow ? 120 : 62);
  const data = [
    { type: "heatmap", z: grid.z, text: grid.text, hoverinfo: "text", xgap: gap, ygap: gap, colorscale: SCALE, hoverongaps: false,
      colorbar: colourBar(grid.heat.colorbar, colours, narrow), ...without(grid.heat, "colorbar") },
    lineTrace(bars, colours.mark, 2.5),
    lineTrace(lines, colours.mark, 2),
    markTrace(grid.stars, "star", colours.mark, Math.min(11, Math.max(5, cellWidth * 0.7))),
    markTrace(grid.crosses, "x", colours.curve, Math.min(9, Math.max(4, cellWidth * 0.5))),
  ];
  const step = Math.max(1, Math.ceil(columns / Math.max(4, Math.floor(width / 60))));
  const every = [1, 2, 4, 5, 8, 10, 20, 25, 50, 100, 200, 500].find((size) => size >= step) ?? step;
  const ticks = [];
  for (let column = 0; column < columns; column += 1) if ((first + column) % every === 0) ticks.push(column);
  const layout = baseLayout(colours, {
    plot_bgcolor: colours.empty,
    margin: { l: 8, r: 8, t: 6, b: narrow ? 92 : 40 },
    xaxis: axis(colours, { title: { text: "layer", standoff: 6 }, tickvals: ticks, ticktext: ticks.map((t) => String(first + t)), range: [-0.5, columns - 0.5], showgrid: false }),
    yaxis: axis(colours, { tickvals: grid.tickRows ?? rows.map((_, row) => row), ticktext: grid.tickText ?? rows.map((name) => label(name, narrow ? 17 : LABEL_ROOM)),
      range: [rows.length - 0.5, -0.5], showgrid: false, ticks: "", tickfont: { color: colours.ink, size: narrow ? 10 : 12 }, title: { text: grid.rowTitle ?? "" } }),
  });
  return { data, layout, height };
}

function without(object, key) {
  const { [key]: _, ...rest } = object;
  return rest;
}

function colourBar(extra, colours, narrow) {
  const place = narrow
    ? { orientation: "h", y: 0, yref: "container", yanchor: "bottom", x: 0.5, len: 0.96, thickness: 9, title: { text: extra.titleText, side: "right" } }
    : { thickness: 12, outlinewidth: 0, len: 1, title: { text: extra.titleText, side: "right" } };
  return { outlinewidth: 0, tickfont: { color: colours.muted, size: 11 }, ticklen: 3, ...place, ...without(extra, "titleText") };
}

function lineTrace(lines, color, width) {
  return { type: "scatter", mode: "lines", x: lines.x, y: lines.y, line: { color, width }, hoverinfo: "skip" };
}

function markTrace(marks, symbol, color, size) {
  return { type: "scatter", mode: "markers", x: marks.map((mark) => mark[1]), y: marks.map((mark) => mark[0]),
    text: marks.map((mark) => mark[2]), hoverinfo: "text", marker: { symbol, color, size, line: { width: 0.5, color: "#ffffff" } } };
}

/**
 * One heat map of a scan, of `map.tower`. `colour` is "score", "rank" or one of `scan.quantities`; `how` says how a cell
 * of several modules is summarised.
 */
function heatmapFigure(scan, map, selection, { colour, how }, colours, width) {
  if (!map) return "No module of this scan lies in a numbered layer, so there is no heat map; see the table below.";
  const first = map.firstLayer;
  const columns = map.lastLayer - first + 1;
  const stars = [];
  const crosses = [];
  const quantity = scan.quantities[colour];
  const values = map.rows.map(() => new Array(columns).fill(null));
  const text = map.rows.map(() => new Array(columns).fill(""));
  const shares = map.rows.map(() => new Float64Array(columns));
  map.rows.forEach((row, r) => {
    for (const [layer, indices] of row.cells) {
      const c = layer - first;
      const cell = summarise(scan, indices, how);
      const taken = indices.reduce((sum, index) => sum + (selection.state[index] > 0), 0);
      shares[r][c] = taken / indices.length;
      values[r][c] = colour === "rank" ? relativeRank(scan, selection, indices) : quantity ? quantityOf(quantity, indices, how) : cell.value;
      text[r][c] = cellText(scan, selection, row, layer, indices, cell, taken, how);
      if (quantity) text[r][c] += `<br>${colour} ${values[r][c] === null ? "not known" : number(values[r][c])}`;
      else if (cell.value === null) stars.push([r, c, text[r][c]]);
    }
    for (const [layer, failure] of row.failed) {
      crosses.push([r, layer - first, `${label(failure.name)}<br>no score: ${label(failure.kind)}`]);
    }
  });
  const scale = colour === "rank"
    ? { transform: (value) => value, zmin: 0, zmax: 100, colorbar: { tickvals: [0, 25, 50, 75, 100], ticktext: ["last", "", "middle", "", "first"] } }
    : scoreScale(values.flat());
  const title = colour === "rank" ? "rank in its group" : quantity ? `${colour}${scan.hasExperts ? ` (${how} of a cell)` : ""}` : scan.hasExperts ? `SNR (${how} of a cell)` : "SNR";
  const grid = {
    rows: map.rows.map((row) => row.name), first, columns, text, stars, crosses,
    z: values.map((line) => line.map(scale.transform)),
    share: (row, column) => shares[row][column],
    heat: { zmin: scale.zmin, zmax: scale.zmax, colorbar: { ...scale.colorbar, titleText: title } },
  };
  const parts = ["Pink outline: selected."];
  if (map.rows.some((row) => [...row.cells.values()].some((indices) => indices.length > 1))) {
    parts.push("A bar along a cell: that part of its modules is selected. Click a cell of experts to open it.");
  }
  if (stars.length) parts.push("★ noise-free: no singular value at or below the threshold, ranks above every score.");
  if (crosses.length) parts.push("✕ no score (see failures).");
  return { ...gridFigure(grid, colours, width), note: parts.join(" ") };
}

/** Of the modules of a cell that have it. */
function quantityOf(column, indices, how) {
  const known = indices.map((index) => column[index]).filter((value) => value !== null);
  return known.length ? average(known, how) : null;
}

/** 100 for the best of a group, 0 for the last; the mean over the modules of a cell. */
function relativeRank(scan, selection, indices) {
  const places = [];
  for (const index of indices) {
    const group = selection.groupSize[index];
    if (selection.rank[index] > 0) places.push(group > 1 ? (100 * (group - selection.rank[index])) / (group - 1) : 100);
  }
  return places.length ? average(places, "mean") : null;
}

function cellText(scan, selection, row, layer, indices, cell, taken, how) {
  if (indices.length === 1) return moduleText(scan, selection, indices[0]);
  const lines = [`<b>${label(row.name)}</b>, layer ${layer}`, `${plural(indices.length, "module")}, ${count(taken)} selected`];
  lines.push(cell.value === null ? "all noise-free" : `${how} SNR ${number(cell.value)}`);
  if (cell.noiseFree && cell.value !== null) lines.push(`${count(cell.noiseFree)} noise-free, not in the ${how}`);
  return lines.join("<br>");
}

/** What hovering over a module says. */
function moduleText(scan, selection, index) {
  const lines = [`<b>${label(scan.name[index])}</b>`, `SNR ${scoreText(scan, index)}`];
  const state = selection.state[index];
  if (selection.rank[index] > 0) lines.push(`rank ${count(selection.rank[index])} of ${count(selection.groupSize[index])}`);
  lines.push(["left out", "selected", "trained always"][state]);
  return lines.join("<br>");
}
