"use strict";
// What a reader chooses: methods, lines, menus, the order of tables. All of it can be done with the keyboard.
const controls = (() => {
  let sections = [];
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  const MANY = 6; // lines, among which one is hard to follow

  function stateOf(section) {
    const boxes = all("[data-shows]", section.root);
    const option = (name) => Boolean(section.root.querySelector(`[data-option=${name}]`)?.checked);
    const hidden = new Set(boxes.filter((box) => !box.checked).map((box) => box.dataset.shows));
    return {
      hidden, lit: boxes.length > MANY && !hidden.has(section.lit) ? section.lit : undefined,
      band: option("band"), seeds: option("seeds"), log: option("log"),
    };
  }

  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      entry.target.isNear = entry.isIntersecting;
      if (entry.isIntersecting) drawIfStale(entry.target);
    }
  }, { rootMargin: "400px" });

  function drawIfStale(figure) {
    if (!figure.isStale || figure.hidden || figure.closest("[hidden]")) return;
    figure.isStale = false;
    const section = sections.find((each) => each.root.contains(figure));
    figures.draw(figure, section, stateOf(section));
  }

  // Figures are drawn when they come near the screen.
  function update(section, { everything = false } = {}) {
    const state = stateOf(section);
    arrange(section, state);
    for (const figure of all("[data-figure]", section.root)) {
      figure.isStale = true;
      if (figure.isNear || everything) drawIfStale(figure);
      const numbers = figure.querySelector("details.numbers");
      if (numbers?.open) fill(numbers, section, state);
    }
  }

  function fill(numbers, section, state) {
    const spec = section.data.figures[numbers.closest("[data-figure]").dataset.figure];
    numbers.querySelector(".scroll").replaceChildren(figures.tableOf(spec, state));
  }

  // Which figures the menus, the search and the methods leave.
  function arrange(section, state) {
    const isPrinting = document.documentElement.classList.contains("printing");
    const menu = section.root.querySelector("[data-menu=diagnostics]");
    if (menu) {
      const wanted = section.root.querySelector("[data-find]").value.trim().toLowerCase();
      let count = 0;
      for (const figure of all(".small", section.root)) {
        const isWhole = !figure.dataset.name.includes("/"); // of no single layer
        const isFound = (isPrinting && isWhole) || (wanted ? figure.dataset.name.toLowerCase().includes(wanted) : figure.dataset.group.split(" ").includes(menu.value));
        figure.hidden = !isFound;
        count += isFound;
      }
      section.root.querySelector(".found").textContent = wanted ? `${count} found` : "";
    }
    const albums = section.root.querySelector("[data-menu=albums]");
    for (const album of all(".album", section.root)) album.hidden = Boolean(albums) && !isPrinting && album.dataset.album !== albums.value;
    for (const figure of all(".card[data-method]", section.root)) figure.hidden = state.hidden.has(figure.dataset.method);
  }

  function sort(table, column, direction) {
    const body = table.tBodies[0];
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
    };
    const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b
      : typeof a === typeof b ? a.localeCompare(b, "en", { numeric: true })
      : typeof a === "number" ? -direction : direction); // what is not measured comes last
    body.append(...[...body.rows].sort((a, b) => direction * compare(key(a), key(b))));
    all("th", table.tHead).forEach((head, at) => {
      if (at === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  }

  function listen(section) {
    const { root } = section;
    const redraw = () => update(section);
    all("input[type=checkbox], select", root).forEach((each) => each.addEventListener("change", redraw));
    root.querySelector("[data-find]")?.addEventListener("input", redraw);
    for (const button of all("[data-set]", root)) {
      button.addEventListener("click", () => {
        all("[data-shows]", root).forEach((box) => { box.checked = button.dataset.set === "all"; });
        redraw();
      });
    }
    // Among many lines, the one whose name is pointed at stands out.
    let waiting = 0;
    const light = (name) => {
      clearTimeout(waiting);
      if (all("[data-shows]", root).length <= MANY) return;
      waiting = setTimeout(() => { if (section.lit !== name) { section.lit = name; redraw(); } }, 150);
    };
    for (const label of all(".methods label", root)) {
      label.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && light(label.querySelector("input").dataset.shows));
      label.addEventListener("pointerleave", () => light(undefined));
    }
    for (const numbers of all("details.numbers", root)) {
      numbers.addEventListener("toggle", () => numbers.open && fill(numbers, section, stateOf(section)));
    }
  }

  function begin() {
    observer.disconnect();
    all(".plot").forEach((plot) => plot.replaceChildren());
    sections = all("section.run").map((root) => ({ root, data: JSON.parse(root.querySelector("script.data").textContent) }));
    sections.forEach(listen);
    for (const table of all("table.sortable")) {
      all("thead button", table).forEach((button, column) => button.addEventListener("click", () => {
        // Numbers are first sorted downwards, names upwards.
        const first = table.tBodies[0].rows[0]?.cells[column].dataset.value === undefined ? 1 : -1;
        const current = { ascending: 1, descending: -1 }[button.parentElement.getAttribute("aria-sort")];
        sort(table, column, current ? -current : first);
      }));
    }
  }

  function start() {
    sections.forEach((section) => update(section));
    all("[data-figure]").forEach((figure) => observer.observe(figure));
  }

  // What a reader has chosen, by names that stay when the page is made again.
  function remember() {
    const chosen = sections.map(({ root }) => ({
      key: root.dataset.key,
      hidden: all("[data-shows]", root).filter((box) => !box.checked).map((box) => box.dataset.shows),
      options: all("[data-option]", root).map((box) => [box.dataset.option, box.checked]),
      menus: all("[data-menu]", root).map((menu) => [menu.dataset.menu, menu.selectedOptions[0]?.textContent.replace(/ \(\d+\)$/, "")]),
      find: root.querySelector("[data-find]")?.value ?? "",
      open: all("details[open]", root).map((each) => each.dataset.key),
    }));
    const sorted = all("[aria-sort]").map((head) => [head.closest("table").id, head.cellIndex, head.getAttribute("aria-sort") === "ascending" ? 1 : -1]);
    return { chosen, sorted };
  }

  function restore({ chosen, sorted }) {
    for (const { root } of sections) {
      const own = chosen.find((each) => each.key === root.dataset.key);
      if (!own) continue;
      all("[data-shows]", root).forEach((box) => { box.checked = !own.hidden.includes(box.dataset.shows); });
      own.options.forEach(([name, checked]) => { const box = root.querySelector(`[data-option=${name}]`); if (box) box.checked = checked; });
      for (const [name, label] of own.menus) {
        const menu = root.querySelector(`[data-menu=${name}]`);
        const option = menu && [...menu.options].find((each) => each.textContent.replace(/ \(\d+\)$/, "") === label);
        if (option) menu.value = option.value;
      }
      const find = root.querySelector("[data-find]");
      if (find) find.value = own.find;
      all("details", root).forEach((each) => { each.open = own.open.includes(each.dataset.key); });
    }
    for (const [id, column, direction] of sorted) {
      const table = document.getElementById(id);
      if (table?.tHead.rows[0].cells[column]) sort(table, column, direction);
    }
  }

  // On paper: a light page of one width, all pictures, and what is collapsed except long tables of numbers.
  let closed = [];
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printing");
    closed = all("details.listing:not([open])");
    closed.forEach((each) => { each.open = true; });
    sections.forEach((section) => update(section, { everything: true }));
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printing");
    closed.forEach((each) => { each.open = false; });
    sections.forEach((section) => update(section));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => sections.forEach((section) => update(section)));

  begin();
  start();
  return { begin, start, remember, restore };
})();
