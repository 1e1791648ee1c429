// Draws the pictures and sorts the tables. It loads nothing, and needs no eval.
const root = document.documentElement;

async function draw(place) {
  const chart = JSON.parse(document.getElementById(place.dataset.chart).textContent);
  place.replaceChildren();
  await window.vegaEmbed(place, chart, {
    actions: false, ast: true, defaultStyle: false, renderer: "svg",
    tooltip: { disableDefaultStyle: true },
  });
}

// A figure as [kind, size]: amounts exactly, lengths of time in seconds, and else the text.
const SECONDS = { d: 86400n, h: 3600n, m: 60n, s: 1n };
function key(text) {
  if (text === "unlimited") return [0, null];
  const amount = text.match(/^(-?)([\d,]+)(?:\.(\d+))?%?$/);
  if (amount) {
    const [, sign, whole, part = ""] = amount;
    const size = BigInt(whole.replaceAll(",", "") + part.padEnd(18, "0"));
    return [0, sign ? -size : size];
  }
  const parts = [...text.matchAll(/(?:^|\s)([\d,]+)([dhms])(?=\s|$)/g)];
  if (parts.length && parts[0].index === 0) {
    const seconds = parts.slice(0, text.includes(" to ") ? 1 : 2).map(
      ([, count, unit]) => BigInt(count.replaceAll(",", "")) * SECONDS[unit]);
    return [0, seconds.reduce((sum, one) => sum + one, 0n)];
  }
  return [text === "" ? 2 : 1, text];
}

const words = new Intl.Collator("en", { numeric: true });
function compare(a, b) {
  if (a[0] !== b[0]) return a[0] - b[0];
  if (a[0] === 1) return words.compare(a[1], b[1]);
  if (a[1] === b[1]) return 0;
  if (a[1] === null) return 1;
  if (b[1] === null) return -1;
  return a[1] < b[1] ? -1 : 1;
}

function sort(table, head) {
  const column = head.cellIndex;
  const figures = head.classList.contains("right");
  const before = head.getAttribute("aria-sort");
  const up = before ? before === "descending" : !figures;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.tBodies[0];
  const lines = [...body.rows].map((row) => [key(row.cells[column].textContent.trim()), row]);
  lines.sort(([a], [b]) => {
    // What has no value stands last, whichever way.
    if ((a[0] === 2) !== (b[0] === 2)) return a[0] - b[0];
    return up ? compare(a, b) : compare(b, a);
  });
  body.append(...lines.map(([, row]) => row));
  document.getElementById("said").textContent =
    `${table.caption.textContent}: sorted by ${head.textContent}, ${up ? "ascending" : "descending"}`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(table, head));
    head.replaceChildren(button);
  }
}

await Promise.all([...document.querySelectorAll("[data-chart]")].map(draw));
root.dataset.drawn = "all";
