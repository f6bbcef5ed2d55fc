// Text and elements. Names come from files of strangers: they enter the document as text nodes, and plotly's own small
// markup (it reads <b>, <a href>, &amp; in every label) escaped.

/** An element with attributes and children; children are elements or text. */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Control characters and marks that turn the direction of text could make a name look like another one.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** The name with invisible characters spelled out. */
function visible(name) {
  return name.replace(INVISIBLE, (mark) => "\\u" + mark.charCodeAt(0).toString(16).padStart(4, "0"));
}

/** At most `room` characters, cut in the middle: both ends of a module's name tell something. */
function shorten(name, room) {
  const text = visible(name);
  if (text.length <= room) return text;
  const head = Math.ceil((room - 1) * 0.4);
  return text.slice(0, head) + "…" + text.slice(text.length - (room - 1 - head));
}

/** A name for a label of plotly. */
function label(name, room = 60) {
  return shorten(name, room).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** Four significant digits. */
function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(Math.max(digits - 2, 0));
  return String(Number(value.toPrecision(digits)));
}

function count(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en");
}

function plural(n, one, many = one + "s") {
  return `${count(n)} ${n === 1 ? one : many}`;
}

function percentText(share) {
  return `${number(100 * share, 3)} %`;
}

function bytesText(bytes) {
  let size = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 999.5) return `${number(size, 3)} ${unit}`;
    size /= 1000;
  }
  return `${number(size, 3)} TB`;
}

/** A file name that any system takes. */
function fileName(text) {
  return text.replace(/[^A-Za-z0-9._-]+/g, "-").slice(0, 80).replace(/-+(?=-|$)|^-+/g, "") || "plot";
}
