// The table of rules (class "rules"): a field to filter it, a choice of family, and heads that sort. Without this script it is a plain table.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.rules")) {
    const rows = [...table.tBodies[0].rows];
    const heads = [...table.tHead.rows[0].cells];
    const text = (row, column) => row.cells[column].textContent.trim();
    const familyColumn = heads.findIndex((head) => head.textContent.trim() === "family");

    const bar = document.createElement("div");
    bar.className = "rules-filter";
    const field = Object.assign(document.createElement("input"), { type: "search", placeholder: "filter, e.g. copies" });
    field.setAttribute("aria-label", "Show rules that contain these words");
    const choice = document.createElement("select");
    choice.setAttribute("aria-label", "Show rules of this family");
    for (const family of ["all families", ...new Set(rows.map((row) => text(row, familyColumn)))]) choice.add(new Option(family));
    const count = document.createElement("output");
    bar.append(field, choice, count);
    (table.closest(".table-wrapper") ?? table).before(bar);

    const show = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const all = row.textContent.toLowerCase();
        const ofFamily = choice.selectedIndex === 0 || text(row, familyColumn) === choice.value;
        row.hidden = !ofFamily || !words.every((word) => all.includes(word));
      }
      count.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rules`;
    };
    field.addEventListener("input", show);
    choice.addEventListener("change", show);
    show();

    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const order = (a, b) => text(a, column).localeCompare(text(b, column), "en", { numeric: true });
        table.tBodies[0].append(...[...rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
      });
    });
  }
});
