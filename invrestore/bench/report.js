"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const one = (selector, inside = document) => inside.querySelector(selector);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// --- Tables: differences to a row of choice, and sorting ---

const signed = (value, digits) => {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value > 0 ? "+" : "\u2212") + text;
};

function compareTo(reference) {
  const { pairs, expected } = data.differences;
  for (const row of all(".differences tbody tr")) {
    const number = Number(row.dataset.row), self = number === reference;
    row.classList.toggle("is-reference", self);
    for (const cell of all("td", row)) {
      const { column, metric } = cell.dataset, digits = Number(cell.dataset.digits) + (metric === "psnr" ? 0 : 1);
      const pair = pairs[[column, metric, Math.min(number, reference), Math.max(number, reference)]];
      cell.classList.remove("better", "worse", "none");
      cell.replaceChildren();
      if (self || !pair) {
        cell.textContent = self ? "reference" : "\u2013";
        cell.classList.add("none");
        cell.dataset.value = self ? 0 : "";
        continue;
      }
      const [n, first, half] = pair, mean = number < reference ? first : -first;
      const value = document.createElement("span"), interval = document.createElement("small");
      value.textContent = signed(mean, digits);
      interval.textContent = half === null ? "one image" : `[${signed(mean - half, digits)}, ${signed(mean + half, digits)}]`;
      if (n < expected[[column, metric]]) {
        const remark = document.createElement("small");
        remark.className = "remark";
        remark.textContent = `\u2020 ${n}/${expected[[column, metric]]}`;
        remark.title = `Compared on ${n} images`;
        cell.append(remark, " ");
      }
      cell.append(value, interval);
      cell.dataset.value = mean;
      if (half !== null && Math.abs(mean) > half)
        cell.classList.add(mean > 0 === (cell.dataset.higher === "1") ? "better" : "worse");
    }
  }
  const choice = one("#reference");
  one("#reference-name").textContent = choice.selectedOptions[0].textContent;
}

one("#reference").onchange = event => compareTo(Number(event.target.value));
if (one("#reference").value) compareTo(Number(one("#reference").value));

for (const table of all("#results table")) {
  const body = table.tBodies[0], start = [...body.rows], heads = all("thead tr:nth-child(2) th", table);
  heads.forEach((head, column) => one("button", head).onclick = () => {
    const next = { descending: "ascending", ascending: null }[head.getAttribute("aria-sort")];
    const order = next === undefined ? "descending" : next;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    const number = row => {
      const text = row.cells[column + 1].dataset.value;
      return text === undefined || text === "" ? NaN : text === "inf" ? Infinity : Number(text);
    };
    const rows = [...start];
    if (order) {
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const [x, y] = [number(a), number(b)];
        return Number.isNaN(x) - Number.isNaN(y) || (x === y ? 0 : sign * (x < y ? -1 : 1));
      });
    }
    body.append(...rows);
  });
}

// --- Curves: switch lines off, and point one out ---

const charts = one(".charts");
for (const button of all(".lines button")) {
  const lines = all(`.line[data-row="${button.dataset.row}"]`, charts);
  const point = on => {
    charts.classList.toggle("focus", on && button.getAttribute("aria-pressed") === "true");
    lines.forEach(line => line.classList.toggle("on", on));
  };
  button.onclick = () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    lines.forEach(line => line.classList.toggle("off", !shown));
    point(shown);
  };
  button.onmouseenter = button.onfocus = () => point(true);
  button.onmouseleave = button.onblur = () => point(false);
}

// --- Pictures: choice, zoom in all of them at once, slider ---

if (one("#viewer")) {
  const { groups, sources } = data.pictures;
  const viewer = one("#viewer"), frames = one(".frames"), slider = one("#slider");
  const [pickImages, pickIndex, pickLeft, pickRight] = ["images", "index", "left", "right"].map(id => one(`#pick-${id}`));
  const tasks = all("#pick-task input"), clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const zoom = { scale: 1, x: .5, y: .5 };
  const sides = { left: "measured", right: data.pictures.reference };
  let group;

  const options = (select, entries) =>
    select.replaceChildren(...entries.map(([value, label]) => new Option(label, value)));

  function place() {
    const half = .5 / zoom.scale;
    zoom.x = clamp(zoom.x, half, 1 - half);
    zoom.y = clamp(zoom.y, half, 1 - half);
    for (const [name, value] of [["--z", zoom.scale], ["--x", zoom.x - half], ["--y", zoom.y - half]])
      viewer.style.setProperty(name, value);
    viewer.classList.toggle("zoomed", zoom.scale > 1);
    for (const frame of all(".frame", viewer))
      frame.classList.toggle("pixel", frame.clientWidth * zoom.scale >= 1.9 * Number(frame.dataset.width));
    one("#zoom-level").textContent = `${+zoom.scale.toFixed(1)}\u00d7`;
  }

  // Keep what is under the point (u, v) of a frame, both in [0, 1], where it is.
  function zoomTo(scale, u = .5, v = .5) {
    scale = clamp(scale, 1, 32);
    const x = zoom.x + (u - .5) / zoom.scale, y = zoom.y + (v - .5) / zoom.scale;
    Object.assign(zoom, { scale, x: x - (u - .5) / scale, y: y - (v - .5) / scale });
    place();
  }

  function move(dx, dy) {
    zoom.x += dx / zoom.scale;
    zoom.y += dy / zoom.scale;
    place();
  }

  const shape = (frame, picture) => {
    frame.style.aspectRatio = `${picture.width} / ${picture.height}`;
    frame.dataset.width = picture.width;
  };

  function slide() {
    const [left, right] = [pickLeft, pickRight].map(select => group.pictures[select.value]);
    const [below, above] = all("img", slider);
    shape(slider, left);
    for (const [img, picture, tag] of [[below, left, ".left"], [above, right, ".right"]]) {
      img.src = sources[picture.source];
      img.alt = picture.label;
      one(`.tag${tag}`, slider).textContent = picture.label;
    }
    place();
  }

  function figure(picture) {
    const figure = document.createElement("figure"), frame = document.createElement("div"), img = new Image();
    const caption = document.createElement("figcaption"), score = document.createElement("small");
    frame.className = "frame";
    shape(frame, picture);
    img.src = sources[picture.source];
    img.alt = picture.label;
    frame.append(img);
    caption.textContent = picture.label;
    score.textContent = picture.score || "\u00a0";
    caption.append(score);
    figure.classList.toggle("best", picture.best);
    figure.append(frame, caption);
    return figure;
  }

  function show(found) {
    group = found;
    const pictures = group.pictures, entries = pictures.map((picture, i) => [i, picture.label]);
    frames.style.setProperty("--side", pictures[0].width > 128 ? "235px" : "165px");
    frames.replaceChildren(...pictures.map(figure));
    const position = (method, otherwise) => {
      const i = pictures.findIndex(picture => picture.method === method);
      return i < 0 ? otherwise : i;
    };
    options(pickLeft, entries);
    options(pickRight, entries);
    pickLeft.value = position(sides.left, 0);
    pickRight.value = position(sides.right, pictures.length - 1);
    slide();
  }

  // The group that was asked for, or the nearest to it that exists.
  function choose() {
    const here = groups.filter(g => g.images === pickImages.value);
    const indices = new Map(here.map(g => [String(g.index), g.image]));
    const index = indices.has(pickIndex.value) ? pickIndex.value : [...indices.keys()][0];
    options(pickIndex, [...indices]);
    pickIndex.value = index;
    const fitting = here.filter(g => String(g.index) === index);
    const wanted = tasks.find(input => input.checked)?.value;
    const found = fitting.find(g => g.task === wanted) ?? fitting[0];
    tasks.forEach(input => {
      input.hidden = !fitting.some(g => g.task === input.value);
      input.checked = input.value === found.task;
    });
    show(found);
  }

  for (const option of [...pickImages.options])
    if (!groups.some(g => g.images === option.value)) option.remove();
  if (pickImages.options.length < 2) pickImages.parentElement.hidden = true;
  pickImages.onchange = pickIndex.onchange = choose;
  tasks.forEach(input => input.onchange = choose);
  for (const [side, select] of [["left", pickLeft], ["right", pickRight]])
    select.onchange = () => { sides[side] = group.pictures[select.value].method; slide(); };
  one("input", slider).oninput = event => slider.style.setProperty("--at", event.target.value + "%");

  one("#zoom-in").onclick = () => zoomTo(zoom.scale * 2);
  one("#zoom-out").onclick = () => zoomTo(zoom.scale / 2);
  one("#zoom-reset").onclick = () => zoomTo(1);
  const keys = {
    "+": () => zoomTo(zoom.scale * 2), "=": () => zoomTo(zoom.scale * 2), "-": () => zoomTo(zoom.scale / 2), "0": () => zoomTo(1),
    ArrowLeft: () => move(-.1, 0), ArrowRight: () => move(.1, 0), ArrowUp: () => move(0, -.1), ArrowDown: () => move(0, .1),
  };
  frames.onkeydown = event => {
    const known = keys[event.key];
    if (!known || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow") && zoom.scale === 1) return;
    event.preventDefault();
    known();
  };

  const within = event => {
    const box = event.target.closest(".frame")?.getBoundingClientRect();
    return box && [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  let drag = null;
  frames.onpointerdown = event => {
    const at = within(event);
    if (at && event.button === 0) drag = { at, start: at, frame: event.target.closest(".frame"), moved: false };
  };
  frames.onpointermove = event => {
    const at = within(event);
    if (at) {
      frames.style.setProperty("--px", at[0]);
      frames.style.setProperty("--py", at[1]);
    }
    if (!drag || !at || event.target.closest(".frame") !== drag.frame) return;
    if (Math.hypot(at[0] - drag.start[0], at[1] - drag.start[1]) > .015) drag.moved = true;
    if (drag.moved && zoom.scale > 1) move(drag.at[0] - at[0], drag.at[1] - at[1]);
    drag.at = at;
  };
  frames.onpointerup = event => {
    const at = within(event);
    if (drag && at && !drag.moved) zoomTo(event.shiftKey ? zoom.scale / 2 : zoom.scale * 2, ...at);
    drag = null;
  };
  frames.onpointerleave = frames.onpointercancel = () => { drag = null; };
  frames.addEventListener("wheel", event => {
    const at = within(event);
    if (!at || !event.ctrlKey) return;
    event.preventDefault();
    zoomTo(zoom.scale * 2 ** (-event.deltaY / 120), ...at);
  }, { passive: false });

  addEventListener("resize", place);
  choose();
}
