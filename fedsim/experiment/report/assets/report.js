// Draws the figures of a page. The library is packed in the page; nothing is fetched.
"use strict";
(() => {
  const ROW_PX = 15, ROW_FRAME_PX = 110; // as in fleet.py
  const byId = (id) => document.getElementById(id);
  const told = (id) => JSON.parse(byId(id).textContent);
  const narrow = () => window.innerWidth < 600;

  const unpack = async () => {
    const text = atob(byId("library").textContent.trim());
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.appendChild(script);
  };

  const layoutOf = (spec) => {
    const common = {
      autosize: true,
      font: { family: "system-ui, 'Segoe UI', Roboto, sans-serif", size: narrow() ? 11 : 13, color: "#1b1f24" },
      margin: { l: 50, r: 12, t: 30, b: 44 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" },
      hoverlabel: { align: "left" },
      paper_bgcolor: "#fff",
      plot_bgcolor: "#fff",
      dragmode: "zoom",
    };
    const axes = { gridcolor: "#e4e8ec", zerolinecolor: "#c8cdd2", linecolor: "#9aa4ae" };
    const layout = { ...common, ...spec.layout, margin: { ...common.margin, ...(spec.layout.margin || {}) } };
    for (const name of ["xaxis", "yaxis"]) layout[name] = { ...axes, ...(spec.layout[name] || {}) };
    if (narrow()) layout.yaxis.tickfont = { size: 9 };
    return layout;
  };

  const zoom = (plot, factor, shift) => {
    const axis = plot.layout.xaxis;
    const [from, to] = axis.range.map(Number);
    const middle = (from + to) / 2 + shift * (to - from);
    const half = ((to - from) / 2) * factor;
    Plotly.relayout(plot, { "xaxis.range": [middle - half, middle + half] });
  };

  const actions = {
    in: (plot) => zoom(plot, 0.5, 0),
    out: (plot) => zoom(plot, 2, 0),
    left: (plot) => zoom(plot, 1, -0.25),
    right: (plot) => zoom(plot, 1, 0.25),
    all: (plot, wanted) =>
      Plotly.relayout(plot, wanted === null
        ? { "xaxis.autorange": true, "yaxis.autorange": true }
        : { "xaxis.autorange": true, "yaxis.range": rowsOf(plot, wanted).range }),
  };

  // Rows of the group that is wanted, of all where it is empty: their number, and the range that they fill.
  const rowsOf = (plot, wanted) => {
    const names = plot.layout.yaxis.categoryarray;
    const rows = new Set();
    for (const trace of plot.data) if (wanted === "" || trace.meta === wanted) trace.y.forEach((name) => rows.add(names.indexOf(name)));
    return { count: rows.size, range: [Math.max(...rows) + 0.5, Math.min(...rows) - 0.5] };
  };

  const filter = (plot, wanted) => {
    const visible = plot.data.map((trace) => wanted === "" || trace.meta === wanted);
    const { count, range } = rowsOf(plot, wanted);
    Plotly.restyle(plot, { visible }).then(() =>
      Plotly.relayout(plot, { height: ROW_FRAME_PX + ROW_PX * count, "yaxis.range": range }));
  };

  const changeAxis = (plot, spec, index) => {
    const [title, values] = spec.axes[index];
    Plotly.update(plot, { x: values }, { "xaxis.title.text": title, "xaxis.autorange": true });
  };

  const connect = (spec, plot) => {
    const box = byId("box-" + spec.id);
    const group = box.querySelector("select[data-filter]");
    for (const button of box.querySelectorAll("button[data-zoom]"))
      button.addEventListener("click", () => actions[button.dataset.zoom](plot, group ? group.value : null));
    if (group) group.addEventListener("change", () => filter(plot, group.value));
    const choice = box.querySelector("select[data-axis]");
    if (choice) choice.addEventListener("change", () => changeAxis(plot, spec, Number(choice.value)));
  };

  const optionsFor = (spec) => ({
    responsive: true,
    displaylogo: false,
    displayModeBar: !narrow() && !spec.small,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  });

  const draw = async (spec) => {
    const plot = byId("plot-" + spec.id);
    plot.textContent = "";
    await Plotly.newPlot(plot, spec.data, layoutOf(spec), optionsFor(spec));
    connect(spec, plot);
    plot.dataset.drawn = "1";
  };

  const main = async () => {
    await unpack();
    for (const spec of told("figures")) await draw(spec);
    document.body.dataset.ready = "1";
  };

  const sorry = (error) => {
    document.body.dataset.failed = String(error);
    console.error(error);
    for (const plot of document.querySelectorAll(".plot:not([data-drawn])"))
      plot.textContent = "This figure could not be drawn: " + error + ". The tables below hold the same figures.";
  };
  main().catch(sorry);
})();
