// From the embedded columns to what the figures use.

/** Undo base64 and gzip. */
async function unpack(id) {
  const node = document.getElementById(id);
  const bytes = Uint8Array.from(atob(node.textContent), (letter) => letter.charCodeAt(0));
  node.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** Columns of one scan, with indices by name, by row of the heat map and by cell. */
function prepareScan(raw) {
  const scan = { ...raw, size: raw.name.length, groupCache: new Map() };
  scan.byName = new Map(raw.name.map((name, index) => [name, index]));
  scan.hasExperts = raw.expert.some((expert) => expert >= 0);
  scan.hasSpectra = raw.histogram.some((entry) => entry !== null);
  scan.rowNames = [...new Set(raw.merged)];
  const rowOfName = new Map(scan.rowNames.map((name, row) => [name, row]));
  const rowOfType = raw.merged.map((name) => rowOfName.get(name));
  scan.row = raw.type.map((type) => rowOfType[type]);
  const layers = raw.layer.filter((layer) => layer >= 0);
  Object.assign(scan, layerRange(layers));
  buildCells(scan, rowOfName);
  scan.maps = buildMaps(scan);
  return scan;
}

function layerRange(layers) {
  return { firstLayer: layers.reduce((a, b) => Math.min(a, b), Infinity), lastLayer: layers.reduce((a, b) => Math.max(a, b), -Infinity) };
}

/** A heat map for each tower: its rows and its layers. The language model's comes first. */
function buildMaps(scan) {
  const towers = new Map();
  for (const row of scan.rows) {
    if (towers.has(row.tower)) towers.get(row.tower).push(row);
    else towers.set(row.tower, [row]);
  }
  const maps = [...towers].map(([tower, rows]) => ({ tower, rows, ...layerRange(rows.flatMap((row) => [...row.cells.keys()])) }));
  return maps.sort((a, b) => (b.tower === "language-model") - (a.tower === "language-model"));
}

// A layer's number comes from a name; a heat map of a billion columns is of no use to anyone.
const MOST_LAYERS = 2000;

/** Rows that have layers, each with its cells: layer -> indices of modules; and the modules outside layers. */
function buildCells(scan, rowOfName) {
  const usable = scan.lastLayer - scan.firstLayer < MOST_LAYERS;
  const towerOfRow = new Map(scan.merged.map((name, type) => [name, scan.towers[type]]));
  const rows = scan.rowNames.map((name) => ({ name, tower: towerOfRow.get(name), cells: new Map(), failed: new Map() }));
  scan.outside = [];
  scan.layer.forEach((layer, index) => {
    if (layer < 0 || !usable) {
      scan.outside.push(index);
      return;
    }
    const cells = rows[scan.row[index]].cells;
    if (cells.has(layer)) cells.get(layer).push(index);
    else cells.set(layer, [index]);
  });
  for (const failure of scan.failures) {
    const row = rowOfName.get(failure.type);
    if (failure.layer >= 0 && usable && row !== undefined) rows[row].failed.set(failure.layer, failure);
  }
  scan.rows = rows.filter((row) => row.cells.size > 0);
}

/** Mean or median of the finite scores, the number of noise-free ones, and the number in all. */
function summarise(scan, indices, how) {
  const finite = [];
  let noiseFree = 0;
  for (const index of indices) {
    if (scan.snr[index] === null) noiseFree += 1;
    else finite.push(scan.snr[index]);
  }
  return { value: finite.length ? average(finite, how) : null, noiseFree, size: indices.length };
}

function average(values, how) {
  if (how === "mean") return values.reduce((sum, value) => sum + value, 0) / values.length;
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : 0.5 * (sorted[middle - 1] + sorted[middle]);
}

function scoreText(scan, index) {
  return scan.snr[index] === null ? "noise-free" : number(scan.snr[index]);
}

function shapeText(scan, index) {
  const shape = scan.shapes[scan.shape[index]];
  return shape === null ? "–" : shape.join(" × ");
}

/** Edges of a histogram's bins: equal width up to the knee, equal ratio above it. */
function histogramEdges([start, knee, end, linear, counts]) {
  const edges = [];
  for (let i = 0; i <= linear; i += 1) edges.push(start + ((knee - start) * i) / linear);
  const tail = counts.length - linear;
  for (let i = 1; i <= tail; i += 1) edges.push(knee * (end / knee) ** (i / tail));
  return edges;
}

/** Density of the singular values of noise whose upper edge is `edge`; its integral is 1. */
function noiseDensity(s, edge, nMin, nMax) {
  const sigma = edge / (Math.sqrt(nMin) + Math.sqrt(nMax));
  const low = sigma * (Math.sqrt(nMax) - Math.sqrt(nMin));
  const inside = (s * s - low * low) * (edge * edge - s * s);
  const scale = Math.PI * sigma * sigma * nMin;
  if (s <= 0) return nMin === nMax ? edge / scale : 0;
  return inside > 0 ? Math.sqrt(inside) / (scale * s) : 0;
}
