"use strict";
// Makes the drawn charts interactive. The page is complete without this script, which only adds to it.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const list = (index) => data.arrays[index];
  const views = []; // one per chart: {svg, figure, chart, subjects, overlay, pointed}
  const state = Object.fromEntries(
    Object.entries(data.subjects).map(([name, subjects]) => [name, { picked: null, step: subjects.drawn, moved: false }]),
  );
  let refreshBar = () => {};
  const shown = { linear: false, from: null, to: null, filter: "" }; // how steps are laid out, and which subjects

  // This is the only place where text from a run enters the page, and it enters as text.
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const draw = (tag, attributes, parent) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return parent.appendChild(element);
  };

  const show = (value, title) => {
    if (value === null || value === undefined) return "no value";
    if (title.includes("°")) return `${value.toFixed(1)}°`;
    if (title.includes("%")) return `${value.toFixed(1)} %`;
    return String(Number(value.toPrecision(3)));
  };
  const bare = (title) => title.replace(/ \([^)]*\)$/, "");

  // The axis of steps: where a step stands on it as drawn, and where it is to stand.
  const STRETCH = 0.3 / (1 - 1 / 10); // as matplotlib's symlog with linscale 0.3
  const layout = (linearTo) => linearTo === 0 ? { to: (x) => x, from: (u) => u } : {
    to: (x) => (Math.abs(x) <= linearTo ? x * STRETCH : Math.sign(x) * linearTo * (STRETCH + Math.log10(Math.abs(x) / linearTo))),
    from: (u) => (Math.abs(u) <= linearTo * STRETCH ? u / STRETCH : Math.sign(u) * linearTo * 10 ** (Math.abs(u) / linearTo - STRETCH)),
  };
  const isChanged = () => shown.linear || shown.from !== null || shown.to !== null;
  const axisOf = (view) => {
    const { box: [x0, , x1], axis: [low, high, linearTo] } = view.chart;
    const drawn = layout(linearTo);
    const wanted = layout(shown.linear ? 0 : linearTo);
    const [u, v] = [drawn.to(low), drawn.to(high)];
    const pad = (0.02 / 1.04) * (v - u); // the margin that the drawn axis has at each end
    const [from, to] = [wanted.to(shown.from ?? drawn.from(u + pad)), wanted.to(shown.to ?? drawn.from(v - pad))];
    const [a, b] = [from - 0.02 * (to - from), to + 0.02 * (to - from)];
    const stepAt = (px) => drawn.from(u + ((px - x0) / (x1 - x0)) * (v - u));
    return {
      place: (step) => x0 + ((wanted.to(step) - a) / (b - a)) * (x1 - x0),
      step: (px) => wanted.from(a + ((px - x0) / (x1 - x0)) * (b - a)),
      shift: (px) => (px === null ? null : x0 + ((wanted.to(stepAt(px)) - a) / (b - a)) * (x1 - x0)),
      ends: [wanted.from(a), wanted.from(b)],
    };
  };
  const same = (px) => px;
  const shiftOf = (view) => (view.chart.axis && isChanged() ? axisOf(view).shift : same);
  const edgesOf = (view) => view.chart.edges.map(shiftOf(view));
  const places = (view, line) => {
    const shift = shiftOf(view);
    return shift === same || !view.chart.upright ? list(line.px) : list(line.px).map(shift);
  };

  // Lay a chart over steps out anew: every drawn point is shifted, and the ticks are replaced.
  const roundSteps = (low, high) => {
    const rough = (high - low) / 5;
    const size = 10 ** Math.floor(Math.log10(rough));
    const unit = Math.max(1, [1, 2, 5, 10].find((each) => each * size >= rough) * size);
    const ticks = [];
    for (let tick = Math.ceil(low / unit) * unit; tick <= high; tick += unit) ticks.push(tick);
    return ticks;
  };
  const decades = (low, high) => {
    const ticks = low <= 0 ? [0] : [];
    for (let tick = 1; tick <= high; tick *= 10) if (tick >= low) ticks.push(tick);
    return ticks;
  };
  const compact = (value) => {
    for (const [size, sign] of [[1e6, "M"], [1e3, "k"]]) if (value >= size) return `${Number((value / size).toPrecision(3))}${sign}`;
    return String(value);
  };
  const POINT = /(-?[\d.]+) (-?[\d.]+)/g; // of a path in which matplotlib has written absolute coordinates only
  const relay = (view) => {
    const axis = view.svg.querySelector('[data-id="step"]');
    if (!view.chart.axis || !axis) return;
    const group = axis.parentNode;
    view.original ??= [...group.querySelectorAll("[clip-path]")]
      .filter((element) => !axis.contains(element) && !axis.nextElementSibling.contains(element))
      .flatMap((element) => (element.tagName === "g" ? [...element.querySelectorAll("use")] : [element]))
      .map((element) => {
        const href = element.getAttribute("href") ?? element.getAttributeNS("http://www.w3.org/1999/xlink", "href");
        const isMarker = element.tagName === "use" && Number(element.getAttribute("x")) !== 0;
        const target = element.tagName === "use" && !isMarker ? view.svg.querySelector(href) : element;
        const name = isMarker ? "x" : "d";
        return [target, name, target.getAttribute(name)];
      });
    const shift = shiftOf(view);
    for (const [element, name, value] of view.original) {
      const moved = name === "x" ? shift(Number(value)) : value.replace(POINT, (_, x, y) => `${shift(Number(x)).toFixed(2)} ${y}`);
      element.setAttribute(name, shift === same ? value : moved);
    }
    for (const old of view.svg.querySelectorAll(".relaid")) old.remove();
    const ticks = [...axis.children].filter((child) => child.querySelector("use"));
    for (const tick of ticks) tick.style.display = shift === same ? "" : "none";
    const images = view.chart.edges.length ? [...group.querySelectorAll(":scope > image")] : []; // one for each ground
    const [image] = images;
    for (const each of images) each.style.display = shift === same ? "" : "none";
    if (shift === same) return;
    const { place, ends: [low, high] } = axisOf(view);
    const [x0, y0, x1, y1] = view.chart.box;
    const isLog = !shown.linear && view.chart.axis[2] > 0;
    const logs = isLog ? decades(low, high) : [];
    const style = axis.querySelector("text")?.getAttribute("style") ?? "";
    const marks = draw("g", { class: "relaid" }, axis);
    for (const tick of logs.length > 1 ? logs : roundSteps(low, high)) {
      const x = place(tick);
      if (x < x0 - 0.5 || x > x1 + 0.5) continue;
      draw("line", { class: "tick", x1: x, x2: x, y1: image ? y1 - 3 : y0, y2: y1 }, marks);
      draw("text", { x, y: y1 + 12, "text-anchor": "middle", style: style.replace(/text-anchor:[^;]*;?/, "") }, marks).textContent = compact(tick);
    }
    if (!image) return;
    const height = view.svg.viewBox.baseVal.height;
    const cells = draw("svg", { class: "relaid", x: x0, y: 0, width: x1 - x0, height, viewBox: `${x0} 0 ${x1 - x0} ${height}` }, image.parentNode);
    const edges = edgesOf(view);
    view.chart.edges.slice(1).forEach((edge, i) => {
      const [from, width] = [view.chart.edges[i], edge - view.chart.edges[i]];
      if (edges[i + 1] < x0 || edges[i] > x1 || width <= 0) return;
      const slice = draw("svg", {
        x: edges[i], y: 0, width: edges[i + 1] - edges[i] + 0.1, height, viewBox: `${from} 0 ${width} ${height}`, preserveAspectRatio: "none",
      }, cells);
      for (const each of images) slice.appendChild(each.cloneNode()).style.display = "";
    });
  };
  const layOut = (change) => {
    Object.assign(shown, change);
    for (const view of views) {
      relay(view);
      refresh(view);
    }
    refreshView();
  };
  let refreshView = () => {};

  // The values of a line at the selected step.
  const frame = (view, line, key) => {
    const frames = line[key === "py" ? "frames_py" : "frames"];
    return list(frames ? frames[state[view.subjects.name].step] : line[key]);
  };

  // Which subjects the filter keeps.
  const isKept = (subjects, subject) => (subjects.names[subject] ?? "").toLowerCase().includes(shown.filter);

  // The point of a chart under the pointer: its label, its position and its subject.
  const find = (view, x, y) => {
    const { chart, subjects } = view;
    const [x0, y0, x1, y1] = chart.box;
    if (x < x0 - 3 || x > x1 + 3 || y < y0 - 3 || y > y1 + 3) return null;
    if (chart.rows.length) {
      const cells = list(chart.rows[0]).length;
      const edges = edgesOf(view);
      const column = Math.min(cells - 1, Math.max(0, edges.findLastIndex((edge) => edge <= x)));
      const row = Math.min(chart.rows.length - 1, Math.max(0, Math.floor(((y1 - y) / (y1 - y0)) * chart.rows.length)));
      return {
        subject: row,
        name: subjects.names[row],
        at: `step ${subjects.steps[column]}`,
        value: list(chart.rows[row])[column],
        x: Math.min(x1, Math.max(x0, (edges[column] + edges[column + 1]) / 2)),
        y: y1 - ((row + 0.5) / chart.rows.length) * (y1 - y0),
      };
    }
    let best = null;
    for (const line of chart.lines) {
      const [px, py] = [places(view, line), frame(view, line, "py")];
      if (line.subject !== null && subjects && !isKept(subjects, line.subject)) continue;
      for (let i = 0; i < px.length; i++) {
        if (px[i] === null || py[i] === null || py[i] === undefined) continue;
        const [cx, cy] = chart.upright ? [px[i], py[i]] : [py[i], px[i]];
        if (cx < x0 - 1 || cx > x1 + 1 || cy < y0 - 1 || cy > y1 + 1) continue;
        const distance = (cx - x) ** 2 + (cy - y) ** 2;
        if (!best || distance < best.distance) best = { line, i, distance, x: cx, y: cy };
      }
    }
    if (!best) return null;
    const { line, i } = best;
    const at = list(line.at)[i];
    const along = chart.along === "layer" ? Math.round(at) : null;
    const subject = line.subject ?? along ?? chart.subject;
    const about = subject !== null && subjects ? subjects.names[subject] : "";
    const name = [...new Set([about, line.name, line.part])].filter(Boolean).join(", ");
    const words = along === null ? `${chart.along || chart.label} ${at}` : "";
    return { subject, name, at: words, value: frame(view, line, "values")[i], x: best.x, y: best.y };
  };

  const tip = document.body.appendChild(make("div", { class: "tip", "aria-hidden": "true" }));
  const point = (view, event) => {
    const rect = view.svg.getBoundingClientRect();
    const scale = view.svg.viewBox.baseVal.width / rect.width;
    const found = find(view, (event.clientX - rect.left) * scale, (event.clientY - rect.top) * scale);
    view.pointed = found;
    tip.classList.toggle("shown", found !== null);
    if (found) {
      const title = view.chart.title;
      const where = [bare(title), found.at].filter(Boolean).join(", ");
      tip.replaceChildren(
        ...(found.name ? [make("strong", {}, found.name)] : []),
        make("span", {}, where), make("b", {}, show(found.value, title)),
      );
      const { offsetWidth: width, offsetHeight: height } = tip;
      const left = rect.left + found.x / scale + 14;
      const top = rect.top + found.y / scale - height - 10;
      tip.style.left = `${Math.max(4, left + width > innerWidth - 4 ? left - width - 28 : left)}px`;
      tip.style.top = `${Math.max(4, top)}px`;
    }
    refresh(view);
  };
  const leave = (view) => {
    view.pointed = null;
    tip.classList.remove("shown");
    refresh(view);
  };

  const move = (view) => {
    for (const line of view.chart.lines.filter((each) => each.frames)) {
      const element = view.svg.querySelector(`[data-id="${line.id}"]`);
      const [px, py] = [list(line.px), frame(view, line, "py")];
      const points = px
        .map((p, i) => (py[i] === null || py[i] === undefined ? null : view.chart.upright ? [p, py[i]] : [py[i], p]));
      const path = points.map((p, i) => (p ? `${i && points[i - 1] ? "L" : "M"}${p[0]} ${p[1]}` : "")).join("");
      element.querySelector(":scope > path").setAttribute("d", path || "M0 0");
      const markers = element.querySelector(":scope > g");
      if (markers) {
        view.marker ??= {};
        const model = (view.marker[line.id] ??= markers.querySelector("use"));
        markers.replaceChildren(...points.filter(Boolean).map(([x, y]) => {
          const use = model.cloneNode();
          use.setAttribute("x", x);
          use.setAttribute("y", y);
          return use;
        }));
      }
    }
  };

  // Mark the picked subject and the pointed-at point in one chart.
  const refresh = (view) => {
    const { chart, subjects, overlay, svg } = view;
    const [x0, y0, x1, y1] = chart.box;
    const { picked, step, moved } = subjects ? state[subjects.name] : { picked: null, step: 0, moved: false };
    overlay.replaceChildren();
    const cells = chart.rows.length ? list(chart.rows[0]).length : 0;
    if (moved && chart.along === "step") {
      if (cells) {
        const edges = edgesOf(view).map((edge) => Math.min(x1, Math.max(x0, edge)));
        draw("rect", { class: "cursor", x: edges[step], y: y0, width: edges[step + 1] - edges[step], height: y1 - y0 }, overlay);
      } else if (list(chart.lines[0].px).length === subjects.steps.length) {
        const at = places(view, chart.lines[0])[step];
        if (at >= x0 && at <= x1) draw("line", { class: "cursor", x1: at, x2: at, y1: y0, y2: y1 }, overlay);
      }
    }
    if (picked !== null && cells) {
      const height = (y1 - y0) / chart.rows.length;
      draw("rect", { class: "row", x: x0, y: y1 - (picked + 1) * height, width: x1 - x0, height }, overlay);
    }
    for (const line of picked === null ? [] : chart.lines) {
      const i = chart.along === "layer" ? list(line.at).indexOf(picked) : line.subject === picked ? step : -1;
      const [p, q] = [places(view, line)[i], frame(view, line, "py")[i]];
      if (p === undefined || p === null || q === undefined || q === null) continue;
      const [cx, cy] = chart.upright ? [p, q] : [q, p];
      if (subjects.steps.length && cx >= x0 - 1 && cx <= x1 + 1) draw("circle", { class: "dot", cx, cy, r: 3 }, overlay);
    }
    if (view.pointed) draw("circle", { class: "ring", cx: view.pointed.x, cy: view.pointed.y, r: 4 }, overlay);
    svg.querySelectorAll("[data-subject]").forEach((element) => {
      element.classList.toggle("out", Boolean(subjects) && !isKept(subjects, Number(element.dataset.subject)));
      const own = Number(element.dataset.subject) === picked;
      element.classList.toggle("faded", picked !== null && !own);
      element.classList.toggle("picked", picked !== null && own);
      if (own && picked !== null) element.parentNode.append(element); // over the others
    });
    const own = picked !== null && chart.subject === picked;
    const among = views.some((each) => each.figure === view.figure && each.chart.subject === picked);
    svg.parentElement.classList.toggle("picked", own);
    svg.parentElement.classList.toggle("faded", picked !== null && among && !own);
  };

  const set = (name, change) => {
    const before = state[name].step;
    Object.assign(state[name], change);
    for (const view of views.filter((each) => each.subjects?.name === name)) {
      if (state[name].step !== before) move(view);
      refresh(view);
    }
    for (const button of document.querySelectorAll("table button")) {
      if (button.dataset.subjects !== name) continue;
      const own = Number(button.dataset.subject) === state[name].picked;
      button.setAttribute("aria-pressed", own);
      button.closest("tr").classList.toggle("picked", own);
    }
    for (const note of document.querySelectorAll(".at")) {
      if (note.dataset.subjects !== name) continue;
      const { steps, drawn } = data.subjects[name];
      note.hidden = state[name].step === drawn;
      note.textContent =
        `The lines are those of step ${steps[state[name].step]}; bands and text are those of step ${steps[drawn]}.`;
    }
    refreshBar();
  };
  const pick = (name, subject) => set(name, { picked: state[name].picked === subject ? null : subject });

  // Drag across a chart over steps to zoom into that interval; all such charts follow.
  const zoomable = (view) => {
    const { svg, chart } = view;
    if (!chart.axis) return;
    let start = null;
    const at = (event) => {
      const rect = svg.getBoundingClientRect();
      const x = (event.clientX - rect.left) * (svg.viewBox.baseVal.width / rect.width);
      return Math.min(chart.box[2], Math.max(chart.box[0], x));
    };
    svg.addEventListener("pointerdown", (event) => {
      start = event.button === 0 && event.pointerType !== "touch" ? at(event) : null;
    });
    svg.addEventListener("pointermove", (event) => {
      if (start === null || Math.abs(at(event) - start) < 6) return;
      const [x0, x1] = [start, at(event)].sort((a, b) => a - b);
      for (const old of view.overlay.querySelectorAll(".span")) old.remove();
      draw("rect", { class: "span", x: x0, y: chart.box[1], width: x1 - x0, height: chart.box[3] - chart.box[1] }, view.overlay);
    });
    svg.addEventListener("pointerup", (event) => {
      const [begin, end] = [start, at(event)];
      start = null;
      if (begin === null || Math.abs(end - begin) < 6) return;
      view.zoomed = true;
      const { step } = axisOf(view);
      const [from, to] = [begin, end].map((x) => Math.max(0, Math.round(step(x)))).sort((a, b) => a - b);
      if (to > from) layOut({ from, to });
    });
    svg.addEventListener("dblclick", () => layOut({ from: null, to: null }));
  };

  // The form above the sections: how steps are laid out, the interval that is shown, and a filter of the subjects.
  const viewForm = (subjects) => {
    const form = make("form", { class: "view", "aria-label": "Show" });
    form.addEventListener("submit", (event) => event.preventDefault());
    const charts = views.filter((view) => view.chart.axis);
    const labelled = (text, element) => form.append(make("label", { for: element.id }, text), element);
    if (charts.length) {
      const hasLog = charts.some((view) => view.chart.axis[2] > 0);
      const kind = make("select", { id: "axis" }, ...(hasLog ? [make("option", { value: "" }, "logarithmic")] : []), make("option", { value: "linear" }, "linear"));
      kind.addEventListener("change", () => layOut({ linear: hasLog && kind.value === "linear" }));
      const ends = charts.map((view) => view.subjects?.steps.at(-1)).filter(Boolean);
      const last = ends.length ? Math.max(...ends) : Math.max(...charts.map((view) => Math.floor(view.chart.axis[1])));
      const field = (id) => make("input", { type: "number", id, min: 0, max: last, step: 1, placeholder: id === "from" ? 0 : last });
      const [from, to] = [field("from"), field("to")];
      const number = (input) => (input.value === "" ? null : Number(input.value));
      for (const input of [from, to]) {
        input.addEventListener("change", () => {
          const wanted = { from: number(from), to: number(to) };
          if ((wanted.to ?? last) > (wanted.from ?? 0)) layOut(wanted);
        });
      }
      const whole = make("button", { type: "button" }, "whole run");
      whole.addEventListener("click", () => layOut({ from: null, to: null }));
      labelled("axis of steps", kind);
      labelled("from step", from);
      labelled("to", to);
      form.append(whole);
      refreshView = () => {
        from.value = shown.from ?? "";
        to.value = shown.to ?? "";
        whole.disabled = shown.from === null && shown.to === null;
      };
      refreshView();
    }
    if (subjects) {
      const filter = make("input", { type: "search", id: "filter", placeholder: "part of a name", autocomplete: "off" });
      filter.addEventListener("input", () => {
        shown.filter = filter.value.trim().toLowerCase();
        for (const view of views) {
          refresh(view);
          if (view.chart.subject !== null && view.subjects) view.svg.parentElement.classList.toggle("out", !isKept(view.subjects, view.chart.subject));
        }
        for (const row of document.querySelectorAll("tr[data-subject]")) {
          const about = data.subjects[row.closest("table").dataset.subjects];
          row.classList.toggle("out", !isKept(about, Number(row.dataset.subject)));
        }
      });
      labelled(`${subjects.kind}s with`, filter);
    }
    if (form.childElementCount) document.getElementById("content").before(form);
  };

  // The bar that shows the picked subject, the step, and the values there.
  const bar = (subjects) => {
    const kind = subjects.kind;
    const select = make("select", { id: "pick" }, make("option", { value: "" }, `every ${kind}`));
    subjects.names.forEach((name, i) => select.append(make("option", { value: i }, name)));
    const last = subjects.steps.length - 1;
    const slider = make("input", { type: "range", id: "step", min: 0, max: Math.max(0, last), value: subjects.drawn });
    const number = make("output", { for: "step", class: "step" });
    const values = make("output", { for: "pick step", class: "values", "aria-live": "polite" });
    const fields = [make("label", { for: "pick" }, kind), select];
    if (last > 0) fields.push(make("label", { for: "step" }, "step"), slider, number);
    const form = make("form", { class: "bar", "aria-label": `Pick a ${kind}${last > 0 ? " and a step" : ""}` });
    form.append(make("div", { class: "fields" }, ...fields), values);
    form.addEventListener("submit", (event) => event.preventDefault());
    select.addEventListener("change", () => {
      set(subjects.name, { picked: select.value === "" ? null : Number(select.value) });
    });
    slider.addEventListener("input", () => set(subjects.name, { step: Number(slider.value), moved: true }));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") set(subjects.name, { picked: null });
    });
    document.getElementById("content").after(form);
    refreshBar = () => {
      const { picked, step } = state[subjects.name];
      select.value = picked ?? "";
      slider.value = step;
      number.textContent = subjects.steps[step] ?? "";
      slider.setAttribute("aria-valuetext", `step ${subjects.steps[step]}`);
      values.replaceChildren(...(picked === null ? [`Pick a ${kind} here, in a chart or in a table.`] : read(subjects)));
    };
    refreshBar();
  };
  const read = (subjects) => {
    const { picked, step } = state[subjects.name];
    const found = new Map();
    for (const { chart } of views.filter((view) => view.subjects === subjects && view.chart.along === "step")) {
      const line = chart.lines.find((each) => each.subject === picked && !each.part);
      const values = chart.rows.length ? list(chart.rows[picked]) : line && list(line.values);
      const at = chart.rows.length || subjects.steps.length ? step : values && values.length - 1;
      if (values && !found.has(chart.title)) found.set(chart.title, show(values[at], chart.title));
    }
    return [...found].map(([title, value]) => make("span", {}, `${bare(title)} `, make("b", {}, value)));
  };

  // Downloads: the figure as it looks on a light page, and its numbers.
  const save = (name, type, text) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const picture = (figure) => {
    const svgs = [...figure.querySelectorAll(".panel svg")];
    const columns = svgs.length > 4 ? 3 : Math.min(2, svgs.length);
    const [wide, high] = ["width", "height"].map((side) => Math.max(...svgs.map((svg) => svg.viewBox.baseVal[side])));
    const size = { width: wide * columns, height: high * Math.ceil(svgs.length / columns) };
    const whole = draw("svg", { ...size, viewBox: `0 0 ${size.width} ${size.height}` }, document.createDocumentFragment());
    draw("rect", { ...size, fill: "#ffffff" }, whole);
    svgs.forEach((svg, i) => {
      const copy = svg.cloneNode(true);
      const { width, height } = svg.viewBox.baseVal;
      const place = { x: (i % columns) * wide, y: Math.floor(i / columns) * high, width, height };
      for (const [name, value] of Object.entries(place)) copy.setAttribute(name, value);
      copy.querySelectorAll(".hand, .on-dark").forEach((element) => element.remove());
      copy.querySelectorAll("[class]").forEach((element) => element.removeAttribute("class"));
      whole.append(copy);
    });
    return new XMLSerializer().serializeToString(whole).replace(/var\((--\w+)\)/g, (_, name) => data.theme[name]);
  };
  const table = (charts, subjects) => {
    const rows = [["panel", "series", "along", "at", "step", "value"]];
    for (const chart of charts.filter(Boolean)) {
      chart.rows.forEach((row, layer) => list(row).forEach((value, i) => {
        rows.push([chart.title, subjects.names[layer], "step", subjects.steps[i], subjects.steps[i], value]);
      }));
      for (const line of chart.lines) {
        const about = line.subject ?? chart.subject;
        const series = [about === null || !subjects ? "" : subjects.names[about], line.name, line.part];
        const frames = line.frames ?? [line.values];
        frames.forEach((values, k) => list(values).forEach((value, i) => {
          if (value === null) return;
          const at = list(line.at)[i];
          const step = line.frames ? subjects.steps[k] : chart.along === "step" ? at : subjects?.steps[subjects.drawn];
          const place = chart.along === "layer" ? subjects.names[Math.round(at)] : at;
          rows.push([chart.title, series.filter(Boolean).join(", "), chart.along || chart.label, place, step, value]);
        }));
      }
    }
    const cell = (value) => {
      if (typeof value === "number") return String(value);
      const text = String(value ?? "");
      const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // or a spreadsheet would read it as a formula
      return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
  };

  for (const [name, { subjects: about, charts }] of Object.entries(data.figures)) {
    const figure = document.getElementById(name);
    const subjects = about === null ? null : data.subjects[about];
    figure.querySelectorAll(".panel svg").forEach((svg, i) => {
      const overlay = draw("g", { class: "hand" }, svg);
      if (!charts[i]) return;
      const view = { svg, figure, chart: charts[i], subjects, overlay, pointed: null };
      views.push(view);
      for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, (event) => point(view, event));
      svg.addEventListener("pointerleave", () => leave(view));
      svg.addEventListener("click", () => {
        if (view.zoomed) {
          view.zoomed = false; // the click that ends a drag picks nothing
          return;
        }
        if (view.pointed && subjects && view.pointed.subject !== null) pick(subjects.name, view.pointed.subject);
      });
      zoomable(view);
      svg.classList.add("live");
    });
    const tools = make("p", { class: "tools" }, "Download ");
    for (const [kind, content] of [
      ["SVG", () => save(`${name}.svg`, "image/svg+xml", picture(figure))],
      ["CSV", () => save(`${name}.csv`, "text/csv", table(charts, subjects))],
    ]) {
      const title = figure.querySelector("figcaption").textContent.slice(0, 60);
      const button = make("button", { type: "button", "aria-label": `Download as ${kind}: ${title}` }, kind);
      button.addEventListener("click", content);
      tools.append(button, " ");
    }
    figure.querySelector("figcaption").after(tools);
    if (charts.some((chart) => chart?.lines.some((line) => line.frames))) {
      figure.querySelector("figcaption").before(make("p", { class: "at", "data-subjects": about, hidden: "" }));
    }
  }
  for (const row of document.querySelectorAll("tr[data-subject]")) {
    const head = row.querySelector("th");
    const name = row.closest("table").dataset.subjects;
    const attributes = { type: "button", "aria-pressed": "false", "data-subjects": name, "data-subject": row.dataset.subject };
    const button = make("button", attributes, head.textContent);
    button.addEventListener("click", () => pick(name, Number(row.dataset.subject)));
    head.replaceChildren(button);
  }
  const first = Object.values(data.subjects)[0];
  viewForm(first);
  if (first && first.names.length > 0) bar(first);
  views.forEach(refresh);
})();
