// Show the rows of a table that hold what is typed: <input data-rows="id of the table"> and an <output> in one element.
for (const field of document.querySelectorAll("input[data-rows]")) {
  const rows = [...document.getElementById(field.dataset.rows).tBodies[0].rows];
  const count = field.parentNode.querySelector("output");
  field.parentNode.hidden = false;
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    count.value = wanted ? `${rows.filter(row => !row.hidden).length} of ${rows.length}` : "";
  });
}
