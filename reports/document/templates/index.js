"use strict";
// Sorts and filters the table of runs. The page is complete without this script.
(() => {
  const table = document.getElementById("runs");
  const [body] = table.tBodies;
  const rows = [...body.rows];
  const key = (row, column) => row.cells[column].dataset.key;
  const isNumber = (column) => rows.every((row) => key(row, column) === "" || !Number.isNaN(Number(key(row, column))));
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const isUp = head.getAttribute("aria-sort") === "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      const numeric = isNumber(column);
      const compare = (a, b) => (numeric ? Number(key(a, column)) - Number(key(b, column)) : key(a, column).localeCompare(key(b, column)));
      rows.sort((a, b) => (isUp ? compare(a, b) : compare(b, a)));
      body.append(...rows);
    });
  });
  const form = document.createElement("form");
  form.className = "view";
  const label = document.createElement("label");
  label.htmlFor = "filter";
  label.textContent = "runs with";
  const filter = document.createElement("input");
  Object.assign(filter, { type: "search", id: "filter", placeholder: "words, as in: kp digits", autocomplete: "off" });
  const count = document.createElement("output");
  count.setAttribute("for", "filter");
  form.append(label, filter, count);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let kept = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const isKept = words.every((word) => text.includes(word));
      row.classList.toggle("out", !isKept);
      kept += isKept;
    }
    count.textContent = words.length ? `${kept} of ${rows.length}` : "";
  });
  document.getElementById("content").prepend(form);
})();
