"use strict";
// Draws the figures: from the numbers in a section's data and what its controls say.
const figures = (() => {
  const root = document.documentElement;
  const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches && !root.classList.contains("printing");
  const isCoarse = matchMedia("(pointer: coarse)").matches;

  // Plotly reads some tags and entities in texts; names are shown as they are.
  const literal = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const shown = (value, digits = 4) => (value === null || value === undefined ? "–" : String(+value.toPrecision(digits)));
  const spread = (error) => ` ± ${shown(error, 2)}`;

  const translucent = (color, opacity) => {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
    return `rgba(${red}, ${green}, ${blue}, ${opacity})`;
  };

  // A band is a closed polygon for each stretch without gaps.
  function bandOf(line) {
    const x = [], y = [];
    let start = 0;
    for (let end = 0; end <= line.mean.length; end++) {
      if (end < line.mean.length && line.mean[end] !== null) continue;
      for (let i = start; i < end; i++) { x.push(line.x[i]); y.push(line.mean[i] + line.error[i]); }
      for (let i = end - 1; i >= start; i--) { x.push(line.x[i]); y.push(line.mean[i] - line.error[i]); }
      if (end > start) { x.push(null); y.push(null); }
      start = end + 1;
    }
    return { x, y };
  }

  function seedsOf(line) {
    const x = [], y = [];
    for (const values of Object.values(line.seeds)) {
      x.push(...line.x, null);
      y.push(...values, null);
    }
    return { x, y };
  }

  function tracesOf(spec, looks, state) {
    const bands = [], seeds = [], means = [];
    for (const [method, line] of Object.entries(spec.lines)) {
      if (state.hidden.has(method)) continue;
      const look = looks[method], color = variable(`--line-${look.color}`), name = literal(method);
      const opacity = state.lit && state.lit !== method ? 0.12 : 1;
      if (state.band && line.error && opacity === 1) {
        const fillcolor = translucent(color, 0.2);
        bands.push({ ...bandOf(line), mode: "lines", fill: "toself", fillcolor, line: { width: 0 }, hoverinfo: "skip" });
      }
      if (state.seeds && line.seeds && opacity === 1) {
        seeds.push({ ...seedsOf(line), mode: "lines", opacity: 0.55, line: { color, width: 1 }, hoverinfo: "skip" });
      }
      const hovertext = line.mean.map((mean, i) => {
        const error = line.error ? spread(line.error[i]) : "";
        return `${name}<br>${literal(spec.unit)} ${line.x[i]}: ${shown(mean)}${error}`;
      });
      means.push({
        x: line.x, y: line.mean, name, opacity, mode: "lines+markers", hovertext, hoverinfo: "text", connectgaps: false,
        line: { color, width: 2, dash: look.dash },
        marker: { symbol: look.symbol, size: 7, color, maxdisplayed: 14 },
      });
    }
    return [...bands, ...seeds, ...means].map((trace) => ({ type: "scatter", showlegend: false, ...trace }));
  }

  // Distance of ticks that are whole numbers: 1, 2, 5, 10, …
  function wholeStep(spec, most) {
    const ends = Object.values(spec.lines).flatMap((line) => [line.x[0], line.x[line.x.length - 1]]);
    const least = (Math.max(...ends) - Math.min(...ends)) / most;
    for (let power = 1; ; power *= 10) for (const digit of [1, 2, 5]) if (digit * power >= least) return digit * power;
  }

  function curveLayout(spec, state, isSmall) {
    const shapes = (spec.borders || []).slice(0, 100).map((x) => ({
      type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", layer: "below", line: { color: variable("--grid"), width: 1 },
    }));
    const annotations = [];
    if (spec.chance !== null) {
      const color = variable("--muted");
      shapes.push({ type: "line", x0: 0, x1: 1, xref: "paper", y0: spec.chance, y1: spec.chance, layer: "below", line: { color, width: 1.5, dash: "dot" } });
      const y = state.log ? Math.log10(spec.chance) : spec.chance;
      annotations.push({ text: "chance", x: 1, xref: "paper", xanchor: "right", y, yanchor: "bottom", showarrow: false, font: { color, size: 12 } });
    }
    const most = isSmall ? 5 : 10;
    const ticks = spec.unit === "task" ? { tick0: 0, dtick: wholeStep(spec, most), tickformat: "d" } : { nticks: most, tickformat: "~s", rangemode: "tozero" };
    return {
      shapes, annotations,
      xaxis: { ...(isSmall ? {} : { title: { text: literal(spec.unit) } }), ...ticks },
      yaxis: { ...(isSmall ? {} : { title: { text: literal(spec.name) } }), rangemode: spec.from_zero ? "tozero" : "normal", type: state.log ? "log" : "linear", nticks: isSmall ? 5 : 8 },
    };
  }

  const withTitle = (axis) => (axis.title ? { ...axis, title: { font: { size: 13 }, standoff: 8, ...axis.title } } : axis);

  function themed(layout, isSmall) {
    const axis = { gridcolor: variable("--grid"), linecolor: variable("--muted"), zeroline: false, automargin: true, tickfont: { size: isSmall ? 11 : 12 } };
    return {
      ...layout,
      font: { family: "system-ui, sans-serif", size: 13, color: variable("--text") },
      paper_bgcolor: "rgba(0, 0, 0, 0)", plot_bgcolor: "rgba(0, 0, 0, 0)",
      margin: { l: 10, r: 12, t: 12, b: 10 }, autosize: true, hovermode: "closest", uirevision: "kept",
      dragmode: isCoarse ? false : "zoom", // a finger scrolls the page
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
      xaxis: withTitle({ ...axis, ...layout.xaxis }), yaxis: withTitle({ ...axis, ...layout.yaxis }),
    };
  }

  function draw(figure, section, state) {
    const spec = section.data.figures[figure.dataset.figure];
    const isSmall = figure.classList.contains("small");
    let traces, layout;
    if (spec.lines) {
      traces = tracesOf(spec, section.data.methods, state);
      layout = curveLayout(spec, state, isSmall);
    } else {
      const dark = isDark();
      traces = spec.data.map((trace) => (dark && trace.meta && trace.meta.dark ? { ...trace, line: { ...trace.line, color: trace.meta.dark } } : trace));
      layout = spec.layout;
    }
    const config = { displaylogo: false, responsive: true, displayModeBar: isSmall || isCoarse ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d"] };
    Plotly.react(figure.querySelector(".plot"), traces, themed(layout, isSmall), config);
  }

  const element = (name, text, attributes = {}) => Object.assign(document.createElement(name), { textContent: text }, attributes);

  // The numbers of a figure as a table: a row for each value of x, a column for each line.
  function tableOf(spec, state) {
    const columns = spec.lines
      ? Object.entries(spec.lines).filter(([name]) => !state.hidden.has(name)).map(([name, line]) => ({ name, x: line.x, text: (i) => shown(line.mean[i]) + (line.error ? spread(line.error[i]) : "") }))
      : spec.data.flatMap((trace) => trace.z
        ? trace.x.map((name, at) => ({ name: `${spec.layout.xaxis.title.text} ${name}`, x: trace.y, text: (i) => shown(trace.z[i][at]) }))
        : [{ name: trace.name, x: trace.x, text: (i) => shown(trace.y[i]) }]);
    const rows = new Map();
    columns.forEach((column, at) => column.x.forEach((x, i) => {
      if (x === null) return;
      if (!rows.has(x)) rows.set(x, new Array(columns.length).fill("–"));
      rows.get(x)[at] = column.text(i);
    }));
    const cell = spec.data && spec.data[0].meta && spec.data[0].meta.cell;
    const table = element("table", "");
    if (cell) table.append(element("caption", `Cells: ${cell}`));
    const unit = spec.lines ? spec.unit : (spec.data[0].z ? spec.layout.yaxis : spec.layout.xaxis).title.text;
    const head = element("tr", "");
    [unit, ...columns.map((column) => column.name)].forEach((name) => head.append(element("th", name, { scope: "col" })));
    const body = element("tbody", "");
    for (const x of [...rows.keys()].sort((a, b) => a - b)) {
      const row = element("tr", "");
      row.append(element("th", x, { scope: "row" }), ...rows.get(x).map((text) => element("td", text)));
      body.append(row);
    }
    const top = element("thead", "");
    top.append(head);
    table.append(top, body);
    return table;
  }

  return { draw, tableOf };
})();
