// State of the page, its controls, and what is redrawn when.

const app = { scans: [], scan: 0, percent: 25, grouping: "type", colour: "score", how: "mean", view: "bulk", group: "", picked: -1, opened: null, a: 0, b: 1, beside: 1 };
let exportName = () => "report";
/** Plots that take longer than this many milliseconds (of scans with tens of thousands of modules) wait until the slider rests. */
const QUICK_MS = 80;
const REST_MS = 120;

async function start() {
  applyTheme();
  const payload = JSON.parse(await unpack("data"));
  app.scans = payload.scans.map(prepareScan);
  app.percent = payload.top_percent;
  readAddress(payload);
  const page = buildPage(payload);
  document.getElementById("main").hidden = false;
  page.drawWords();
  performance.mark("words"); // numbers and the table can be read while the plotting library is being loaded
  const library = await unpack("library");
  // The policy runs this text and no other: its hash is named there.
  document.head.append(element("script", {}, library));
  performance.mark("library");
  document.getElementById("loading").remove();
  await page.drawAll();
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}

const current = () => app.scans[app.scan];
const selections = new Map();

/** The selection of the scan shown, made once for each place of the slider. */
function selection() {
  const key = `${app.scan} ${app.percent} ${app.grouping}`;
  if (!selections.has(key)) {
    if (selections.size > 8) selections.clear();
    selections.set(key, selectModules(current(), app.percent, app.grouping));
  }
  return selections.get(key);
}

/** `#percent=30&grouping=global`: the state can be bookmarked and sent. */
function readAddress(payload) {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const percent = Number(wanted.get("percent"));
  if (percent > 0 && percent <= 100) app.percent = percent;
  if (payload.groupings.includes(wanted.get("grouping"))) app.grouping = wanted.get("grouping");
  const scan = Number(wanted.get("scan"));
  if (Number.isInteger(scan) && scan >= 0 && scan < app.scans.length) app.scan = scan;
  if (["light", "dark"].includes(wanted.get("theme"))) themeChoice = wanted.get("theme");
  applyTheme();
}

function writeAddress() {
  const wanted = new URLSearchParams({ percent: String(app.percent), grouping: app.grouping });
  if (app.scan) wanted.set("scan", String(app.scan));
  try {
    history.replaceState(null, "", `#${wanted}`);
  } catch {
    // Some browsers refuse it for files; nothing depends on it.
  }
}

function buildPage(payload) {
  const main = document.getElementById("main");
  const several = app.scans.length > 1;
  const slider = element("input", { type: "range", id: "percent", min: "1", max: "100", step: "1", value: app.percent, "aria-label": "top percent", oninput: () => setPercent(Number(slider.value)) });
  const exact = element("input", { type: "number", id: "percent-exact", min: "0.1", max: "100", step: "any", value: app.percent, "aria-label": "top percent, exact", onchange: () => {
    const value = Number(exact.value);
    if (value > 0 && value <= 100) setPercent(value);
    exact.value = app.percent;
  } });
  const taken = element("output", { id: "taken" });
  const command = element("code", { id: "command" });
  const groupingNames = { type: "each type", "experts-merged": "experts merged", global: "all together", reference: "types of all towers" };
  const needed = { "experts-merged": (scan) => scan.hasExperts, reference: (scan) => scan.maps.length > 1 };
  const groupings = payload.groupings.filter((name) => !needed[name] || app.scans.some(needed[name]));
  const bar = element("div", { id: "controls" },
    several ? dropdown("scan", app.scans.map((scan, index) => [String(index), shorten(scan.label, 48)]), String(app.scan), (value) => setScan(Number(value))) : null,
    element("label", { class: "slider" }, element("span", {}, "top"), slider, exact, element("span", {}, "% of")),
    choice("what competes", groupings.map((name) => [name, groupingNames[name]]), app.grouping, (value) => { app.grouping = value; app.group = ""; changed(); }),
    taken);

  const quantities = [...new Set(app.scans.flatMap((scan) => Object.keys(scan.quantities)))].map((name) => [name, name]);
  const heatControls = () => [
    quantities.length ? dropdown("or", [["score", "of the scan"], ...quantities], app.colour, (value) => { app.colour = value; heat.draw(); }) : null,
    choice("colour", [["score", "score"], ["rank", "rank"]], app.colour, (value) => { app.colour = value; heat.draw(); }),
    app.scans.some((scan) => scan.hasExperts) ? choice("cells", [["mean", "mean"], ["median", "median"]], app.how, (value) => { app.how = value; heat.draw(); }) : null].filter(Boolean);
  const most = app.scans.reduce((count, scan) => Math.max(count, scan.maps.length), 1);
  const maps = Array.from({ length: most }, (_, place) => createFigure({
    id: place ? `heatmap-${place + 1}` : "heatmap", title: "Signal by layer and module type", controls: place ? [] : heatControls(),
    build: (colours, width) => heatmapFigure(current(), current().maps[place], selection(), app, colours, width),
    onClick: (point) => openCell(current().maps[place], point),
  }));
  /** A map for each tower of the scan shown; the controls of the first are those of all. */
  const heat = { draw: () => maps.forEach((figure, place) => {
    const shown = current().maps;
    figure.section.hidden = place > 0 && place >= shown.length;
    figure.heading.textContent = `Signal by layer and module type${shown.length > 1 && shown[place] ? `: ${shorten(shown[place].tower, 40)}` : ""}`;
    if (!figure.section.hidden) figure.draw();
  }) };
  const outside = element("p", { class: "chips" });
  maps[0].section.append(outside);
  const close = element("button", { type: "button", class: "save", onclick: () => { app.opened = null; experts.section.hidden = true; } }, "close");
  const experts = createFigure({ id: "experts", title: "Experts", controls: [close],
    build: (colours, width) => expertsFigure(current(), selection(), app.opened, colours, width),
    onClick: (point) => { const index = expertAt(app.opened, current(), Math.round(point.x), Math.round(point.y)); if (index !== null) pick(index, true); } });
  experts.section.hidden = true;

  const groupPicker = element("select", { "aria-label": "group", onchange: () => { app.group = groupPicker.value; ranks.draw(); } });
  const ranks = createFigure({ id: "ranks", title: "Scores by rank", controls: [element("label", { class: "dropdown" }, element("span", {}, "group"), groupPicker)],
    build: (colours, width) => ranksFigure(current(), selection(), app.group, colours, width),
    onClick: (point) => { if (point.customdata !== undefined) pick(point.customdata, true); } });

  const besidePicker = several ? dropdown("beside", [["-1", "nothing"], ...app.scans.map((scan, index) => [String(index), shorten(scan.label, 48)])], String(app.beside), (value) => { app.beside = Number(value); spectrum.draw(); }) : null;
  /** The module picked, in the scan that is drawn with the one shown; null where there is none. */
  const beside = () => {
    const other = app.scans[app.beside];
    const index = other === current() ? undefined : other?.byName.get(current().name[app.picked]);
    return index === undefined ? null : { scan: other, index };
  };
  const spectrum = createFigure({ id: "spectrum", title: "Singular values",
    controls: [...(besidePicker ? [besidePicker] : []), choice("axis", [["bulk", "bulk"], ["all", "all, logarithmic"], ...(app.scans.some((scan) => scan.tails) ? [["tail", "tail"]] : [])], app.view, (value) => { app.view = value; spectrum.draw(); })],
    build: (colours, width) => (app.picked < 0 ? "Pick a module in any plot or in the table." : spectrumFigure(current(), app.picked, beside(), app.view, colours, width)) });
  const factsPlace = element("div", { class: "panel", id: "facts" });
  const table = createTable((index) => pick(index, false));
  const provenance = element("div", { class: "panel", id: "provenance" });
  const failures = element("div");
  const compare = several ? createCompare() : null;

  main.append(bar, element("p", { class: "command" }, "same selection: ", command), ...(compare ? compare.sections : []), ...maps.map((figure) => figure.section), experts.section, ranks.section,
    element("div", { class: "pair" }, spectrum.section, factsPlace), table.section, failures,
    provenance);
  document.getElementById("footer").append(`spectrum_fast ${payload.version}. One file, nothing is fetched or sent. Method: arXiv 2406.06623.`);

  function openCell(map, point) {
    const scan = current();
    const row = map.rows[Math.round(point.y)];
    const indices = row?.cells.get(map.firstLayer + Math.round(point.x)) ?? [];
    if (indices.length === 1) pick(indices[0], true);
    else if (indices.length && isExpertRow(scan, row)) openExperts(row);
    else if (indices.length) pick(indices[0], true);
  }

  function openExperts(row) {
    app.opened = row;
    experts.section.hidden = false;
    experts.heading.textContent = `Experts of ${shorten(row.name, 60)}`;
    experts.draw();
    experts.section.scrollIntoView({ behavior: "smooth", block: "nearest" });
  }

  function pick(index, scroll) {
    app.picked = index;
    spectrum.draw();
    showFacts();
    table.update(current(), selection(), index);
    if (scroll) spectrum.section.scrollIntoView({ behavior: "smooth", block: "nearest" });
  }

  function showFacts() {
    const scan = current();
    spectrum.lead.replaceChildren(app.picked < 0 ? "" : element("bdi", { class: "name" }, shorten(scan.name[app.picked], 160)));
    factsPlace.replaceChildren(element("h2", {}, "This module"), app.picked < 0 ? element("p", { class: "missing" }, "none picked") : moduleFacts(scan, selection(), app.picked));
  }

  function showWords() {
    const scan = current();
    const chosen = selection();
    const heading = document.getElementById("heading");
    heading.replaceChildren(element("h1", {}, element("bdi", {}, shorten(scan.model, 120))), element("p", {}, scanLine(scan)));
    const number_ = chosen.cuts.reduce((sum, cut) => sum + cut.taken, 0);
    const always = chosen.cuts.reduce((sum, cut) => sum + cut.always.length, 0) + scan.ties_always.length;
    const tied = chosen.cuts.filter((cut) => cut.undecided).length;
    taken.replaceChildren(element("b", {}, count(number_)), ` of ${count(chosen.cuts.reduce((sum, cut) => sum + cut.size, 0))} selected`,
      always ? `, ${count(always)} always` : "", tied ? `, ${plural(tied, "cut")} tied` : "");
    command.textContent = `spectrum-fast select SCAN --top-percent ${app.percent}${app.grouping === "type" ? "" : ` --grouping ${app.grouping}`}${scan.fused === "parts" ? " --fused parts" : ""}${scan.failures.length ? " --allow-incomplete" : ""}`;
    outside.replaceChildren(...outsideButtons(scan, chosen, (index) => pick(index, true)));
    exportName = () => `${scan.label}-top${app.percent}`;
  }

  function fillGroups() {
    const names = selection().cuts.filter((cut) => cut.size > 1).map((cut) => cut.name);
    groupPicker.replaceChildren(element("option", { value: "" }, names.length > MOST_MULTIPLES ? `first ${MOST_MULTIPLES}` : "all"), ...names.slice(0, 2000).map((name) => element("option", { value: name }, shorten(name, 60))));
    groupPicker.value = app.group;
  }

  function setPercent(value) {
    app.percent = value;
    slider.value = value;
    exact.value = value;
    changed(true);
  }

  function setScan(index) {
    if (app.beside === index) {
      app.beside = app.scan;
      besidePicker.querySelector("select").value = String(app.scan);
    }
    Object.assign(app, { scan: index, picked: firstPick(app.scans[index]), opened: null, group: "" });
    experts.section.hidden = true;
    drawAll();
  }

  let waiting = false;
  /** The selection moved: numbers follow once a frame, however fast the slider goes; so do plots that are quick to draw. */
  function changed(onlyPercent = false) {
    if (!onlyPercent) fillGroups();
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      writeAddress();
      showWords();
      showFacts();
      table.update(current(), selection(), app.picked);
      if (plotsTook < QUICK_MS) drawMoved();
      else {
        clearTimeout(resting);
        resting = setTimeout(drawMoved, REST_MS);
      }
    });
  }

  let plotsTook = 0;
  let resting = 0;
  /** The plots that show the selection. */
  function drawMoved() {
    const began = performance.now();
    clearTimeout(resting);
    resting = 0;
    heat.draw();
    if (app.opened) experts.draw();
    ranks.draw();
    compare?.draw();
    plotsTook = performance.now() - began;
  }

  const breathe = () => new Promise((resolve) => setTimeout(resolve));
  function drawWords() {
    const scan = current();
    if (app.picked < 0) app.picked = firstPick(scan);
    showWords();
    fillGroups();
    provenance.replaceChildren(element("h2", {}, "How this scan was made"), provenanceFacts(scan));
    failures.replaceChildren(...[failureList(scan)].filter(Boolean));
    showFacts();
    table.update(scan, selection(), app.picked);
  }

  async function drawAll() {
    drawWords();
    compare?.draw();
    for (const figure of [heat, spectrum, ranks]) {
      figure.draw();
      await breathe(); // the page stays alive between two plots
    }
  }

  function redraw() {
    drawMoved();
    spectrum.draw();
    table.paint();
  }

  onThemeChange(redraw);
  let resizing = 0;
  let lastWidth = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === lastWidth) return; // a phone's address bar comes and goes
    lastWidth = window.innerWidth;
    clearTimeout(resizing);
    resizing = setTimeout(redraw, 120);
  });
  // For tests, and for whoever opens the console: the page's own functions.
  window.spectrumReport = { app, busy: () => waiting || resting !== 0, current, pick, setPercent, setScan, openExperts, selection, selectModules, selectedNames, summarise, histogramEdges, noiseDensity, pairScans, comparePairs };
  return { drawAll, drawWords };
}

/** The module shown at first: the best one that has a spectrum, else the best one. */
function firstPick(scan) {
  let best = -1;
  for (let index = 0; index < scan.size; index += 1) {
    if (scan.always[index] || (scan.hasSpectra && scan.histogram[index] === null)) continue;
    if (best < 0 || scan.order[index] < scan.order[best]) best = index;
  }
  return best < 0 && scan.size ? 0 : best;
}

/** The panels of two scans side by side. */
function createCompare() {
  const options = app.scans.map((scan, index) => [String(index), shorten(scan.label, 40)]);
  const paired = new Map();
  const result = () => {
    const key = `${app.a} ${app.b}`;
    if (!paired.has(key)) paired.set(key, pairScans(app.scans[app.a], app.scans[app.b]));
    const pair = paired.get(key);
    const at = `${app.percent} ${app.grouping}`;
    if (pair.at !== at) Object.assign(pair, { at, result: comparePairs(pair, app.percent, app.grouping) });
    return pair;
  };
  const build = (figure) => (colours, width) => {
    const pair = result();
    return pair.pairs.length ? figure(pair, pair.result, colours, width) : "The two scans have no module in common; there is nothing to compare.";
  };
  const pickA = dropdown("A", options, String(app.a), (value) => { app.a = Number(value); draw(); });
  const pickB = dropdown("B", options, String(app.b), (value) => { app.b = Number(value); draw(); });
  const difference = createFigure({ id: "difference", title: "What changed from A to B", controls: [pickA, pickB], build: build(differenceFigure) });
  const scatter = createFigure({ id: "scatter", title: "Scores of both", build: build(scatterFigure) });
  const overlap = createFigure({ id: "overlap", title: "Overlap of the selections", build: build(overlapFigure) });
  function draw() {
    const pair = result();
    const found = pair.result;
    const words = [`A: ${shorten(pair.a.label, 60)}`, `B: ${shorten(pair.b.label, 60)}`, `${plural(pair.pairs.length, "module")} in both`];
    if (pair.onlyA || pair.onlyB) words.push(`${count(pair.onlyA)} only in A, ${count(pair.onlyB)} only in B`);
    if (!comparable(pair)) words.push(`different criteria (${pair.a.criterion}, ${pair.b.criterion}): scores are not comparable, ranks are`);
    difference.lead.textContent = words.join(" · ");
    const rho = (value) => (value === null ? "undefined" : value.toFixed(3));
    scatter.lead.textContent = [`Spearman within types ${rho(found.within)}`, `over all modules ${rho(found.spearman)}`, ...(comparable(pair) ? [`median difference ${found.median === null ? "–" : percentText(found.median)}`] : [])].join(" · ");
    overlap.lead.textContent = `A takes ${count(found.nA)}, B ${count(found.nB)}, both ${count(found.both)} · Jaccard ${found.jaccard.toFixed(3)}`;
    for (const figure of [difference, scatter, overlap]) figure.draw();
  }
  return { sections: [difference.section, element("div", { class: "pair even" }, scatter.section, overlap.section)], draw };
}

start().catch((error) => {
  const place = document.getElementById("loading") ?? document.getElementById("main").insertAdjacentElement("beforebegin", element("p", { class: "notice" }));
  place.textContent = typeof DecompressionStream === "undefined" ? "This report needs a browser of 2023 or later." : `The report cannot be drawn: ${error.message}`;
  document.documentElement.dataset.failed = error.message;
  throw error;
});
