// The singular values of one module: histogram, the curve of pure noise, both thresholds; those of another scan with it.

/** How many times as wide as its own a plot of the bulk may become for that of another scan. */
const WIDEST = 3;

/** Lines that both the picture and the reader need, or a text that says what is missing. */
function spectrumOf(scan, index) {
  const entry = scan.histogram[index];
  if (entry === null) {
    if (scan.published) return "A published result holds scores only. Scan the checkpoint with spectrum_fast to see spectra.";
    if (index < scan.competing && scan.methods[scan.method[index]] === "fused") {
      return "This parameter fuses several matrices. Each of them has a spectrum of its own: search for its name in the table.";
    }
    return "This scan file holds no histogram for this module; scan again with this version to get one.";
  }
  const edges = histogramEdges(entry);
  const shape = scan.shapes[scan.shape[index]];
  const sides = shape === null ? null : [1, ...shape].sort((a, b) => a - b).slice(-2);
  return { edges, counts: entry[4], knee: entry[1], end: entry[2], sides, total: entry[4].reduce((a, b) => a + b, 0),
    spectrum: scan.threshold_spectrum[index], mp: scan.threshold_mp[index], used: scan.threshold[index] };
}

/** Largest eigenvalues by rank, and the line of the power law that `alpha` fits to them, if it fits one. */
function tailTraces([ranks, values, fitted], marker, line) {
  const kept = ranks.map((rank, i) => [values[i] ** 2, rank]).filter(([x]) => x > 0);
  const data = [{ type: "scatter", mode: "markers", x: kept.map(([x]) => x), y: kept.map(([, y]) => y), hoverinfo: "x+y", marker }];
  if (fitted.length) {
    const [alpha, least, size] = fitted;
    const [low, high] = [least ** 2, Math.max(values[0], least) ** 2];
    const x = Array.from({ length: 40 }, (_, i) => low * (high / low) ** (i / 39));
    data.push({ type: "scatter", mode: "lines", x, y: x.map((one) => size * (one / low) ** (1 - alpha)), line, hoverinfo: "skip" });
  }
  return data;
}

/** Ranks of the largest eigenvalues against their size, both logarithmic; of the module of that name in another scan, too. */
function tailFigure(scan, index, beside, colours) {
  const tail = scan.tails?.[index];
  if (!tail) return "This scan holds not all singular values of this module; scan with --spectra to see its tail.";
  const other = beside?.scan.tails?.[beside.index];
  const data = [
    ...(other ? tailTraces(other, { color: colours.second, size: 6, symbol: "circle-open" }, { color: colours.second, width: 1.6, dash: "dash" }) : []),
    ...tailTraces(tail, { color: colours.signal, size: 5 }, { color: colours.curve, width: 2.2 })];
  const words = ([, , fitted]) => (fitted.length ? `exponent alpha = ${number(fitted[0])}, over the ${plural(fitted[2], "largest value")}` : "no power law can be fitted");
  let note = `Eigenvalues of WᵀW from the largest down, blue. Orange: the power law of WeightWatcher's fit, ${words(tail)}.`;
  if (other) note += ` Green: ${shorten(beside.scan.label, 60)}, ${words(other)}.`;
  const most = Math.max(...[tail, other].filter(Boolean).map(([ranks]) => ranks[ranks.length - 1]));
  const layout = baseLayout(colours, { margin: { l: 56, r: 14, t: 18, b: 44 }, shapes: [], annotations: [],
    xaxis: axis(colours, { title: { text: "eigenvalue s²", standoff: 8 }, type: "log", exponentformat: "power" }),
    yaxis: axis(colours, { title: { text: "values as large or larger", standoff: 6 }, type: "log", automargin: true, range: [Math.log10(0.7), Math.log10(1.4 * most)] }) });
  return { data, layout, height: 380, note };
}

/** One module's singular values; `beside` is `{scan, index}` of what is drawn with it, or null. */
function spectrumFigure(scan, index, beside, view, colours, width) {
  if (view === "tail") return tailFigure(scan, index, beside, colours);
  const found = spectrumOf(scan, index);
  if (typeof found === "string") return found;
  if (found.end === 0) return "All singular values of this module are zero.";
  const logarithmic = view === "all";
  const bars = histogramBars(found, logarithmic);
  const other = beside === null ? null : spectrumOf(beside.scan, beside.index);
  const drawn = other !== null && typeof other !== "string" && other.end > 0;
  let limit = logarithmic ? null : bulkLimit(found);
  if (drawn && !logarithmic && bulkLimit(other) < WIDEST * limit) limit = Math.max(limit, bulkLimit(other));
  const data = [
    { type: "bar", x: bars.centre, y: bars.height, width: bars.width, text: bars.text, hoverinfo: "text", textposition: "none",
      marker: { color: bars.upper.map((edge) => (edge > (found.used ?? Infinity) ? colours.signal : colours.noise)), line: { width: 0 } } },
    noiseCurve(found, logarithmic, colours),
    ...(drawn ? [outlineOf(histogramBars(other, logarithmic), logarithmic, colours)] : []),
  ];
  const narrow = width < NARROW;
  const layout = baseLayout(colours, { bargap: 0, shapes: [], annotations: [], margin: { l: 56, r: 14, t: 58, b: 44 },
    xaxis: axis(colours, { title: { text: "singular value", standoff: 8 }, showgrid: false }),
    yaxis: axis(colours, { title: { text: logarithmic ? "values per decade" : "values per unit", standoff: 6 }, automargin: true, exponentformat: "power" }) });
  if (logarithmic) {
    const low = drawn ? Math.min(bars.lower[0], histogramBars(other, true).lower[0]) : bars.lower[0];
    const high = drawn ? Math.max(found.end, other.end) : found.end;
    const ticks = logTicks(low, high);
    Object.assign(layout.xaxis, { tickvals: ticks.map(Math.log10), ticktext: ticks.map((tick) => number(tick)), range: [Math.log10(low), Math.log10(high * 1.08)] });
    Object.assign(layout.yaxis, { type: "log", dtick: 1 });
  } else {
    const low = drawn ? Math.min(found.edges[0], other.edges[0]) : found.edges[0];
    layout.xaxis.range = [low > 0 ? low * 0.97 : 0, limit];
    layout.yaxis.rangemode = "tozero";
  }
  addThreshold(layout, found.spectrum, "Spectrum rule", 1, colours.mark, logarithmic, narrow);
  addThreshold(layout, found.mp, "Marchenko–Pastur edge", 0, colours.second, logarithmic, narrow);
  const beyond = logarithmic ? 0 : valuesBeyond(found, limit);
  if (beyond > 0) {
    layout.annotations.push({ xref: "paper", yref: "paper", x: 1, y: 0.5, xanchor: "right", showarrow: false, align: "right",
      text: `${plural(beyond, "value")} beyond, up to ${number(found.end)} →`, font: { size: 11, color: colours.muted }, bgcolor: colours.panel });
  }
  const said = drawn ? ` Outline: ${shorten(beside.scan.label, 60)}${other.mp === null ? "" : `, whose Marchenko–Pastur edge is ${number(other.mp)}`}.` : "";
  return { data, layout, height: 380, note: spectrumNote(found) + said };
}

/** The histogram of another scan's module, as a line over the bars. */
function outlineOf(bars, logarithmic, colours) {
  const [x, y] = [[], []];
  bars.lower.forEach((low, bin) => {
    for (const edge of [low, bars.upper[bin]]) {
      x.push(logarithmic ? Math.log10(edge) : edge);
      y.push(bars.height[bin]);
    }
  });
  return { type: "scatter", mode: "lines", x, y, line: { color: colours.ink, width: 1.3 }, hoverinfo: "skip" };
}

/** Bars of the histogram; on a logarithmic axis the height is per decade, and a first edge at zero is moved up. */
function histogramBars({ edges, counts, total }, logarithmic) {
  const bars = { centre: [], height: [], width: [], text: [], lower: [], upper: [] };
  counts.forEach((n, bin) => {
    let [a, b] = [edges[bin], edges[bin + 1]];
    const text = `[${number(a)}, ${number(b)})<br>${plural(n, "value")}, ${percentText(n / total)}`;
    if (logarithmic && a === 0) a = b / 2;
    if (!(b > a)) [a, b] = [a * 0.995, a * 1.005]; // one value, many times
    const [x0, x1] = logarithmic ? [Math.log10(a), Math.log10(b)] : [a, b];
    bars.centre.push((x0 + x1) / 2);
    bars.width.push(x1 - x0);
    bars.height.push(logarithmic && n === 0 ? null : n / (x1 - x0));
    bars.text.push(text);
    bars.lower.push(a);
    bars.upper.push(b);
  });
  return bars;
}

/** Marchenko-Pastur density, for as many values as the module has. */
function noiseCurve({ mp, sides, total, end }, logarithmic, colours) {
  const x = [];
  const y = [];
  if (mp > 0 && sides !== null) {
    const [nMin, nMax] = sides;
    const sigma = mp / (Math.sqrt(nMin) + Math.sqrt(nMax));
    const low = sigma * (Math.sqrt(nMax) - Math.sqrt(nMin));
    const points = 400;
    for (let i = 0; i <= points; i += 1) {
      const s = low + (mp - low) * (0.5 - 0.5 * Math.cos((Math.PI * i) / points));
      if (logarithmic && (s <= 0 || s < end * 1e-7)) continue;
      const density = total * noiseDensity(s, mp, nMin, nMax);
      if (logarithmic && density <= 0) continue;
      x.push(logarithmic ? Math.log10(s) : s);
      y.push(logarithmic ? density * s * Math.LN10 : density);
    }
  }
  return { type: "scatter", mode: "lines", x, y, line: { color: colours.curve, width: 2.2 }, hoverinfo: "skip" };
}

function bulkLimit({ knee, end, spectrum, mp }) {
  const reach = Math.max(knee, spectrum ?? 0, mp ?? 0) * 1.08;
  return end <= reach * 1.35 ? Math.max(end, spectrum ?? 0, mp ?? 0) * 1.04 : reach;
}

function valuesBeyond({ edges, counts }, limit) {
  return counts.reduce((sum, n, bin) => sum + (edges[bin] >= limit ? n : 0), 0);
}

function addThreshold(layout, value, name, level, color, logarithmic, narrow) {
  if (value === null || !(value > 0)) return;
  const x = logarithmic ? Math.log10(value) : value;
  const [low, high] = layout.xaxis.range;
  const side = x > low + 0.7 * (high - low) ? "right" : "left"; // near the border the words would be cut off
  layout.shapes.push({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color, width: 1.8, dash: level ? "dash" : "solid" } });
  layout.annotations.push({ xref: "x", yref: "paper", x, y: 1, yshift: level ? 22 : 4, xanchor: narrow ? "center" : side, yanchor: "bottom", showarrow: false,
    text: `${name} ${number(value)}`, font: { size: 12, color } });
}

function spectrumNote(found) {
  const side = found.used === null ? "" : "Blue: above the threshold that scored this module; grey: at or below it. ";
  const curve = found.mp > 0 && found.sides !== null
    ? "Orange: what pure noise of this shape would look like (Marchenko–Pastur, its scale from the median)."
    : "The file does not tell the quantiles or the shape, so neither noise curve nor thresholds are drawn.";
  return side + curve;
}
