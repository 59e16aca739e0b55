// The map of all regions on a canvas: hover, lasso and box, zoom, and the arrow keys.
let stop = null;

export function startMap({ select, show, selected }) {
  stop?.abort();
  const canvas = document.querySelector("#map");
  if (!canvas) return;
  stop = new AbortController();
  const options = { signal: stop.signal };
  const hover = document.querySelector("#hover");
  const at = document.querySelector("#at");
  const key = document.body.dataset.key;
  const pen = canvas.getContext("2d");
  let points = null, colours = null, decided = null, n = 0;
  let zoom = startMap.zoom ?? { scale: 1, x: 0, y: 0 }; // kept when the view is refreshed
  let mode = "lasso", path = null, dragged = false, current = -1, down = null;

  const pad = 24;
  const side = () => [canvas.clientWidth - 2 * pad, canvas.clientHeight - 2 * pad];
  const screen = (i) => {
    const [w, h] = side();
    return [pad + (points[2 * i] * zoom.scale + zoom.x) * w, pad + (points[2 * i + 1] * zoom.scale + zoom.y) * h];
  };
  const radius = () => Math.max(1.5, Math.min(6, 160 / Math.sqrt(n || 1)) * Math.sqrt(zoom.scale));

  function draw() {
    const ratio = devicePixelRatio || 1;
    const [w, h] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, h);
    if (!points) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (c) => style.getPropertyValue(`--c${c}`).trim();
    const r = radius();
    for (let c = -1; c < 12; c++) {
      pen.fillStyle = colour(c);
      pen.globalAlpha = c < 0 ? 0.5 : 0.85;
      pen.beginPath();
      for (let i = 0; i < n; i++) {
        if (colours[i] !== c) continue;
        const [x, y] = screen(i);
        if (x < -9 || y < -9 || x > w + 9 || y > h + 9) continue;
        pen.moveTo(x + r, y);
        pen.arc(x, y, r, 0, 7);
      }
      pen.fill();
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = style.getPropertyValue("--ink").trim();
    pen.lineWidth = 2;
    pen.beginPath();
    for (const i of selected) ring(i, r + 2);
    pen.stroke();
    if (current >= 0) {
      pen.lineWidth = 3;
      pen.beginPath();
      ring(current, r + 5);
      pen.stroke();
    }
    if (path?.length > 1) {
      pen.lineWidth = 1.5;
      pen.setLineDash([5, 4]);
      pen.beginPath();
      for (const [x, y] of outline()) pen.lineTo(x, y);
      pen.closePath();
      pen.stroke();
      pen.setLineDash([]);
    }
  }

  function ring(i, r) {
    const [x, y] = screen(i);
    pen.moveTo(x + r, y);
    pen.arc(x, y, r, 0, 7);
  }

  function outline() {
    if (mode === "lasso") return path;
    const [[a, b], [c, d]] = [path[0], path.at(-1)];
    return [[a, b], [c, b], [c, d], [a, d]];
  }

  function inside(line, x, y) {
    let odd = false;
    for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
      const [[a, b], [c, d]] = [line[i], line[j]];
      if (b > y !== d > y && x < ((c - a) * (y - b)) / (d - b) + a) odd = !odd;
    }
    return odd;
  }

  function nearest(x, y, reach = 14) {
    let found = -1, best = reach * reach;
    for (let i = 0; i < n; i++) {
      const [a, b] = screen(i);
      const d = (a - x) ** 2 + (b - y) ** 2;
      if (d < best) [found, best] = [i, d];
    }
    return found;
  }

  function point(i, speak = false) {
    current = i;
    hover.hidden = i < 0;
    if (i >= 0) {
      hover.querySelector("img").src = `/thumbnail?row=${i}&key=${key}`;
      const [x, y] = screen(i);
      const [w, h] = [canvas.clientWidth, canvas.clientHeight];
      hover.style.left = `${x + 150 > w ? x - 142 : x + 14}px`;
      hover.style.top = `${Math.max(4, Math.min(y - 64, h - 132))}px`;
    }
    if (speak) at.textContent = i < 0 ? "" : `Region ${i}${decided[i] ? ", decided" : ""}${selected.has(i) ? ", selected" : ""}`;
    draw();
  }

  const position = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!points) return;
    canvas.setPointerCapture(event.pointerId);
    [down, path, dragged] = [position(event), [position(event)], false];
  }, options);
  canvas.addEventListener("pointermove", (event) => {
    if (!points) return;
    const [x, y] = position(event);
    if (!path) return point(nearest(x, y));
    path.push([x, y]);
    dragged ||= Math.hypot(x - down[0], y - down[1]) > 6;
    if (dragged) point(-1);
  }, options);
  canvas.addEventListener("pointerup", (event) => {
    if (!path) return;
    const [x, y] = position(event);
    if (dragged) {
      const line = outline(), rows = [];
      for (let i = 0; i < n; i++) if (inside(line, ...screen(i))) rows.push(i);
      path = null;
      select(rows, event.shiftKey);
      at.textContent = `${rows.length} regions in this area`;
    } else {
      path = null;
      const i = nearest(x, y);
      if (i >= 0 && (event.shiftKey || event.ctrlKey)) toggle(i);
      else if (i >= 0) show(i);
    }
    draw();
  }, options);
  canvas.addEventListener("pointerleave", () => !path && point(-1), options);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = position(event), [w, h] = side();
    zoomAt((x - pad) / w, (y - pad) / h, event.deltaY < 0 ? 1.25 : 0.8);
  }, { ...options, passive: false });

  function zoomAt(x, y, factor) {
    const scale = Math.max(1, Math.min(60, zoom.scale * factor));
    const share = scale / zoom.scale;
    zoom = scale === 1 ? { scale: 1, x: 0, y: 0 } : { scale, x: x - (x - zoom.x) * share, y: y - (y - zoom.y) * share };
    startMap.zoom = zoom;
    point(-1);
  }

  function toggle(i) {
    const rows = new Set(selected);
    if (!rows.delete(i)) rows.add(i);
    select([...rows], false);
  }

  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const way = ways[event.key];
    if (!points) return;
    if (way) {
      event.preventDefault();
      if (current < 0) return point(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, 1e9), true);
      const [x, y] = screen(current);
      let found = current, best = Infinity;
      for (let i = 0; i < n; i++) {
        const [a, b] = screen(i);
        const along = (a - x) * way[0] + (b - y) * way[1];
        const aside = Math.abs((a - x) * way[1]) + Math.abs((b - y) * way[0]);
        if (along > 0.5 && along + 3 * aside < best) [found, best] = [i, along + 3 * aside];
      }
      point(found, true);
    } else if (event.key === " " && current >= 0) {
      event.preventDefault();
      toggle(current);
      point(current, true);
    } else if (event.key === "Enter" && current >= 0) show(current);
  }, options);

  for (const button of document.querySelectorAll(".modes button")) {
    button.addEventListener("click", () => {
      if (button.dataset.mode) {
        mode = button.dataset.mode;
        for (const b of document.querySelectorAll("[data-mode]")) b.setAttribute("aria-pressed", String(b === button));
      } else if (button.dataset.zoom === "all") zoomAt(0.5, 0.5, 0);
      else zoomAt(0.5, 0.5, button.dataset.zoom === "in" ? 1.5 : 1 / 1.5);
    }, options);
  }

  // A few of the selected regions, so that one sees what was caught.
  document.addEventListener("selected", () => {
    const box = document.querySelector("#chosen");
    if (!box) return;
    box.replaceChildren(...[...selected].slice(0, 30).map((row) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "plain";
      button.dataset.region = row;
      button.setAttribute("aria-label", `Region ${row}`);
      const picture = new Image(76, 76);
      picture.alt = "";
      picture.loading = "lazy";
      picture.src = `/thumbnail?row=${row}&key=${key}`;
      button.append(picture);
      return button;
    }));
    draw();
  }, options);
  addEventListener("resize", draw, options);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, options);

  async function load() {
    const answer = await fetch("/map/points", options).catch(() => null);
    if (!answer) return;
    if (answer.status === 204) return setTimeout(load, 700);
    const content = await answer.arrayBuffer();
    n = content.byteLength / 10;
    points = new Float32Array(content, 0, 2 * n);
    colours = new Int8Array(content, 8 * n, n);
    decided = new Uint8Array(content, 9 * n, n);
    document.querySelector("#drawing").hidden = true;
    canvas.dataset.ready = n;
    draw();
  }
  load();
}
