"""Style sheet and script of the report page."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --page: #f7f7f5; --panel: #ffffff; --ink: #1d2430; --muted: #5d6878; --rule: #e0e3e7; --grid: #e9ebee;
  --accent: #1f63bf; --shade: #f1f4f8; --edge: rgba(29, 36, 48, .30); --warn: #fff1d6; --warn-ink: #6b4300; --warn-rule: #e2a93b; }
@media (prefers-color-scheme: dark) { :root {
  --page: #11151a; --panel: #181e25; --ink: #e4e7eb; --muted: #9aa5b4; --rule: #2b333d; --grid: #29313a;
  --accent: #7db1f5; --shade: #1e262f; --edge: rgba(0, 0, 0, .85); --warn: #3b2c0c; --warn-ink: #ffd98a; --warn-rule: #b98420; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 3.5rem; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
.banner { position: sticky; top: 0; z-index: 10; background: var(--warn); color: var(--warn-ink);
  border-bottom: 2px solid var(--warn-rule); padding: .5rem 1.25rem; text-align: center; font-size: .92rem; }
.badge { display: inline-block; background: var(--warn); color: var(--warn-ink); font-weight: 650;
  border: 1px solid var(--warn-rule); border-radius: 4px; padding: 0 .4em; font-size: .68em;
  letter-spacing: .05em; vertical-align: .12em; margin-right: .5em; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: .5rem 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.18rem; line-height: 1.3; margin: 0 0 .3rem; }
.lead { color: var(--muted); margin: 0 0 1.25rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; margin: 0 0 1.25rem; }
.fact { background: var(--panel); border: 1px solid var(--rule); border-radius: 10px; padding: .75rem .9rem; }
.fact b { display: block; font-size: 1.35rem; line-height: 1.2; font-weight: 620; font-variant-numeric: tabular-nums; }
.fact span { color: var(--muted); font-size: .84rem; line-height: 1.35; display: block; margin-top: .2rem; }
section { background: var(--panel); border: 1px solid var(--rule); border-radius: 10px;
  padding: 1.1rem 1.25rem; margin: 0 0 1.25rem; }
.findings ul { margin: .2rem 0 0; padding-left: 1.15rem; }
.findings li { margin: .25rem 0; }
.reading, .note { color: var(--muted); margin: 0 0 .7rem; max-width: 75ch; font-size: .94rem; }
.panels { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(min(290px, 100%), 1fr)); }
.panel { min-width: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .35rem .5rem; margin: 0 0 .5rem; }
.legend button { font: inherit; font-size: .86rem; color: var(--ink); background: none; cursor: pointer;
  border: 1px solid var(--rule); border-radius: 999px; padding: .12rem .65rem .12rem .45rem;
  display: inline-flex; align-items: center; gap: .4rem; min-height: 2rem; }
.legend button[aria-pressed="false"] { opacity: .42; text-decoration: line-through; }
.legend svg { width: 14px; height: 14px; flex: none; }
/* A shadow at the edge says that a table goes on: it stays where it is, and the cover above it,
   which moves with the table, hides it at the end. */
.scroll { --reach: .9rem; overflow-x: auto; -webkit-overflow-scrolling: touch; background:
  linear-gradient(to left, var(--panel) 45%, transparent) right / calc(2.7 * var(--reach)) 100% no-repeat local,
  linear-gradient(to left, var(--edge), transparent) right / var(--reach) 100% no-repeat scroll, var(--panel); }
/* Part of this shadow lies below the scroll bar. */
.scroll.tall { --reach: 1.9rem; max-height: 28rem; overflow: auto; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .42rem .65rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
thead th { font-weight: 600; color: var(--muted); white-space: nowrap; }
.tall thead th { position: sticky; top: 0; z-index: 1; background: var(--panel); }
/* The first column, which says what a row is, stays in sight. */
.scroll td:first-child, .scroll thead tr:last-child th:first-child { position: sticky; left: 0;
  background: var(--panel); box-shadow: 1px 0 0 var(--rule); max-width: 40vw; overflow-wrap: break-word; }
.scroll.tall thead th:first-child { z-index: 2; }
#chosen td:first-child, #points td:first-child, #policies td:first-child { white-space: nowrap; }
/* Fourteen columns: headings and names may take two lines, so that nothing lies beyond the edge of a desktop's page. */
#calibration-page th, #calibration-page td { white-space: normal; padding: .42rem .4rem; vertical-align: bottom; }
#calibration-page td.n { white-space: nowrap; }
#points .mono { display: block; min-width: 20rem; }
tbody tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
.nowrap { white-space: nowrap; }
code, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86em; }
.mono { color: var(--muted); overflow-wrap: anywhere; }
.cards { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); }
.card { border: 1px solid var(--rule); border-radius: 8px; padding: .8rem .9rem; min-width: 0; }
.card h3 { margin: 0; font-size: 1rem; }
.card p { margin: .5rem 0 0; font-size: .84rem; line-height: 1.4; }
.own { font-weight: 650; } .bound { font-style: italic; color: var(--muted); }
th.group { text-align: center; border-bottom: 1px solid var(--rule); }
.shares { margin: .5rem 0 0; font-size: .82rem; }
.shares div.bar { display: flex; height: 12px; border-radius: 3px; overflow: hidden; margin: .15rem 0 .1rem; gap: 1px; }
.shares div.bar i { display: block; min-width: 1px; }
.shares .of { color: var(--muted); }
details { margin: .3rem 0 0; } summary { cursor: pointer; color: var(--accent); padding: .25rem 0; }
pre { overflow-x: auto; background: var(--shade); padding: .8rem; border-radius: 8px; font-size: .82rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; font-size: .9rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
a { color: var(--accent); }
@media (max-width: 640px) {
  main { padding: 1rem .6rem 3rem; } section { padding: .9rem .8rem; border-radius: 8px; }
  h1 { font-size: 1.4rem; } .facts { grid-template-columns: 1fr 1fr; gap: .5rem; }
  .banner { font-size: .82rem; padding: .4rem .6rem; } dl { grid-template-columns: 1fr; } dt { margin-top: .4rem; }
}
@media print { .banner { position: static; } section { break-inside: avoid; } }
"""

SCRIPT = """
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // On a touch screen a drag scrolls the page; elsewhere it zooms the figure.
  const pointer = window.matchMedia("(hover: hover)").matches;
  const hidden = {};
  function draw() {
    const css = getComputedStyle(document.documentElement);
    const colour = name => css.getPropertyValue(name).trim();
    for (const [id, figure] of Object.entries(figures)) {
      const key = id.slice(0, id.lastIndexOf("-"));
      const off = hidden[key] || new Set();
      const axis = a => Object.assign({}, a, {gridcolor: colour("--grid"), linecolor: colour("--rule"),
        tickcolor: colour("--rule"), ticks: "outside", ticklen: 4, showline: true});
      const layout = Object.assign({}, figure.layout, {
        dragmode: pointer ? "zoom" : false,
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: {color: colour("--ink"), size: 13, family: "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif"},
        xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
        hoverlabel: {align: "left", bgcolor: colour("--panel"), bordercolor: colour("--rule"),
                     font: {color: colour("--ink"), size: 12}}});
      if (layout.title) layout.title = Object.assign({}, layout.title, {font: {size: 14}});
      const data = figure.data.map(t => Object.assign({}, t, {visible: !off.has(t.name)}));
      Plotly.react(id, data, layout, {responsive: true, displaylogo: false,
        displayModeBar: pointer ? "hover" : false,
        modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
        toImageButtonOptions: {filename: id, scale: 2}});
    }
  }
  document.querySelectorAll(".legend button").forEach(button => button.addEventListener("click", () => {
    const off = hidden[button.dataset.figure] = hidden[button.dataset.figure] || new Set();
    const name = button.dataset.name;
    if (!off.delete(name)) off.add(name);
    button.setAttribute("aria-pressed", String(!off.has(name)));
    draw();
  }));
  dark.addEventListener("change", draw);
  draw();
})();
"""
