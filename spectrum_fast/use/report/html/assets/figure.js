// A panel with one plot: drawn in the page's colours, exported in those of paper.

const CONFIG = { displayModeBar: false, displaylogo: false, responsive: false, doubleClick: "reset" };
const EXPORT_WIDTH = 1000;
const NARROW = 620;

/**
 * A section with a heading, controls, a plot and its two export buttons.
 *
 * `build(colours, width)` returns `{data, layout, height, note}`, or a text where there is nothing to draw.
 */
function createFigure({ id, title, lead = "", controls = [], build, onClick = null }) {
  const plot = element("div", { class: "plot" });
  const message = element("p", { class: "missing", hidden: true });
  const note = element("p", { class: "note" });
  const saveButton = (format) =>
    element("button", { type: "button", class: "save", title: `Save this plot as ${format.toUpperCase()}`, onclick: () => save(format) }, format.toUpperCase());
  const saving = element("span", { class: "saving" }, saveButton("svg"), saveButton("png"));
  const heading = element("h2", {}, title);
  const leadNode = element("p", { class: "lead" }, lead);
  const section = element("section", { class: "panel", id },
    element("div", { class: "panel-head" }, element("div", { class: "panel-title" }, heading, leadNode),
      element("div", { class: "tools" }, ...controls, saving)),
    plot, message, note);

  async function save(format) {
    const built = build(THEMES.light, EXPORT_WIDTH);
    if (typeof built === "string") return;
    const layout = { ...built.layout, width: EXPORT_WIDTH, height: built.height, paper_bgcolor: "#ffffff", plot_bgcolor: built.layout.plot_bgcolor };
    await Plotly.downloadImage({ data: built.data, layout, config: CONFIG },
      { format, width: EXPORT_WIDTH, height: built.height, scale: format === "png" ? 3 : 1, filename: fileName(`${id}-${exportName()}`) });
  }

  let listening = false;
  let lastWidth = 0;
  function draw() {
    const width = plot.clientWidth || section.clientWidth;
    if (width !== lastWidth) {
      Plotly.purge(plot); // margins that suited the old width would be kept
      listening = false;
      lastWidth = width;
    }
    const built = build(THEMES[themeName()], width);
    const nothing = typeof built === "string";
    plot.hidden = nothing;
    saving.hidden = nothing;
    message.hidden = !nothing;
    note.textContent = nothing ? "" : built.note ?? "";
    if (nothing) {
      message.textContent = built;
      return;
    }
    const layout = { ...built.layout, width, height: built.height };
    if (width < NARROW) layout.dragmode = false;
    Plotly.react(plot, built.data, layout, CONFIG);
    if (!listening && onClick) {
      plot.on("plotly_click", (event) => onClick(event.points[0]));
      listening = true;
    }
  }
  return { section, draw, plot, heading, lead: leadNode };
}

/** A row of buttons of which one is down. */
function choice(name, options, current, onChange) {
  const group = element("span", { class: "choice", role: "radiogroup", "aria-label": name });
  const buttons = options.map(([value, text]) =>
    element("button", { type: "button", role: "radio", "aria-checked": String(value === current), "data-value": value,
      onclick: () => { set(value); onChange(value); } }, text));
  function set(value) {
    for (const button of buttons) button.setAttribute("aria-checked", String(button.dataset.value === value));
  }
  group.append(...buttons);
  return group;
}

function dropdown(name, options, current, onChange) {
  const select = element("select", { "aria-label": name, onchange: () => onChange(select.value) },
    ...options.map(([value, text]) => element("option", { value, selected: value === current }, text)));
  return element("label", { class: "dropdown" }, element("span", {}, name), select);
}

/** Ticks 1, 2, 5 times powers of ten within [low, high]; only the powers where there are many. */
function logTicks(low, high, most = 12) {
  const ticks = [];
  const decades = Math.log10(high / low);
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const digit of decades > 4 ? [1] : [1, 2, 5]) {
      const tick = digit * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  if (ticks.length > most) return ticks.filter((_, place) => place % Math.ceil(ticks.length / most) === 0);
  const inside = (high / low) ** 0.02; // plotly may take a tick on the border itself for one outside
  return ticks.length >= 2 ? ticks : [low * inside, high / inside];
}

/** A colour scale of scores: logarithmic where they span more than a factor of eight. */
function scoreScale(values) {
  const finite = values.filter((value) => value !== null && value > 0);
  const low = finite.length ? finite.reduce((a, b) => Math.min(a, b)) : 1;
  const high = finite.length ? finite.reduce((a, b) => Math.max(a, b), 0) : 1;
  const logarithmic = high / low > 8;
  const transform = (value) => (value === null ? null : logarithmic ? Math.log10(Math.max(value, low)) : value);
  const ticks = logarithmic ? logTicks(low, high) : null;
  return {
    transform, zmin: transform(low), zmax: transform(high === low ? high * 1.001 : high),
    colorbar: ticks ? { tickvals: ticks.map(Math.log10), ticktext: ticks.map((tick) => number(tick)) } : {},
  };
}

/**
 * Border lines of the marked cells of a grid, as one broken line: [x, y] of a trace. With `byRow` every row is a region
 * of its own, for a row is what competes; without, cells that touch are one region.
 */
function outline(marked, rows, columns, byRow) {
  const x = [];
  const y = [];
  const at = (row, column) => row >= 0 && row < rows && column >= 0 && column < columns && marked(row, column);
  const border = (row, column) => (byRow ? at(row, column) || at(row - 1, column) : at(row, column) !== at(row - 1, column));
  const line = (x0, y0, x1, y1) => {
    x.push(x0, x1, null);
    y.push(y0, y1, null);
  };
  for (let row = 0; row <= rows; row += 1) {
    for (let column = 0; column < columns; ) {
      if (!border(row, column)) {
        column += 1;
        continue;
      }
      const from = column;
      while (column < columns && border(row, column)) column += 1;
      line(from - 0.5, row - 0.5, column - 0.5, row - 0.5);
    }
  }
  for (let column = 0; column <= columns; column += 1) {
    for (let row = 0; row < rows; ) {
      if (at(row, column) === at(row, column - 1)) {
        row += 1;
        continue;
      }
      const from = row;
      while (row < rows && at(row, column) !== at(row, column - 1)) row += 1;
      line(column - 0.5, from - 0.5, column - 0.5, row - 0.5);
    }
  }
  return { x, y };
}
