// Puts text on the clipboard and tells whether it is there. Browsers offer navigator.clipboard on
// HTTPS and localhost only; dashboards are often served over plain HTTP inside a company.
window.tpCopy = async (text) => {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Refused: the old way may still be allowed.
    }
  }
  const area = Object.assign(document.createElement("textarea"), { value: text });
  // Within an open dialog, which does not let the focus out.
  (document.querySelector(".q-dialog .tp-card") ?? document.body).append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
};

// A file that is dropped beside its field must not replace the page.
for (const kind of ["dragover", "drop"]) {
  window.addEventListener(kind, (event) => event.preventDefault());
}
