// A list of any length: only the tiles near the visible part are in the document.
const GAP = 8, CHUNK = 120, AROUND = 4; // rows of tiles kept above and below

let state = null; // of the one grid of a view

export function arrange(grid, changed) {
  state?.stop.abort();
  const stop = new AbortController();
  state = { grid, changed, stop, total: Number(grid.dataset.total), tiles: new Map(), asked: new Map(), columns: 1, size: 128 };
  const draw = () => requestAnimationFrame(() => state?.grid === grid && layOut());
  addEventListener("scroll", draw, { passive: true, signal: stop.signal });
  addEventListener("resize", draw, { signal: stop.signal });
  layOut();
}

function layOut() {
  const { grid, total } = state;
  const least = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--tile"));
  const columns = Math.max(1, Math.floor((grid.clientWidth + GAP) / (least + GAP)));
  const size = (grid.clientWidth + GAP) / columns - GAP; // no empty margin at the right
  grid.style.setProperty("--tile", `${size}px`);
  if (columns !== state.columns || size !== state.size) {
    Object.assign(state, { columns, size });
    for (const [index, tile] of state.tiles) place(tile, index);
  }
  const height = size + GAP;
  grid.style.height = `${Math.ceil(total / columns) * height}px`;
  const top = -grid.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(top / height) - AROUND) * columns;
  const last = Math.min(total, (Math.ceil((top + innerHeight) / height) + AROUND) * columns);
  Object.assign(state, { first, last });
  for (const [index, tile] of state.tiles) {
    if ((index < first || index >= last) && tile !== document.activeElement) {
      tile.remove();
      state.tiles.delete(index);
    }
  }
  for (let begin = Math.floor(first / CHUNK) * CHUNK; begin < last; begin += CHUNK) fill(state, begin);
}

async function fill(of, begin) {
  const tiles = await chunk(of, begin); // meanwhile, the list may have been scrolled
  if (of !== state) return;
  let added = false;
  const fragment = document.createDocumentFragment();
  for (let index = Math.max(of.first, begin); index < Math.min(of.last, begin + tiles.length); index++) {
    if (of.tiles.has(index)) continue;
    const tile = tiles[index - begin].cloneNode(true);
    place(tile, index);
    of.tiles.set(index, tile);
    fragment.append(tile);
    added = true;
  }
  of.grid.append(fragment);
  if (added) of.changed();
}

function chunk(of, begin) {
  if (!of.asked.has(begin)) {
    const query = new URLSearchParams(of.grid.dataset.query);
    query.set("from", begin);
    query.set("total", of.total);
    const made = fetch(`/tiles?${query}`).then((answer) => (answer.ok ? answer.text() : "")).then((text) => {
      const template = document.createElement("template");
      template.innerHTML = text;
      return [...template.content.querySelectorAll(".tile")].slice(0, CHUNK);
    });
    of.asked.set(begin, made);
    if (of.asked.size > 12) of.asked.delete(of.asked.keys().next().value);
  }
  return of.asked.get(begin);
}

function place(tile, index) {
  const step = state.size + GAP;
  tile.style.transform = `translate(${(index % state.columns) * step}px, ${Math.floor(index / state.columns) * step}px)`;
}

// The tile at an index, scrolled to and in the document.
export async function reveal(grid, index) {
  if (index < 0 || index >= state.total) return null;
  const step = state.size + GAP;
  const top = grid.getBoundingClientRect().top + Math.floor(index / state.columns) * step;
  if (top < 64) scrollBy(0, top - 64);
  else if (top + step > innerHeight - 90) scrollBy(0, top + step - innerHeight + 90);
  if (!state.tiles.has(index)) {
    layOut();
    await fill(state, Math.floor(index / CHUNK) * CHUNK);
  }
  return state.tiles.get(index);
}

export function step(grid, index, dx, dy) {
  return reveal(grid, index + dx + dy * state.columns);
}
