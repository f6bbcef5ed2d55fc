// The singular values of one module: histogram, the curve of pure noise, both thresholds.

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

/** Ranks of the largest eigenvalues against their size, both logarithmic, and the power law that `alpha` fits to them. */
function tailFigure(scan, index, colours) {
  const tail = scan.tails?.[index];
  if (!tail) return "This scan holds not all singular values of this module; scan with --spectra to see its tail.";
  const [ranks, values, fitted] = tail;
  const kept = ranks.map((rank, i) => [values[i] ** 2, rank]).filter(([x]) => x > 0);
  const data = [{ type: "scatter", mode: "markers", x: kept.map(([x]) => x), y: kept.map(([, y]) => y), hoverinfo: "x+y", marker: { color: colours.signal, size: 5 } }];
  let note = "Eigenvalues of WᵀW from the largest down. No power law can be fitted to them.";
  if (fitted.length) {
    const [alpha, least, size] = fitted;
    const [low, high] = [least ** 2, Math.max(values[0], least) ** 2];
    const x = Array.from({ length: 40 }, (_, i) => low * (high / low) ** (i / 39));
    data.push({ type: "scatter", mode: "lines", x, y: x.map((one) => size * (one / low) ** (1 - alpha)), line: { color: colours.curve, width: 2.2 }, hoverinfo: "skip" });
    note = `Eigenvalues of WᵀW from the largest down. Orange: the power law of WeightWatcher's fit, exponent alpha = ${number(alpha)}, over the ${plural(size, "largest value")}.`;
  }
  const layout = baseLayout(colours, { margin: { l: 56, r: 14, t: 18, b: 44 }, shapes: [], annotations: [],
    xaxis: axis(colours, { title: { text: "eigenvalue s²", standoff: 8 }, type: "log", exponentformat: "power" }),
    yaxis: axis(colours, { title: { text: "values as large or larger", standoff: 6 }, type: "log", automargin: true, range: [Math.log10(0.7), Math.log10(1.4 * ranks[ranks.length - 1])] }) });
  return { data, layout, height: 380, note };
}

function spectrumFigure(scan, index, view, colours, width) {
  if (view === "tail") return tailFigure(scan, index, colours);
  const found = spectrumOf(scan, index);
  if (typeof found === "string") return found;
  if (found.end === 0) return "All singular values of this module are zero.";
  const logarithmic = view === "all";
  const bars = histogramBars(found, logarithmic);
  const limit = logarithmic ? null : bulkLimit(found);
  const data = [
    { type: "bar", x: bars.centre, y: bars.height, width: bars.width, text: bars.text, hoverinfo: "text", textposition: "none",
      marker: { color: bars.upper.map((edge) => (edge > (found.used ?? Infinity) ? colours.signal : colours.noise)), line: { width: 0 } } },
    noiseCurve(found, logarithmic, colours),
  ];
  const narrow = width < NARROW;
  const layout = baseLayout(colours, { bargap: 0, shapes: [], annotations: [], margin: { l: 56, r: 14, t: 58, b: 44 },
    xaxis: axis(colours, { title: { text: "singular value", standoff: 8 }, showgrid: false }),
    yaxis: axis(colours, { title: { text: logarithmic ? "values per decade" : "values per unit", standoff: 6 }, automargin: true, exponentformat: "power" }) });
  if (logarithmic) {
    const low = bars.lower[0];
    const ticks = logTicks(low, found.end);
    Object.assign(layout.xaxis, { tickvals: ticks.map(Math.log10), ticktext: ticks.map((tick) => number(tick)), range: [Math.log10(low), Math.log10(found.end * 1.08)] });
    Object.assign(layout.yaxis, { type: "log", dtick: 1 });
  } else {
    layout.xaxis.range = [found.edges[0] > 0 ? found.edges[0] * 0.97 : 0, limit];
    layout.yaxis.rangemode = "tozero";
  }
  addThreshold(layout, found.spectrum, "Spectrum rule", 1, colours.mark, logarithmic, narrow);
  addThreshold(layout, found.mp, "Marchenko–Pastur edge", 0, colours.second, logarithmic, narrow);
  const beyond = logarithmic ? 0 : valuesBeyond(found, limit);
  if (beyond > 0) {
    layout.annotations.push({ xref: "paper", yref: "paper", x: 1, y: 0.5, xanchor: "right", showarrow: false, align: "right",
      text: `${plural(beyond, "value")} beyond, up to ${number(found.end)} →`, font: { size: 11, color: colours.muted }, bgcolor: colours.panel });
  }
  return { data, layout, height: 380, note: spectrumNote(found) };
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
