(layer, token, least) => {
  // Mark the layer's column and the token's row in the heat map, and let errors below the threshold fade.
  const table = document.querySelector("#heat .heat");
  if (!table) return;
  for (const row of table.rows) {
    const at = row.sectionRowIndex, body = row.parentNode === table.tBodies[0];
    row.classList.toggle("picked", body && at === token);
    for (const cell of row.cells) {
      cell.classList.toggle("picked", cell.cellIndex === layer + 1);
      if (cell.dataset.error) cell.classList.toggle("faint", parseFloat(cell.dataset.error) < least);
    }
  }
}
