"use strict";
(() => {
  const search = document.getElementById("search");
  const rows = [...document.querySelectorAll("#scans > li")];
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    document.getElementById("none").hidden = shown > 0;
  };
  search.addEventListener("input", show);
  show(); // what a browser kept in the field when the page is shown again
})();
