// Draws the fronts of the report, filters them, and shows the chosen trial. Text from the store becomes text nodes only.
"use strict";
(function () {
  if (typeof Plotly === "undefined") { return; }
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const phone = window.matchMedia("(max-width: 640px)");
  const BUTTONS = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    made.append(...children);
    return made;
  }

  function pairs(rows) {
    const items = rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
    return element("dl", {class: "pairs"}, ...items);
  }

  function start(holder) {
    const name = holder.dataset.figure;
    const told = JSON.parse(holder.textContent);
    const target = document.getElementById(name);
    const still = document.getElementById(name + "-static");
    const hidden = {method: new Set(), backbone: new Set()};
    const swatches = [];
    let chosen = null;

    // ---- what is drawn

    function shows(meta) {
      return !meta || !(hidden.method.has(meta.method) || hidden.backbone.has(meta.backbone));
    }

    function place(key, traces) {
      for (const trace of traces) {
        const index = (trace.customdata || []).indexOf(key);
        if (index >= 0) { return {meta: trace.meta, x: trace.x[index], y: trace.y[index]}; }
      }
      return null;
    }

    function ring(at, colour) {
      return {
        type: "scatter", mode: "markers", x: [at.x], y: [at.y], hoverinfo: "skip", meta: at.meta, name: "chosen",
        marker: {symbol: "circle-open", size: 24, color: colour, line: {width: 2.5}},
      };
    }

    function figure() {
      const found = structuredClone(told[dark.matches ? "dark" : "light"]);
      const partly = hidden.method.size + hidden.backbone.size > 0;
      const at = chosen === null ? null : place(chosen, found.data);
      if (at !== null) { found.data.push(ring(at, found.layout.font.color)); }
      for (const trace of found.data) {
        trace.visible = shows(trace.meta);
        if (trace.name === "front" && partly) { trace.line.dash = "dot"; }
        if (trace.customdata) { trace.hovertext = trace.customdata.map((key) => told.marks[key].hover); }
        if (trace.text && phone.matches) {
          trace.text = trace.text.map((text) => (text.endsWith("(anchor)") ? text : ""));
        }
      }
      if (phone.matches) {
        found.layout.height = 420;
        found.layout.font.size = 11;
        found.layout.margin = {l: 44, r: 8, t: 14, b: 40};
        for (const axis of [found.layout.xaxis, found.layout.yaxis]) {
          axis.title.text = axis.title.text.replace(", higher is better", " ↑").replace(", lower is better", " ↓");
        }
      }
      return found;
    }

    function draw() {
      const found = figure();
      return Plotly.react(target, found.data, found.layout,
        {responsive: true, displaylogo: false, modeBarButtons: BUTTONS});
    }

    // ---- filters and the list of trials

    function chip(kind, one, after) {
      const box = element("input", {type: "checkbox", "data-kind": kind});
      box.checked = true;
      box.value = one.name;
      box.addEventListener("change", () => {
        hidden[kind][box.checked ? "delete" : "add"](one.name);
        after();
      });
      const sign = element("span", {class: "sign", "aria-hidden": "true"}, one.glyph || "●");
      if (!one.glyph) { swatches.push([sign, one]); }
      return element("label", {class: "chip"}, box, sign, element("span", {}, one.name),
        element("small", {}, String(one.count)));
    }

    function chips(kind, after) {
      const group = element("fieldset", {class: "chips"}, element("legend", {}, kind));
      const made = told[kind].map((one) => chip(kind, one, after));
      group.append(...made);
      if (made.length > 1) {
        for (const [word, on] of [["all", true], ["none", false]]) {
          const button = element("button", {type: "button", "aria-label": word + " of " + kind}, word);
          button.addEventListener("click", () => {
            group.querySelectorAll("input").forEach((box) => { box.checked = on; });
            hidden[kind] = new Set(on ? [] : told[kind].map((one) => one.name));
            after();
          });
          group.append(button);
        }
      }
      return group;
    }

    function list() {
      const select = element("select", {id: name + "-trials"}, element("option", {value: ""}, "none"));
      const members = new Set(told.front);
      const others = Object.keys(told.marks).filter((key) => !members.has(key));
      for (const [label, keys] of [["on the front", told.front], ["others", others]]) {
        const group = element("optgroup", {label: label});
        for (const key of keys) {
          group.append(element("option", {value: key}, told.marks[key].short));
        }
        if (keys.length) { select.append(group); }
      }
      select.addEventListener("change", () => choose(select.value || null));
      return select;
    }

    const count = element("p", {class: "count", role: "status"});
    const select = list();
    const controls = element("div", {class: "controls"},
      chips("method", filter), ...(told.backbone.length > 1 ? [chips("backbone", filter)] : []),
      element("p", {class: "pick"}, element("label", {for: select.id}, "trial"), select), count);
    const panel = element("section", {class: "chosen-trial", "aria-label": "the chosen trial", tabindex: "-1"});
    panel.hidden = true;

    function paint() {
      swatches.forEach(([sign, one]) => { sign.style.color = one[dark.matches ? "dark" : "light"]; });
      const traces = told.light.data.filter((trace) => trace.customdata);
      const sum = (some) => some.reduce((total, trace) => total + trace.customdata.length, 0);
      const all = sum(traces), shown = sum(traces.filter((trace) => shows(trace.meta)));
      count.textContent = shown === all ? "All " + all + " points are shown. Click one, or pick its trial, to see all of it."
        : shown + " of " + all + " points are shown. The dotted line is still the front of all of them.";
    }

    function filter() { paint(); return draw(); }

    // ---- the chosen trial

    function choose(key) {
      chosen = key;
      select.value = key || "";
      panel.replaceChildren();
      panel.hidden = key === null;
      if (key !== null) { fill(told.marks[key]); }
      light(key === null ? null : told.marks[key].trial);
      return draw();
    }

    function fill(one) {
      const close = element("button", {type: "button", class: "close", "aria-label": "close"}, "×");
      close.addEventListener("click", () => { choose(null); select.focus(); });
      panel.append(close, element("h3", {}, one.title), element("p", {class: "state"}, one.state));
      panel.append(element("div", {class: "columns"},
        element("div", {}, element("h4", {}, "reached"), pairs(one.values)),
        element("div", {}, element("h4", {}, "settings that vary"), pairs(one.settings),
          element("details", {}, element("summary", {}, "settings that all trials share"), pairs(told.shared)))));
      if (one.repeat !== null) {
        panel.append(element("p", {}, "Train it again:"), element("pre", {}, element("code", {}, one.repeat)));
      }
      const ways = element("p", {class: "ways"});
      if (one.run !== null && /^https?:\/\//.test(one.run)) {
        ways.append(element("a", {href: one.run, target: "_blank", rel: "noopener noreferrer"}, "its run in MLflow"));
        if (told.opens) { ways.append(" (while ", element("code", {}, told.opens), " runs)"); }
      }
      const row = rowOf(one.trial);
      if (row !== null) {
        const go = element("button", {type: "button"}, "its row in the table");
        go.addEventListener("click", () => { row.scrollIntoView({block: "center"}); row.focus(); });
        ways.append(" ", go);
      }
      panel.append(ways);
    }

    function rowOf(trial) {
      const rows = document.querySelectorAll('[data-trials="' + name + '"] tbody tr');
      return [...rows].find((row) => row.cells[0].textContent === trial) || null;
    }

    function light(trial) {
      document.querySelectorAll('[data-trials="' + name + '"] tr.chosen').forEach((row) => {
        row.classList.remove("chosen");
        row.removeAttribute("aria-current");
      });
      const row = trial === null ? null : rowOf(trial);
      if (row !== null) {
        row.classList.add("chosen");
        row.setAttribute("aria-current", "true");
        row.tabIndex = -1;
        const box = row.closest(".scroll");
        box.scrollTop = row.offsetTop - box.clientHeight / 2;
      }
    }

    target.hidden = false;
    draw().then(() => {
      still.hidden = true;
      target.before(controls);
      target.after(panel);
      paint();
      target.on("plotly_click", (event) => {
        const key = event.points[0].customdata;
        if (key) { choose(key); }
      });
      panel.addEventListener("keydown", (event) => { if (event.key === "Escape") { choose(null); select.focus(); } });
      dark.addEventListener("change", filter);
      phone.addEventListener("change", filter);
    }, () => { target.hidden = true; });
  }

  document.querySelectorAll("script[data-figure]").forEach(start);
})();
