"use strict";
// A chart point shows its architecture in a tooltip and marks its table row. Without this script, its <title> does.
const tip = document.getElementById("tip");
for (const point of document.querySelectorAll("[data-trial]")) {
  const title = point.querySelector("title");
  const words = title.textContent;
  const row = document.getElementById("trial-" + point.dataset.trial);
  title.remove();
  point.setAttribute("aria-label", words);
  const show = () => {
    const box = point.getBoundingClientRect();
    tip.textContent = words;
    tip.hidden = false;
    const left = Math.min(box.right + 8, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = Math.max(8, left) + scrollX + "px";
    tip.style.top = box.bottom + 8 + scrollY + "px";
    row.classList.add("shown");
  };
  const hide = () => {
    tip.hidden = true;
    row.classList.remove("shown");
  };
  point.addEventListener("pointerenter", show);
  point.addEventListener("pointerleave", hide);
  point.addEventListener("focus", show);
  point.addEventListener("blur", hide);
}
// Turn the headings of sortable tables into buttons; cells without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const value = body => body.rows[0].cells[column].dataset.value;
      table.append(...[...table.tBodies].sort((a, b) => compare(value(a), value(b), sign)));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    });
  });
}
function compare(a, b, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const difference = a - b;
  return sign * (isNaN(difference) ? a.localeCompare(b) : difference);
}
