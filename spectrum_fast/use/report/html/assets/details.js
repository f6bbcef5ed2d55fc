// What is said in words and figures: heading, outside modules, one module's numbers, provenance, failures.

function facts(pairs) {
  return element("dl", { class: "facts" }, ...pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, typeof value === "string" ? value : String(value))]));
}

/** Line under the model's name. */
function scanLine(scan) {
  const words = [plural(scan.competing, "module"), `criterion ${shorten(scan.criterion, 60)}`];
  if (scan.published) words.push("published result: scores only");
  if (scan.failures.length) words.push(`${plural(scan.failures.length, "tensor")} without a score`);
  const created = scan.provenance.created;
  if (typeof created === "string") words.push(visible(created.slice(0, 10)));
  return words.join(" · ");
}

/** Modules outside numbered layers, as buttons. */
function outsideButtons(scan, selection, onPick) {
  const most = 40;
  const buttons = scan.outside.slice(0, most).map((index) =>
    element("button", { type: "button", class: `chip state-${selection.state[index]}`, title: visible(scan.name[index]).slice(0, 300), onclick: () => onPick(index) },
      element("bdi", {}, shorten(scan.name[index], 40)), " ", element("b", {}, scoreText(scan, index)), selection.state[index] === 2 ? " always" : ""));
  if (scan.outside.length > most) buttons.push(element("span", { class: "muted" }, `and ${count(scan.outside.length - most)} more in the table`));
  return buttons.length ? [element("span", { class: "muted" }, "outside layers"), ...buttons] : [];
}

/** Columns that are shown in words of their own. */
const WORDED = new Set(["s_max", "q50", "threshold", "signal_sum", "noise_sum", "n_signal", "n_noise", "error_bound"]);
const NAMES_OF_NUMBERS = { s_min: "smallest value", q25: "lower quartile", q75: "upper quartile" };

/** All numbers of one module. */
function moduleFacts(scan, selection, index) {
  const total = scan.n_signal[index] === null ? null : scan.n_signal[index] + scan.n_noise[index];
  const bound = scan.error_bound[index];
  return facts([
    ["SNR", scoreText(scan, index) + (bound !== null && scan.snr[index] !== null ? ` (± ${number(100 * bound, 2)} %)` : "")],
    ["rank", selection.rank[index] ? `${count(selection.rank[index])} of ${count(selection.groupSize[index])}` : null],
    ["selection", ["left out", "selected", "trained always"][selection.state[index]]],
    ["type", shorten(scan.types[scan.type[index]], 160).replace(/\./g, ".\u200b")], // a line may break behind a dot
    ["shape", scan.shapes[scan.shape[index]] === null ? "not in the file" : shapeText(scan, index)],
    ["stored as", shorten(scan.dtypes[scan.dtype[index]] ?? "", 60)],
    ["largest value", scan.s_max[index] === null ? null : number(scan.s_max[index])],
    ["median value", scan.q50[index] === null ? null : number(scan.q50[index])],
    ["Spectrum threshold", scan.threshold_spectrum[index] === null ? null : number(scan.threshold_spectrum[index])],
    ["Marchenko–Pastur edge", scan.threshold_mp[index] === null ? null : number(scan.threshold_mp[index])],
    ["above / at or below", total === null ? null : `${count(scan.n_signal[index])} / ${count(scan.n_noise[index])}`],
    ["sum above / below", scan.signal_sum[index] === null ? null : `${number(scan.signal_sum[index])} / ${number(scan.noise_sum[index])}`],
    ...scan.numbers.filter((key) => !WORDED.has(key) && scan[key][index] !== null)
      .map((key) => [NAMES_OF_NUMBERS[key] ?? key.replace(/_/g, " "), number(scan[key][index])]),
    ...Object.entries(scan.quantities).filter(([key, column]) => !["spectral-norm", "mp-rank"].includes(key) && column[index] !== null)
      .map(([key, column]) => [key, number(column[index])]),
    ["method", shorten(scan.methods[scan.method[index]] ?? "", 60)],
    ["note", shorten(scan.notes[scan.note[index]] ?? "", 300)],
  ]);
}

/** How the scan was made; what the file does not say is not listed. */
function provenanceFacts(scan) {
  const shown = [["model", shorten(scan.model, 300)], ["criterion", shorten(scan.criterion, 60)]];
  for (const [key, value] of Object.entries(scan.provenance)) {
    if (value === null || value === "" || (Array.isArray(value) && !value.length)) continue;
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    shown.push([visible(key.replace(/_/g, " ")).slice(0, 60), key === "bytes_read" ? bytesText(Number(value)) : visible(text).slice(0, 400)]);
  }
  if (scan.ties.length) shown.push(["equal tensors", scan.ties.slice(0, 5).map(([copy, original]) => `${shorten(copy, 60)} = ${shorten(original, 60)}`).join("; ") + (scan.ties.length > 5 ? `; and ${count(scan.ties.length - 5)} more` : "")]);
  if (scan.skipped.length) shown.push(["not scored", scan.skipped.slice(0, 8).map(([reason, n]) => `${count(n)} × ${shorten(reason, 80)}`).join("; ")]);
  return facts(shown);
}

function failureList(scan) {
  const most = 200;
  if (!scan.failures.length) return null;
  return element("section", { class: "panel", id: "failures" },
    element("div", { class: "panel-head" }, element("div", { class: "panel-title" }, element("h2", {}, `${plural(scan.failures.length, "tensor")} without a score`),
      element("p", { class: "lead" }, "They take no part in any selection shown here. spectrum-fast select refuses this scan unless told --allow-incomplete."))),
    element("ul", { class: "failures" }, ...scan.failures.slice(0, most).map((failure) =>
      element("li", {}, element("bdi", { class: "name" }, shorten(failure.name, 200)), element("span", { class: "muted" }, ` ${shorten(failure.kind, 60)}: ${shorten(failure.message, 500)}`)))),
    scan.failures.length > most ? element("p", { class: "note" }, `and ${count(scan.failures.length - most)} more`) : null);
}
