// The table of all modules. Only the rows in sight exist as elements, so that 45,000 scroll as fast as 40.

const ROW = 30;
const SPARE = 8;

/** Path components that all names begin with. */
function commonPrefix(names) {
  let prefix = names[0] ?? "";
  for (const name of names) {
    while (!name.startsWith(prefix)) prefix = prefix.slice(0, Math.max(0, prefix.lastIndexOf(".", prefix.length - 2) + 1));
    if (!prefix) break;
  }
  return prefix.slice(0, prefix.lastIndexOf(".") + 1);
}

function createTable(onPick) {
  const columns = [
    { key: "name", title: "module", value: (scan, _, i) => scan.name[i], text: (scan, _, i) => nameText(scan, i) },
    { key: "layer", title: "layer", numeric: true, wide: true, value: (scan, _, i) => scan.layer[i], text: (scan, _, i) => (scan.layer[i] < 0 ? "–" : String(scan.layer[i])) },
    { key: "shape", title: "shape", numeric: true, wide: true, value: (scan, _, i) => (scan.shapes[scan.shape[i]] ?? [-1]).reduce((a, b) => a * b, 1), text: (scan, _, i) => shapeText(scan, i) },
    { key: "dtype", title: "dtype", wide: true, value: (scan, _, i) => scan.dtypes[scan.dtype[i]] ?? "", text: (scan, _, i) => shorten(scan.dtypes[scan.dtype[i]] ?? "–", 12) },
    { key: "snr", title: "SNR", numeric: true, value: (scan, _, i) => scan.snr[i] ?? Infinity, text: (scan, _, i) => scoreText(scan, i) },
    { key: "rank", title: "rank", numeric: true, value: (_, selection, i) => selection.rank[i] || 1e9, text: (_, selection, i) => (selection.rank[i] ? count(selection.rank[i]) + (compact() ? "" : ` of ${count(selection.groupSize[i])}`) : "–") },
    { key: "state", title: "selected", value: (_, selection, i) => -selection.state[i], text: (_, selection, i) => ["", "yes", "always"][selection.state[i]] },
    { key: "signal", title: "signal", numeric: true, wide: true, value: (scan, _, i) => (scan.n_signal[i] === null ? -1 : scan.n_signal[i] / (scan.n_signal[i] + scan.n_noise[i])),
      text: (scan, _, i) => (scan.n_signal[i] === null ? "–" : percentText(scan.n_signal[i] / (scan.n_signal[i] + scan.n_noise[i] || 1))) },
    { key: "bound", title: "bound", numeric: true, wide: true, value: (scan, _, i) => scan.error_bound[i] ?? -1, text: (scan, _, i) => (scan.error_bound[i] === null ? "–" : number(scan.error_bound[i], 2)) },
  ];
  const state = { scan: null, selection: null, sort: "name", down: false, query: "", only: false, picked: -1, order: [] };
  const search = element("input", { type: "search", placeholder: "search modules", "aria-label": "search modules", spellcheck: "false", oninput: () => { state.query = search.value; refresh(); } });
  const only = element("input", { type: "checkbox", onchange: () => { state.only = only.checked; refresh(); } });
  const shownCount = element("span", { class: "shown", role: "status" });
  const headers = columns.map((column) => element("button", { type: "button", class: cellClass(column), "aria-label": `sort by ${column.title}`, onclick: () => sortBy(column.key) }, column.title));
  const head = element("div", { class: "table-head", role: "row" }, ...headers);
  const body = element("div", { class: "table-body", role: "rowgroup" });
  const spacer = element("div", { class: "table-spacer" });
  const scroller = element("div", { class: "table-scroll", tabindex: "0", role: "table", "aria-label": "modules", onscroll: () => requestAnimationFrame(paint) }, head, spacer);
  spacer.append(body);
  const section = element("section", { class: "panel", id: "modules" },
    element("div", { class: "panel-head" }, element("div", { class: "panel-title" }, element("h2", {}, "All modules")),
      element("div", { class: "tools" }, search, element("label", { class: "check" }, only, "selected only"), shownCount,
        element("button", { type: "button", class: "save", title: "Save the rows shown as a CSV file", onclick: saveCsv }, "CSV"))),
    scroller);
  body.addEventListener("click", (event) => {
    const row = event.target.closest("[data-index]");
    if (row) onPick(Number(row.dataset.index));
  });

  function compact() {
    return scroller.clientWidth < NARROW;
  }

  /** On a phone without what all names begin with, and cut in the middle, so that rows can be told apart. */
  function nameText(scan, index) {
    if (!compact()) return shorten(scan.name[index], 160);
    scan.prefix ??= commonPrefix(scan.layer.flatMap((layer, i) => (layer < 0 ? [] : [scan.name[i]])));
    const name = scan.name[index];
    return shorten(name.startsWith(scan.prefix) ? name.slice(scan.prefix.length) : name, Math.floor((scroller.clientWidth - 184) / 7.6));
  }

  function cellClass(column) {
    return `cell cell-${column.key}${column.numeric ? " numeric" : ""}${column.wide ? " wide" : ""}`;
  }

  function sortBy(key) {
    state.down = state.sort === key ? !state.down : key === "snr" || key === "signal" || key === "bound";
    state.sort = key;
    refresh();
  }

  function update(scan, selection, picked) {
    Object.assign(state, { scan, selection, picked });
    refresh(false);
  }

  function refresh(toTop = true) {
    const { scan, selection } = state;
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    if (scan.lowered === undefined && words.length) scan.lowered = scan.name.map((name) => name.toLowerCase());
    const order = [];
    for (let index = 0; index < scan.size; index += 1) {
      if (state.only && selection.state[index] === 0) continue;
      if (words.every((word) => scan.lowered[index].includes(word))) order.push(index);
    }
    const column = columns.find((entry) => entry.key === state.sort);
    const sign = state.down ? -1 : 1;
    if (column.key !== "name") {
      const values = new Map(order.map((index) => [index, column.value(scan, selection, index)]));
      const less = (p, q) => (p < q ? -1 : p > q ? 1 : 0);
      order.sort((p, q) => sign * less(values.get(p), values.get(q)) || scan.order[p] - scan.order[q]);
    } else if (state.down) order.reverse();
    state.order = order;
    columns.forEach((entry, place) => {
      headers[place].classList.toggle("sorted", entry.key === state.sort);
      headers[place].classList.toggle("down", state.down);
    });
    shownCount.textContent = order.length === scan.size ? plural(scan.size, "module") : `${count(order.length)} of ${count(scan.size)}`;
    spacer.style.height = `${order.length * ROW}px`;
    if (toTop) scroller.scrollTop = 0;
    paint();
  }

  function paint() {
    const { scan, selection, order } = state;
    const from = Math.max(0, Math.floor(scroller.scrollTop / ROW) - SPARE);
    const to = Math.min(order.length, from + Math.ceil((scroller.clientHeight || 420) / ROW) + 2 * SPARE);
    const rows = [];
    for (let place = from; place < to; place += 1) {
      const index = order[place];
      rows.push(element("div", { class: `row state-${selection.state[index]}${index === state.picked ? " picked" : ""}`, role: "row", "data-index": index, style: `top:${place * ROW}px` },
        ...columns.map((column) => {
          const cell = element("span", { class: cellClass(column), role: "cell" }, column.text(scan, selection, index));
          if (column.key === "name") cell.title = visible(scan.name[index]).slice(0, 500);
          return cell;
        })));
    }
    body.replaceChildren(...rows);
  }

  function saveCsv() {
    const { scan, selection, order } = state;
    // A leading = + - @ would make a spreadsheet compute a stranger's name.
    const quote = (text) => `"${String(text).replace(/"/g, '""').replace(/^([=+\-@\t\r])/, "'$1")}"`;
    const lines = ["module,type,layer,shape,dtype,snr,noise_free,rank,group_size,selected,error_bound"];
    for (const i of order) {
      lines.push([quote(scan.name[i]), quote(scan.types[scan.type[i]]), scan.layer[i] < 0 ? "" : scan.layer[i], quote(scan.shapes[scan.shape[i]]?.join("x") ?? ""), quote(scan.dtypes[scan.dtype[i]] ?? ""),
        scan.snr[i] ?? "", scan.snr[i] === null, selection.rank[i] || "", selection.groupSize[i] || "", ["no", "yes", "always"][selection.state[i]], scan.error_bound[i] ?? ""].join(","));
    }
    const address = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    element("a", { href: address, download: `${fileName(exportName())}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  return { section, update, paint };
}
