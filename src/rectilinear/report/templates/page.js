// Links the views of a page: what is pointed at is told, what is chosen is chosen everywhere.
// The page is whole without it: every value stands in a table, every layer behind its own link.
"use strict";

{
  const root = document.documentElement;
  const every = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = id => document.getElementById(id);
  const listen = (target, handlers) => {
    for (const [name, handler] of Object.entries(handlers)) target.addEventListener(name, handler);
  };

  // Light and dark

  function theme() {
    const button = byId("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
    button.addEventListener("click", () => {
      const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
      root.dataset.theme = now === "dark" ? "light" : "dark";
    });
  }

  // Tables: a heading sorts its column

  const textOf = (row, column) => row.cells[column].textContent.trim();
  const numberOf = text => parseFloat(text.replaceAll(",", ""));

  function sort(button) {
    const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      const [x, y] = [numberOf(textOf(a, column)), numberOf(textOf(b, column))];
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || textOf(a, column).localeCompare(textOf(b, column));
      return down ? y - x : x - y;
    };
    body.append(...[...body.rows].sort(compare));
  }

  // Tips: what a place in a figure stands for, taken from the table behind it

  const tip = byId("tip");

  function add(parent, tag, text) {
    const child = parent.appendChild(document.createElement(tag));
    child.textContent = text;
    return child;
  }

  function tell(title, groups, x, y) {
    tip.replaceChildren();
    add(tip, "b", title);
    for (const [name, values] of groups) {
      if (name) add(tip, "i", name);
      const list = add(tip, "dl", "");
      for (const [label, value] of values) {
        add(list, "dt", label);
        add(list, "dd", value);
      }
    }
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect(), room = root.clientWidth - width - 8;
    const above = y + height + 24 > innerHeight && y > height + 24;
    tip.style.left = `${Math.max(8, Math.min(x + 16, room)) + scrollX}px`;
    tip.style.top = `${(above ? y - height - 12 : y + 16) + scrollY}px`;
  }

  const hush = () => { tip.hidden = true; };
  // A finger leaves as soon as it is lifted; what it asked for stays until the next touch.
  const left = event => { if (event.pointerType !== "touch") hush(); };

  function tellHit(hit, x, y) {
    const table = hit.closest("figure").querySelector(".values table");
    const [groups, names] = table.tHead.rows, row = table.querySelector(`tr[data-row="${hit.dataset.row}"]`);
    const title = `${names.cells[0].textContent} ${textOf(row, 0)}`;
    const cells = Number(hit.dataset.cells ?? 0), found = [];
    const box = hit.getBoundingClientRect();
    // Of a row that is as many places as cells, the one that is pointed at.
    const only = cells && 1 + Math.max(0, Math.min(cells - 1, Math.floor(((x - box.left) / box.width) * cells)));
    let column = 1;
    for (const group of [...groups.cells].slice(1)) {
      const span = Array.from({ length: group.colSpan }, () => column++).filter(c => !only || c === only);
      found.push([group.textContent, span.map(c => [names.cells[c].textContent, textOf(row, c)])]);
    }
    tell(title, found, x, y);
  }

  // Legends: an entry hides its series and brings it back

  function legend(key) {
    key.setAttribute("role", "button");
    key.setAttribute("tabindex", "0");
    key.setAttribute("aria-pressed", "true");
    const toggle = () => {
      const shown = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", shown);
      for (const part of every(`.series[data-series="${key.dataset.series}"]`, key.closest("svg")))
        part.classList.toggle("off", !shown);
    };
    listen(key, {
      click: toggle,
      keydown: event => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          toggle();
        }
      },
    });
  }

  // The layer that is chosen, in all views

  const sections = every(".layer"), bar = byId("bar"), hash = /^#layer-(\d+)$/;
  let chosen = null;

  function choose(row) {
    chosen = String(row);
    for (const marked of every(".on")) marked.classList.remove("on");
    for (const same of every(`[data-row="${chosen}"]`)) same.classList.add("on");
    for (const hit of every(".hit")) hit.setAttribute("tabindex", hit.dataset.row === chosen ? "0" : "-1");
    if (!bar) return;
    bar.querySelector("input").value = chosen;
    bar.querySelector("output").textContent = `Layer ${chosen} · ${sections[row].dataset.said}`;
    for (const name of every(".chosen")) name.textContent = `layer ${chosen}`;
    colour();
    filter();
  }

  function pick(row) {
    if (row < 0 || row >= (sections.length || Infinity)) return;
    choose(row);
    if (sections.length) history.replaceState(null, "", `#layer-${row}`);
  }

  function hit(place) {
    const places = every(".hit", place.closest("figure"));
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };
    const centre = () => {
      const box = place.getBoundingClientRect();
      tellHit(place, box.right - 16, box.top + Math.min(box.height / 2, 80));
    };
    listen(place, {
      pointermove: event => tellHit(place, event.clientX, event.clientY),
      pointerleave: left,
      focus: () => { if (place.matches(":focus-visible")) centre(); },
      blur: hush,
      click: event => {
        event.preventDefault();
        pick(Number(place.dataset.row));
        if (event.detail) tellHit(place, event.clientX, event.clientY); // not by a key
      },
      keydown: event => {
        if (!(event.key in step)) return;
        event.preventDefault();
        const to = Math.max(0, Math.min(places.length - 1, places.indexOf(place) + step[event.key]));
        pick(Number(places[to].dataset.row));
        places[to].focus({ preventScroll: true });
      },
    });
  }

  // The passage: every token in the colour of the layer's error on it

  const strip = byId("passage"), words = strip ? every("span", strip) : [];
  const kept = strip ? JSON.parse(byId("passage-data").textContent) : null;
  const tenths = Number(strip?.dataset.shades);

  function colour() {
    words.forEach((word, i) => {
      const error = kept.error[chosen][i];
      word.classList.toggle("above", error > 1);
      word.classList.toggle("sink", kept.sink[chosen].includes(i));
      word.style.setProperty("--s", error === null ? 0 : Math.min(Math.floor(tenths * error) + 1, tenths));
    });
  }

  function tellWord(word) {
    const i = words.indexOf(word), box = word.getBoundingClientRect();
    const errors = kept.error.map(layer => layer[i]), known = errors.filter(error => error !== null);
    const at = value => [`in layer ${errors.indexOf(value)}`, value?.toFixed(2) ?? "–"];
    const here = [`in layer ${chosen}`, errors[chosen]?.toFixed(2) ?? "–"];
    const title = `'${word.textContent}'${word.classList.contains("sink") ? ", a sink" : ""}`;
    const ends = known.length ? [["most", [at(Math.max(...known))]], ["least", [at(Math.min(...known))]]] : [];
    tell(title, [["relative error", [here]], ...ends], box.left, box.bottom - 8);
  }

  function word(place, i) {
    place.tabIndex = i ? -1 : 0;
    listen(place, {
      pointerenter: () => tellWord(place),
      pointerleave: left,
      click: () => tellWord(place),
      focus: () => tellWord(place),
      blur: hush,
      keydown: event => {
        const to = words[i + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? NaN)];
        if (!to) return;
        event.preventDefault();
        place.tabIndex = -1;
        to.tabIndex = 0;
        to.focus();
      },
    });
  }

  // The trigger tokens: of the chosen layer or of all, and those that hold what is searched for

  const search = byId("search");

  function filter() {
    if (!search) return;
    const wanted = search.value.toLowerCase(), all = byId("all-layers").checked;
    const rows = [...byId("trigger-table").tBodies[0].rows];
    for (const row of rows)
      row.hidden = !(all || row.dataset.row === chosen) || !row.textContent.toLowerCase().includes(wanted);
    byId("found").textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  }

  // Start

  root.classList.add("js");
  theme();
  every("th button").forEach(button => button.addEventListener("click", () => sort(button)));
  every(".key").forEach(legend);
  every(".hit").forEach(hit);
  words.forEach(word);
  listen(document, { pointerdown: hush, keydown: event => { if (event.key === "Escape") hush(); } });
  if (bar) {
    const asked = () => hash.exec(location.hash)?.[1];
    const inside = row => row !== undefined && row < sections.length;
    bar.querySelector("input").addEventListener("input", event => pick(Number(event.target.value)));
    every("button", bar).forEach(button =>
      button.addEventListener("click", () => pick(Number(chosen) + Number(button.dataset.step))));
    // What a link leads to is not there to be scrolled to before it is chosen.
    const follow = () => {
      if (!inside(asked())) return false;
      choose(Number(asked()));
      sections[chosen].scrollIntoView();
      return true;
    };
    listen(window, { hashchange: follow });
    if (!follow()) choose(Number(bar.dataset.first));
  } else if (document.querySelector(".hit")) {
    every(".hit[data-row='0']").forEach(place => place.setAttribute("tabindex", "0"));
  }
  if (search) listen(search.form, { input: filter, submit: event => event.preventDefault() });
}
