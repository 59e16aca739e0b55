// Send a photograph, and show what the service says of it.
const find = (id) => document.getElementById(id);
const meanings = {
  "-1": "Unlike every class that the model has learned.",
  "-2": "Unlike the photographs that the model has seen: another product, or another camera.",
};
let key = "";
let card = null;
let last = 0; // number of the photograph that is shown

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) find("key-form").hidden = false;
  if (!answer.ok) {
    let reason = `the service answers ${answer.status}`;
    try { reason = (await answer.json()).detail; } catch { /* no JSON: the status is all there is */ }
    if (answer.status === 429) reason += `; try again in ${answer.headers.get("Retry-After")} s`;
    throw new Error(reason);
  }
  return answer;
}

function say(text, wrong = false) {
  find("says").textContent = text;
  find("says").classList.toggle("wrong", wrong);
}

async function start() {
  try {
    card = await (await ask("/card")).json();
  } catch (error) {
    say(error.message, true);
    return;
  }
  find("key-form").hidden = true;
  say("");
  const names = Object.keys(card.models);
  find("model").replaceChildren(...names.map((name) => new Option(name, name)));
  find("choice").hidden = names.length < 2;
}

async function classify(file) {
  const number = ++last;
  find("result").hidden = true;
  say(`Classifying ${file.name} …`);
  try {
    const model = find("model").value;
    const form = new FormData();
    form.append("file", file);
    const [answer, picture] = await Promise.all([
      ask(`/predict?model=${encodeURIComponent(model)}`, { method: "POST", body: form }),
      // As the service reads it: a photograph is not turned by its orientation tag.
      createImageBitmap(file, { imageOrientation: "none" }).catch(() => null),
    ]);
    const { photographs: [found] } = await answer.json();
    if (number !== last) return;
    show(found, picture, model);
    say(picture ? "" : "This browser cannot show this kind of file; its regions are drawn alone.");
  } catch (error) {
    if (number === last) say(error.message, true);
  }
}

function show(found, picture, model) {
  find("result").hidden = false;
  find("name").textContent = found.file;
  find("class").textContent = found.class_name;
  find("bar").firstElementChild.style.width = `${100 * found.confidence}%`;
  find("confidence").textContent = `Confidence ${(100 * found.confidence).toFixed(1)} %`;
  const meaning = meanings[found.class_id];
  find("meaning").hidden = !meaning;
  find("meaning").textContent = meaning ? `${meaning} The most similar class is ${found.nearest_class}.` : "";
  const marked = found.regions.filter((region) => region.area > 0);
  find("regions-title").textContent = marked.length ? "Regions" : "No region stands out";
  find("regions").replaceChildren(...marked.map((region, i) => item(region, i, model)));
  const knows = card.models[model]?.knows_regions;
  find("no-neighbours").hidden = knows || !marked.length;
  draw(found, marked, picture);
}

function item(region, i, model) {
  const entry = document.createElement("li");
  const text = document.createElement("p");
  const number = document.createElement("span");
  number.className = "number";
  number.textContent = i + 1;
  const details = ` · ${(100 * region.confidence).toFixed(0)} %, anomaly score ${region.anomaly_score.toFixed(2)}`;
  text.append(number, region.class_name, details);
  entry.append(text);
  if (region.similar?.length) {
    const title = document.createElement("p");
    title.className = "soft";
    title.textContent = "Most similar known regions";
    entry.append(title);
    const row = document.createElement("div");
    row.className = "similar";
    row.append(...region.similar.map((one) => neighbour(one, model)));
    entry.append(row);
  }
  return entry;
}

function neighbour(one, model) {
  const tile = document.createElement("div");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 80;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Known region of ${one.class_name}`);
  tile.append(canvas, `${one.class_name} ${one.cosine.toFixed(2)}`);
  ask(`/known?region=${one.region}&model=${encodeURIComponent(model)}`)
    .then((answer) => answer.blob())
    .then(createImageBitmap)
    .then((picture) => canvas.getContext("2d").drawImage(picture, 0, 0, 80, 80))
    .catch(() => { canvas.hidden = true; }); // its photograph is gone; the class is still shown
  return tile;
}

function draw(found, marked, picture) {
  const longer = Math.max(found.width, found.height);
  const scale = Math.min(Math.max(longer, 1000), 2000) / longer; // small ones enlarged: lines stay sharp
  const canvas = find("picture");
  canvas.width = Math.round(found.width * scale);
  canvas.height = Math.round(found.height * scale);
  const pen = canvas.getContext("2d");
  if (picture) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const unit = Math.max(canvas.width, canvas.height) / 500; // of what is seen
  const names = [];
  marked.forEach((region, i) => {
    const lines = region.outlines.length ? region.outlines : [corners(region.box)];
    for (const line of lines) {
      pen.beginPath();
      for (const [x, y] of line) pen.lineTo((x + 0.5) * scale, (y + 0.5) * scale);
      pen.closePath();
      for (const [colour, width] of [["rgb(0 40 30)", 4], ["rgb(60 255 190)", 1.6]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = width * unit;
        pen.stroke();
      }
    }
    const [left, top, right, bottom] = region.box.map((value) => value * scale);
    pen.setLineDash([4 * unit, 3 * unit]);
    pen.lineWidth = unit;
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.setLineDash([]);
    label(pen, `${i + 1}  ${region.class_name}`, Math.max(left, 0), Math.max(top, 0), unit);
    names.push(region.class_name);
  });
  canvas.setAttribute("aria-label", `${found.file} with regions: ${names.join(", ") || "none"}`);
  find("caption").textContent = `${found.width} × ${found.height} pixels`;
}

function label(pen, text, left, top, unit) {
  const line = 14 * unit;
  pen.font = `600 ${11 * unit}px system-ui, sans-serif`;
  const wide = pen.measureText(text).width + 8 * unit;
  const x = Math.max(Math.min(left, pen.canvas.width - wide), 0);
  const y = Math.max(top - line, 0);
  pen.fillStyle = "rgb(0 40 30)";
  pen.fillRect(x, y, wide, line);
  pen.fillStyle = "rgb(60 255 190)";
  pen.fillText(text, x + 4 * unit, y + 10.5 * unit);
}

const corners = ([left, top, right, bottom]) => [[left, top], [right, top], [right, bottom], [left, bottom]];

find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = find("key").value;
  start();
});
find("file").addEventListener("change", () => {
  const [file] = find("file").files;
  find("file").value = ""; // so that the same one can be chosen again
  if (file) classify(file);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // a photograph beside the frame must not replace the page
    find("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
}
start();
