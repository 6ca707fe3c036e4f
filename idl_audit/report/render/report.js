"use strict";
// Looks for rows of tables. Without it the page shows them all; it makes its own controls, and nothing leaves the page.
for (const region of document.querySelectorAll("[data-searched]")) {
  const rows = [...region.querySelectorAll("tbody tr")].map(row => {
    const cells = [...row.cells].map(cell => cell.textContent.trim().toLowerCase());
    const kinds = new Set([...row.querySelectorAll(".mark")].map(mark => mark.textContent.trim()));
    return { row, cells, kinds, text: cells.join(" ") };
  });
  if (rows.length < 2) continue;
  const titles = [...region.querySelector("thead tr").cells].map(cell => cell.textContent.trim().toLowerCase());
  const folds = [...region.querySelectorAll("details")].map(fold => ({ fold, own: rows.filter(one => fold.contains(one.row)) }));
  const make = (tag, words) => Object.assign(document.createElement(tag), words);

  const bar = make("div", { className: "filters" });
  const field = make("input", { type: "search", placeholder: "words, or label=3" });
  const search = make("label", { textContent: "Search " });
  search.append(field);
  bar.append(search);
  const boxes = ["falsified", "unknown", "clean wrong", "certified"]
    .filter(kind => rows.some(one => one.kinds.has(kind)))
    .map(kind => {
      const box = make("input", { type: "checkbox", checked: true, value: kind });
      const label = make("label", {});
      const mark = make("span", { className: `mark ${kind.replace(" ", "_")}`, textContent: kind });
      label.append(box, mark);
      bar.append(label);
      return box;
    });
  const told = make("output", {});
  bar.append(told);
  region.prepend(bar);
  const legend = region.previousElementSibling;
  if (boxes.length > 1 && legend !== null && legend.className === "legend") legend.hidden = true;

  const fits = (one, word) => {
    const [name, value] = word.split("=", 2);
    const column = value === undefined ? -1 : titles.indexOf(name);
    return column < 0 ? one.text.includes(word) : one.cells[column] === value;
  };
  const apply = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = boxes.filter(box => box.checked).map(box => box.value);
    const all = kinds.length === boxes.length;
    let shown = 0;
    for (const one of rows) {
      const kept = (all || kinds.some(kind => one.kinds.has(kind))) && words.every(word => fits(one, word));
      one.row.hidden = !kept;
      shown += kept;
    }
    const active = !all || words.length > 0;
    for (const { fold, own } of folds) {
      const left = own.some(one => !one.row.hidden);
      fold.hidden = !left;
      fold.open = active && left;
    }
    told.textContent = active ? `${shown} of ${rows.length} rows` : "";
  };
  bar.addEventListener("input", apply);
}
