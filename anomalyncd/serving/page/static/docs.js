// Show /openapi.json, and send an example. No script comes from elsewhere.
const find = (id) => document.getElementById(id);

function add(parent, tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  parent.append(made);
  return made;
}

function show(path, method, operation) {
  const card = add(find("paths"), "section", "", "card");
  add(card, "h2", `${method.toUpperCase()} ${path}`);
  add(card, "p", operation.description ?? "");
  for (const one of operation.parameters ?? []) {
    add(card, "p", `?${one.name}=  ${one.schema.type}${one.required ? "" : ", may be left out"}`, "soft");
  }
  const types = Object.keys(operation.requestBody?.content ?? {});
  if (types.length) add(card, "p", `Body: ${types.join(", ")}`, "soft");
  const table = add(card, "table", "");
  for (const [status, answer] of Object.entries(operation.responses)) {
    const row = add(table, "tr", "");
    add(row, "td", status);
    const cell = add(row, "td", answer.description);
    const example = answer.content?.["application/json"]?.example;
    if (example) add(cell, "pre", JSON.stringify(example, null, 1));
  }
}

function drawn() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 96;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "rgb(90 90 90)";
  pen.fillRect(0, 0, 96, 96);
  pen.fillStyle = "rgb(255 255 255)";
  pen.fillRect(32, 32, 16, 16);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

find("try").addEventListener("click", async () => {
  const form = new FormData();
  form.append("file", await drawn(), "example.png");
  const headers = find("key").value ? { Authorization: `Bearer ${find("key").value}` } : {};
  find("answer").hidden = false;
  find("answer").textContent = "…";
  try {
    const answer = await fetch("/predict", { method: "POST", body: form, headers });
    find("answer").textContent = `${answer.status}\n${JSON.stringify(await answer.json(), null, 1)}`;
  } catch (error) {
    find("answer").textContent = error.message;
  }
});

find("curl").textContent = `curl -F file=@photograph.png ${location.origin}/predict`;
const { paths } = await (await fetch("/openapi.json")).json();
for (const [path, methods] of Object.entries(paths)) {
  for (const [method, operation] of Object.entries(methods)) show(path, method, operation);
}
