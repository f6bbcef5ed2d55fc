// Scores of each group from best to worst, with the cut and the gap at it.

const MOST_MULTIPLES = 24;
const LONG = 1500;

/** Small multiples of all groups, or one group alone. */
function ranksFigure(scan, selection, groupName, colours, width) {
  const competing = selection.cuts.filter((cut) => cut.size > 1);
  if (!competing.length) return "No group of this scan has two modules that compete, so there is no cut to show.";
  const shown = groupName === "" ? competing.slice(0, MOST_MULTIPLES) : competing.filter((cut) => cut.name === groupName);
  if (!shown.length) return "This group is not there in this grouping; choose another.";
  const columns = shown.length === 1 ? 1 : width < NARROW ? 1 : width < 900 ? 2 : Math.min(4, shown.length);
  const rows = Math.ceil(shown.length / columns);
  const plotHeight = shown.length === 1 ? 330 : width < NARROW ? 118 : 128;
  const headroom = 66; // the group's name above, the ticks below
  const height = rows * (plotHeight + headroom) + 34;
  const data = [];
  const layout = baseLayout(colours, { shapes: [], annotations: [], margin: { l: 46, r: 12, t: 4, b: 34 } });
  const innerWidth = width - 58;
  const innerHeight = height - 38;
  const gutter = columns > 1 ? 42 / innerWidth : 0;
  const cellWidth = (1 - gutter * (columns - 1)) / columns;
  const cellHeight = (plotHeight + headroom) / innerHeight;
  shown.forEach((cut, place) => {
    const column = place % columns;
    const row = Math.floor(place / columns);
    const left = column * (cellWidth + gutter);
    const top = 1 - row * cellHeight;
    const suffix = place === 0 ? "" : String(place + 1);
    const domain = [Math.max(0, top - cellHeight + (row === rows - 1 ? 0 : 30 / innerHeight)), top - 37 / innerHeight];
    const values = cut.members.map((index) => scan.snr[index]);
    const finite = values.filter((value) => value !== null && value > 0);
    const high = finite.reduce((a, b) => Math.max(a, b), 0) || 1;
    const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
    const log = finite.length > 0 && high / low > 8;
    const ceiling = log ? high * (high / low) ** 0.12 : high * 1.08;
    layout[`xaxis${suffix}`] = axis(colours, { domain: [left, left + cellWidth], anchor: `y${suffix}`, range: [0.3, cut.size + 0.7], showgrid: false, tickfont: { size: 10 }, nticks: 6,
      title: row === rows - 1 || place + columns >= shown.length ? { text: "rank", standoff: 2, font: { size: 11 } } : undefined });
    layout[`yaxis${suffix}`] = axis(colours, { domain, anchor: `x${suffix}`, type: log ? "log" : "linear", tickfont: { size: 10 }, nticks: 4, automargin: false,
      ...(log ? logAxis(low, high) : { rangemode: "tozero" }), title: column === 0 ? { text: "SNR", standoff: 2, font: { size: 11 } } : undefined });
    data.push(...curveTraces(scan, selection, cut, ceiling, suffix, colours));
    layout.annotations.push(
      { xref: "paper", yref: "paper", x: left, y: top, xanchor: "left", yanchor: "top", showarrow: false, align: "left",
        text: `<b>${label(cut.name, shown.length === 1 ? 80 : 28)}</b>`, font: { size: 12, color: colours.ink } },
      { xref: "paper", yref: "paper", x: left, y: top - 16 / innerHeight, xanchor: "left", yanchor: "top", showarrow: false,
        text: cutText(cut), font: { size: 11, color: colours.muted } });
    if (cut.taken > 0 && cut.taken < cut.size) {
      layout.shapes.push({ type: "line", xref: `x${suffix}`, yref: `y${suffix} domain`, x0: cut.taken + 0.5, x1: cut.taken + 0.5, y0: 0, y1: 1,
        line: { color: colours.mark, width: 1.4, dash: "dot" } });
    }
  });
  const hidden = competing.length - shown.length;
  const note = groupName === "" && hidden > 0
    ? `${count(shown.length)} of ${count(competing.length)} groups; choose one by name above, or merge the experts.`
    : "Gap: how far the first score left out lies below the last one taken, as a part of the latter.";
  return { data, layout, height, note };
}

function logAxis(low, high) {
  const ticks = logTicks(low, high, 5);
  return { tickvals: ticks, ticktext: ticks.map((tick) => number(tick)) };
}

function cutText(cut) {
  const taken = `${count(cut.taken)} of ${count(cut.size)}`;
  if (cut.undecided) return `${taken}, tied at the cut`;
  return cut.gap === null ? taken : `${taken}, gap ${percentText(cut.gap)}`;
}

/** Taken and left out, as two traces that meet; noise-free modules as stars at the top. */
function curveTraces(scan, selection, cut, ceiling, suffix, colours) {
  const make = (from, to, color) => {
    const members = cut.members.slice(from, to);
    const joined = from > 0 && cut.size <= LONG; // the curve goes on across the cut
    const text = members.map((index) => moduleText(scan, selection, index));
    const common = { type: "scatter", xaxis: `x${suffix}`, yaxis: `y${suffix}`, text, hoverinfo: "text", customdata: members };
    const x = members.map((_, place) => from + place + 1);
    return [
      ...(joined ? [{ ...common, x: [from, from + 1], y: [scan.snr[cut.members[from - 1]], scan.snr[cut.members[from]]], text: [], hoverinfo: "skip", mode: "lines", line: { color, width: 1.5 } }] : []),
      { ...common, x, y: members.map((index) => scan.snr[index]), mode: cut.size > LONG ? "lines" : "lines+markers",
        line: { color, width: 1.5 }, marker: { size: cut.size > 200 ? 3 : 5, color } },
      { ...common, x, y: members.map((index) => (scan.snr[index] === null ? ceiling : null)), mode: "markers",
        marker: { symbol: "star", size: 8, color } },
    ];
  };
  return [...make(0, cut.taken, colours.signal), ...make(cut.taken, cut.size, colours.noise)];
}
