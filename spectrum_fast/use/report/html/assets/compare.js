// Two scans side by side: modules of one name are pairs. Only what competes is compared.

const MOST_POINTS = 4000;

/** Pairs of modules, in the order of `a`; and both sides reduced to them, ready to be selected from. */
function pairScans(a, b) {
  const pairs = [];
  for (let index = 0; index < a.competing; index += 1) {
    const other = b.byName.get(a.name[index]);
    if (other !== undefined && other < b.competing) pairs.push([index, other]);
  }
  return { a, b, pairs, onlyA: a.competing - pairs.length, onlyB: b.competing - pairs.length,
    sideA: subset(a, pairs.map((pair) => pair[0])), sideB: subset(b, pairs.map((pair) => pair[1])) };
}

/** A scan of these modules alone, as far as a selection needs it; nothing is trained always. */
function subset(scan, indices) {
  const pick = (column) => indices.map((index) => column[index]);
  return { size: indices.length, competing: indices.length, name: pick(scan.name), type: pick(scan.type), types: scan.types, merged: scan.merged, bare: scan.bare,
    snr: pick(scan.snr), order: pick(scan.order), error_bound: pick(scan.error_bound), always: new Uint8Array(indices.length),
    unit: indices.map((_, place) => place), ties_always: [], groupCache: new Map() };
}

/** Selections on both sides, overlap, differences and rank correlation; the quantities of `spectrum-fast compare`. */
function comparePairs(paired, percent, grouping) {
  const { a, b, pairs } = paired;
  const stateA = selectModules(paired.sideA, percent, grouping).state;
  const stateB = selectModules(paired.sideB, percent, grouping).state;
  let [nA, nB, both] = [0, 0, 0];
  const relative = [];
  pairs.forEach(([ia, ib], place) => {
    nA += stateA[place];
    nB += stateB[place];
    both += stateA[place] & stateB[place];
    const [x, y] = [a.snr[ia], b.snr[ib]];
    if (x === null && y === null) relative.push(0);
    else if (x !== null && y !== null) relative.push(Math.max(x, y) > 0 ? Math.abs(x - y) / Math.max(x, y) : 0);
  });
  const union = nA + nB - both;
  const correlation = (some) => spearman(some.map((pair) => a.snr[pair[0]]), some.map((pair) => b.snr[pair[1]]));
  return { stateA, stateB, nA, nB, both, jaccard: union ? both / union : 1, median: comparable(paired) && relative.length ? average(relative, "median") : null,
    spearman: correlation(pairs), within: meanWithinTypes(a, pairs, correlation) };
}

/** Mean of the correlation in each type where it is defined, weighted by modules; types differ in scale in every model. */
function meanWithinTypes(a, pairs, correlation) {
  const types = new Map();
  for (const pair of pairs) {
    const type = a.type[pair[0]];
    if (types.has(type)) types.get(type).push(pair);
    else types.set(type, [pair]);
  }
  let [sum, weight] = [0, 0];
  for (const members of types.values()) {
    const value = correlation(members);
    if (value === null) continue;
    sum += value * members.length;
    weight += members.length;
  }
  return weight ? sum / weight : null;
}

/** Whether the scores of both are on one scale. */
function comparable(paired) {
  return paired.a.criterion === paired.b.criterion;
}

function ratio(paired, [ia, ib]) {
  const [x, y] = [paired.a.snr[ia], paired.b.snr[ib]];
  return x > 0 && y > 0 ? Math.log2(y / x) : null;
}

function differenceFigure(paired, result, colours, width) {
  const { a, pairs } = paired;
  if (!comparable(paired)) return "Scores of two criteria have no common scale, so there is no difference to draw; their ranks are compared below.";
  const rowOf = new Map(a.rows.map((row, place) => [row.name, place]));
  const cells = a.rows.map(() => new Map());
  pairs.forEach((pair, place) => {
    const row = rowOf.get(a.rowNames[a.row[pair[0]]]);
    const layer = a.layer[pair[0]];
    if (row === undefined || layer < 0) return;
    if (cells[row].has(layer)) cells[row].get(layer).push(place);
    else cells[row].set(layer, [place]);
  });
  const rows = a.rows.map((_, row) => row).filter((row) => cells[row].size);
  if (!rows.length) return "The two scans share no module that lies in a numbered layer.";
  const first = a.firstLayer;
  const columns = a.lastLayer - first + 1;
  const z = rows.map(() => new Array(columns).fill(null));
  const text = rows.map(() => new Array(columns).fill(""));
  const shares = rows.map(() => new Float64Array(columns));
  const sizes = [];
  rows.forEach((row, r) => {
    for (const [layer, places] of cells[row]) {
      const values = places.map((place) => ratio(paired, pairs[place])).filter((value) => value !== null);
      const mean = values.length ? average(values, "mean") : null;
      const changed = places.filter((place) => result.stateA[place] !== result.stateB[place]).length;
      z[r][layer - first] = mean;
      shares[r][layer - first] = changed / places.length;
      if (mean !== null) sizes.push(Math.abs(mean));
      text[r][layer - first] = places.length === 1 ? pairText(paired, result, places[0])
        : [`<b>${label(a.rows[row].name)}</b>, layer ${layer}`, `${plural(places.length, "pair")}, mean factor ${mean === null ? "–" : number(2 ** mean)}`, `${count(changed)} selected by one only`].join("<br>");
    }
  });
  // A few extreme cells must not make all others pale.
  const reach = sizes.sort((p, q) => p - q)[Math.floor(0.97 * (sizes.length - 1))] || 0.01;
  const ticks = [-reach, -reach / 2, 0, reach / 2, reach];
  const grid = { rows: rows.map((row) => a.rows[row].name), first, columns, z, text, stars: [], crosses: [], share: (r, c) => shares[r][c],
    heat: { zmin: -reach, zmax: reach, colorscale: colours === THEMES.dark ? DIVERGING_DARK : DIVERGING,
      colorbar: { titleText: "SNR factor, B / A", tickvals: ticks, ticktext: ticks.map((tick) => `×${number(2 ** tick, 3)}`) } } };
  return { ...gridFigure(grid, colours, width), note: "Red: the score is higher in B; blue: higher in A. Pink outline: selected by one of the two only." };
}

function pairText(paired, result, place) {
  const [ia, ib] = paired.pairs[place];
  const chosen = ["selected by neither", "selected by A only", "selected by B only", "selected by both"][result.stateA[place] + 2 * result.stateB[place]];
  const change = comparable(paired) ? ratio(paired, paired.pairs[place]) : null;
  return [`<b>${label(paired.a.name[ia])}</b>`, `A ${scoreText(paired.a, ia)}, B ${scoreText(paired.b, ib)}`, change === null ? null : `factor ${number(2 ** change)}`, chosen]
    .filter((line) => line !== null).join("<br>");
}

function scatterFigure(paired, result, colours, width) {
  const { a, b, pairs } = paired;
  const places = pairs.map((_, place) => place).filter((place) => ratio(paired, pairs[place]) !== null);
  if (!places.length) return "No module has a finite score above zero in both scans.";
  const x = places.map((place) => a.snr[pairs[place][0]]);
  const y = places.map((place) => b.snr[pairs[place][1]]);
  const low = Math.min(x.reduce((p, q) => Math.min(p, q)), y.reduce((p, q) => Math.min(p, q))) / 1.15;
  const high = Math.max(x.reduce((p, q) => Math.max(p, q)), y.reduce((p, q) => Math.max(p, q))) * 1.15;
  const equal = { type: "scatter", mode: "lines", x: [low, high], y: [low, high], showlegend: false, line: { color: colours.muted, width: 1, dash: "dot" }, hoverinfo: "skip" };
  const data = comparable(paired) ? [equal] : [];
  const many = places.length > MOST_POINTS;
  if (many) data.push(densityTrace(x, y, low, high, colours));
  const kinds = [["neither", colours.faint, 0], ["both", colours.signal, 3], ["A only", colours.curve, 1], ["B only", colours.second, 2]];
  for (const [name, color, kind] of kinds) {
    if (many && kind % 3 === 0) continue;
    const members = places.map((place, i) => [place, i]).filter(([place]) => result.stateA[place] + 2 * result.stateB[place] === kind).slice(0, MOST_POINTS);
    data.push({ type: "scatter", mode: "markers", name, showlegend: true, x: members.map(([, i]) => x[i]), y: members.map(([, i]) => y[i]), customdata: members.map(([place]) => pairs[place][0]),
      text: members.map(([place]) => pairText(paired, result, place)), hoverinfo: "text", marker: { color, size: many ? 4 : 6, opacity: 0.85 } });
  }
  const scoreAxis = (title) => axis(colours, { type: "log", range: [Math.log10(low), Math.log10(high)], title: { text: title, standoff: 6 }, tickvals: logTicks(low, high), ticktext: logTicks(low, high).map((tick) => number(tick)) });
  const layout = baseLayout(colours, { showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", title: { text: "selected by " } },
    margin: { l: 8, r: 12, t: 34, b: 8 }, xaxis: scoreAxis(`SNR in A, ${label(a.label, 30)}`), yaxis: scoreAxis(`SNR in B, ${label(b.label, 30)}`) });
  return { data, layout, height: Math.min(520, Math.max(340, width)), note: many ? "Shade: how many modules; points: those that one of the two selects and the other does not." : "" };
}

/** Counts on a logarithmic grid, for more points than a browser draws at ease. */
function densityTrace(x, y, low, high, colours) {
  const bins = 90;
  const place = (value) => Math.min(bins - 1, Math.floor((bins * Math.log(value / low)) / Math.log(high / low)));
  const z = Array.from({ length: bins }, () => new Array(bins).fill(0));
  x.forEach((value, i) => (z[place(y[i])][place(value)] += 1));
  const centres = Array.from({ length: bins }, (_, bin) => low * (high / low) ** ((bin + 0.5) / bins));
  return { type: "heatmap", x: centres, y: centres, z: z.map((line) => line.map((n) => (n ? Math.log10(n) : null))), hoverinfo: "skip", showscale: false,
    colorscale: [[0, colours.grid], [1, colours.signal]] };
}

function overlapFigure(paired, result, colours, width) {
  const { a, pairs } = paired;
  const rows = new Map();
  pairs.forEach(([ia], place) => {
    const name = a.rowNames[a.row[ia]];
    if (!rows.has(name)) rows.set(name, [0, 0, 0, 0]);
    rows.get(name)[result.stateA[place] + 2 * result.stateB[place]] += 1;
  });
  const shown = [...rows].filter(([, counts]) => counts[1] + counts[2] + counts[3] > 0);
  if (!shown.length) return "Neither scan takes a module at this percentage.";
  const y = shown.map((_, place) => place);
  const bar = (name, kind, color) => ({ type: "bar", orientation: "h", name, showlegend: true, y, x: shown.map(([, counts]) => counts[kind]), marker: { color }, hoverinfo: "text",
    textposition: "none", text: shown.map(([row, counts]) => `<b>${label(row)}</b><br>${name}: ${count(counts[kind])}`) });
  const narrow = width < NARROW;
  const layout = baseLayout(colours, { barmode: "stack", bargap: 0.3, showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal", title: { text: "selected by " } }, margin: { l: 8, r: 12, t: 34, b: 8 },
    xaxis: axis(colours, { title: { text: "modules", standoff: 6 } }),
    yaxis: axis(colours, { tickvals: y, ticktext: shown.map(([name]) => label(name, narrow ? 17 : LABEL_ROOM)), range: [shown.length - 0.5, -0.5], showgrid: false, ticks: "", tickfont: { color: colours.ink } }) });
  return { data: [bar("both", 3, colours.signal), bar("A only", 1, colours.curve), bar("B only", 2, colours.second)], layout, height: Math.max(240, shown.length * 26 + 100), note: "" };
}
