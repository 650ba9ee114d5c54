"use strict";
// Fills the matrix from the data island. Texts are put in as text only, never as markup.
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const VALUE = Object.fromEntries([...DIGITS].map((c, i) => [c, i]));
  const LETTERS = JSON.parse(document.getElementById("letters").textContent);
  const MOST = 200;
  const $ = (id) => document.getElementById(id);

  const make = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  const histories = D.histories.map((runs) => {
    const out = [];
    for (let i = 0; i < runs.length; i += 2) for (let n = 0; n < runs[i + 1]; n++) out.push(runs[i]);
    return out;
  });

  const vectors = [];
  for (const shape of D.shapes) {
    let at = 0;
    for (const history of shape.history) {
      const tokens = shape.widths.map((width) => {
        let value = 0;
        for (let i = 0; i < width; i++) value = value * 64 + VALUE[shape.digits[at++]];
        return value;
      });
      vectors.push({ shape, tokens, history: histories[history], changed: null });
    }
  }
  const token = (v, place) => v.shape.tokens[place][v.tokens[place]];
  const idOf = (v) => v.tokens.map((_, place) => token(v, place)).join(".");
  for (const v of vectors) {
    if (v.shape.kind !== "access") continue;
    const access = token(v, 6);
    const user = token(v, 7)[2] === "u" && token(v, 8)[2] === "u";
    v.leaf = token(v, 1).slice(3);
    v.column = access === "fetch" ? (user ? "fetch U" : "fetch S") : access;
    v.size = token(v, 0);
    v.open = token(v, 2).slice(3) === "rwxu";
    v.cpl = token(v, 10).slice(3);
    v.mbec = token(v, 16).slice(5);
  }

  const fill = (select, values, text) => {
    select.replaceChildren(...values.map((v) => make("option", { value: v }, text ? text(v) : v)));
  };
  const levels = [...new Set(D.cells.map((c) => c[0]))];
  fill($("f-level"), levels);
  const paramsOf = (level) => D.cells.filter((c) => c[0] === level).map((c) => c[1]);

  const setParams = () => {
    const before = $("f-param").value;
    const present = paramsOf(Number($("f-level").value));
    fill($("f-param"), present);
    $("f-param").value = present.includes(before) ? before : present[present.length - 1];
  };
  const column = () => D.cells.findIndex((c) => c[0] === Number($("f-level").value) && c[1] === $("f-param").value);

  const marksOf = (v, at) => {
    const answer = v.history[at];
    const names = [];
    const marks = D.answers[answer][4];
    for (const [name, bit] of Object.entries(D.marks)) if (marks & bit) names.push(name);
    const below = D.below[at];
    if (below >= 0 && v.history[below] >= 0 && D.answers[v.history[below]][1] !== D.answers[answer][1]) names.push("CHANGED");
    return names;
  };
  const SAY = { AGREE: "all agree", DRIFT: "drift", FINDING: "finding", NOT_APPLICABLE: "not applicable", BLOCKED: "blocked",
    ENTRY_FAILURE: "entry failed", TAKEN: "a lower level's answer (same machine code)", CHANGED: "changed from the level below",
    FORESEEN: "foreseen, nobody looked", NOT_MIRRORED: "the mirror does not follow it" };

  const wanted = (v, at) => {
    if (v.history[at] < 0) return false;
    const mark = $("f-mark").value;
    if (mark && !marksOf(v, at).includes(mark)) return false;
    const text = $("f-text").value.trim().toLowerCase();
    return !text || text.split(/\s+/).every((word) => idOf(v).includes(word));
  };
  // What L2's own paging forbids is the same everywhere; where it is not answered so, it is a finding and stays.
  const guestFault = (answer) => answer[3] >= 0 && !(answer[4] & (D.marks.FINDING | D.marks.DRIFT)) &&
    D.contracts[answer[3]].every((c) => c[0].startsWith("exception"));
  const wantedAccess = (v, at) =>
    !($("f-guest").value && v.history[at] >= 0 && guestFault(D.answers[v.history[at]])) &&
    (!$("f-mbec").value || v.mbec === $("f-mbec").value) && (!$("f-size").value || v.size === $("f-size").value) &&
    (!$("f-upper").value || v.open) && (!$("f-cpl").value || v.cpl === $("f-cpl").value);

  let buckets = new Map();
  let open = null;

  const tally = (members, at) => {
    const kinds = new Map();
    let findings = 0, drifts = 0;
    for (const v of members) {
      const answer = D.answers[v.history[at]];
      kinds.set(answer[0], (kinds.get(answer[0]) || 0) + 1);
      if (answer[4] & D.marks.FINDING) findings++;
      if (answer[4] & D.marks.DRIFT) drifts++;
    }
    return { kinds: [...kinds].sort((a, b) => b[1] - a[1]), findings, drifts };
  };

  const paint = (button, members, at, name) => {
    if (!members.length) {
      button.className = "empty";
      button.textContent = "·";
      button.setAttribute("aria-label", `${name}: no vector`);
      return;
    }
    const { kinds, findings, drifts } = tally(members, at);
    let from = 0;
    const stops = kinds.map(([kind, count]) => {
      const to = from + (100 * count) / members.length;
      const stop = `var(--k-${D.kinds[kind]}) ${from.toFixed(1)}% ${to.toFixed(1)}%`;
      from = to;
      return stop;
    });
    button.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    button.textContent = kinds.slice(0, 3).map(([kind]) => LETTERS[D.kinds[kind]]).join("") + (kinds.length > 3 ? "…" : "") +
      (findings ? " ▲" : "") + (drifts ? " ◆" : "");
    button.setAttribute("aria-label", `${name}: ${members.length} vectors, ` +
      kinds.map(([kind, count]) => `${count} ${D.kinds[kind]}`).join(", ") +
      (findings ? `, ${findings} findings` : "") + (drifts ? `, ${drifts} drift` : ""));
    button.title = button.getAttribute("aria-label");
  };

  const voices = (answer) => {
    const [, seen, predicted, contract] = answer;
    const allowed = make("div", {}, make("b", {}, "contract (the manual)"));
    if (contract < 0) allowed.append("not asked");
    else for (const [text, rule, section] of D.contracts[contract])
      allowed.append(make("div", {}, text), make("div", { class: "soft" }, section ? `${rule}, ${section}` : rule));
    return make("div", { class: "voices" },
      make("div", {}, make("b", {}, "mirror (this kernel)"), predicted < 0 ? "not asked" : D.texts[predicted]), allowed,
      make("div", {}, make("b", {}, D.observation), D.texts[seen]));
  };

  const pill = (name) => make("span", { class: "pill " + ({ FINDING: "bad", DRIFT: "bad", AGREE: "good" }[name] || "warn") }, SAY[name]);

  const answersOf = (members, at) => {
    const groups = new Map();
    for (const v of members) {
      const key = v.history[at] + " " + marksOf(v, at).join(" ");
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(v);
    }
    const weight = (key) => (key.includes("DRIFT") ? 2 : 0) + (key.includes("FINDING") ? 1 : 0);
    return [...groups].sort((a, b) => weight(b[0]) - weight(a[0]) || b[1].length - a[1].length);
  };

  const answerBlock = (group, at) => {
    const first = group[0];
    const head = make("div", {}, make("b", {}, `${group.length} vector${group.length > 1 ? "s" : ""} `));
    for (const name of marksOf(first, at)) head.append(pill(name), " ");
    const block = make("div", { class: "answer" }, head, voices(D.answers[first.history[at]]));
    const list = make("ul");
    for (const v of group.slice(0, MOST)) list.append(make("li", {}, make("code", {}, idOf(v))));
    if (group.length > MOST) list.append(make("li", {}, `and ${group.length - MOST} more: narrow the filters`));
    const [level, param] = D.cells[at];
    block.append(make("details", group.length <= 4 ? { open: "" } : {}, make("summary", {}, "the vectors"), list),
      make("pre", {}, `${D.run} --level ${level} --param ${param} ${idOf(first)}`));
    return block;
  };

  const show = (key, focus) => {
    open = key;
    const at = column();
    const members = buckets.get(key) || [];
    const [leaf, access] = key.split("|");
    const [level, param] = D.cells[at];
    const heading = make("h3", { tabindex: "-1" }, `${leaf} ${access}, level ${level}, parameter ${param}`);
    $("detail").replaceChildren(heading);
    if (!members.length) $("detail").append(make("p", { class: "soft" }, "No vector passes the filters here."));
    for (const [, group] of answersOf(members, at)) $("detail").append(answerBlock(group, at));
    for (const button of $("matrix").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.key === key));
    if (focus) heading.focus({ preventScroll: window.innerWidth > 960 });
  };

  const others = (at) => {
    const members = vectors.filter((v) => v.shape.kind !== "access" && wanted(v, at));
    $("others-count").textContent = String(members.length);
    // Thousands of rows are made only for a reader who opened them.
    if (!$("others").closest("details").open) {
      $("others").replaceChildren();
      return;
    }
    $("others").replaceChildren(...answersOf(members, at).flatMap(([, group]) => group.map((v) => {
      const answer = D.answers[v.history[at]];
      const contract = answer[3] < 0 ? "not asked" : D.contracts[answer[3]].map((c) => c[0]).join(" or ");
      const marks = make("td");
      for (const name of marksOf(v, at)) marks.append(pill(name), " ");
      return make("tr", {}, make("td", {}, make("code", {}, idOf(v))), make("td", {}, answer[2] < 0 ? "not asked" : D.texts[answer[2]]),
        make("td", {}, contract), make("td", {}, D.texts[answer[1]]), marks);
    })));
  };

  const draw = () => {
    const at = column();
    buckets = new Map();
    let shown = 0, findings = 0, drifts = 0;
    for (const v of vectors) {
      if (v.shape.kind !== "access" || !wantedAccess(v, at) || !wanted(v, at)) continue;
      const key = `${v.leaf}|${v.column}`;
      if (!buckets.has(key)) buckets.set(key, []);
      buckets.get(key).push(v);
      shown++;
      if (D.answers[v.history[at]][4] & D.marks.FINDING) findings++;
      if (D.answers[v.history[at]][4] & D.marks.DRIFT) drifts++;
    }
    for (const button of $("matrix").querySelectorAll("button")) {
      button.className = "";
      button.removeAttribute("style");
      paint(button, buckets.get(button.dataset.key) || [], at, button.dataset.key.replace("|", " "));
    }
    $("shown").textContent = `${shown.toLocaleString("en")} vectors, ${findings.toLocaleString("en")} with a finding, ` +
      `${drifts.toLocaleString("en")} with drift`;
    $("matrix").caption.textContent = `level ${D.cells[at][0]}, parameter ${D.cells[at][1]}`;
    others(at);
    if (open) show(open, false);
  };

  const build = () => {
    const head = make("tr", {}, make("th", { scope: "col" }, "leaf"), ...D.columns.map((c) => make("th", { scope: "col" }, c)));
    const body = D.permissions.map((leaf) => make("tr", {}, make("th", { scope: "row", class: "mono" }, leaf),
      ...D.columns.map((c) => {
        const button = make("button", { type: "button", "data-key": `${leaf}|${c}`, tabindex: "-1", "aria-pressed": "false" });
        button.addEventListener("click", () => show(button.dataset.key, true));
        return make("td", {}, button);
      })));
    $("matrix").replaceChildren(make("caption", {}), make("thead", {}, head), make("tbody", {}, ...body));
    const buttons = [...$("matrix").querySelectorAll("button")];
    buttons[0].tabIndex = 0;
    const wide = D.columns.length;
    $("matrix").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide }[event.key];
      const here = buttons.indexOf(document.activeElement);
      if (here < 0) return;
      let next = step ? here + step : here;
      if (event.key === "Home") next = here - (here % wide);
      if (event.key === "End") next = here - (here % wide) + wide - 1;
      if (next === here || next < 0 || next >= buttons.length) return;
      event.preventDefault();
      buttons[here].tabIndex = -1;
      buttons[next].tabIndex = 0;
      buttons[next].focus();
    });
    $("detail").addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !open) return;
      const from = buttons.find((b) => b.dataset.key === open);
      if (from) from.focus();
    });
  };

  const go = (level, param) => {
    $("f-level").value = level;
    setParams();
    if (paramsOf(Number(level)).includes(param)) $("f-param").value = param;
    draw();
  };
  for (const button of document.querySelectorAll("button[data-level]"))
    button.addEventListener("click", () => {
      go(button.dataset.level, button.dataset.param);
      $("matrix-head").scrollIntoView();
      $("f-level").focus({ preventScroll: true });
    });

  build();
  go(String(levels[levels.length - 1]), "1");
  const present = new Set(vectors.filter((v) => v.mbec).map((v) => v.mbec));
  if (!present.has($("f-mbec").value)) $("f-mbec").value = "";
  draw();
  $("f-level").addEventListener("change", () => go($("f-level").value, $("f-param").value));
  for (const id of ["f-param", "f-mbec", "f-size", "f-upper", "f-cpl", "f-guest", "f-mark"]) $(id).addEventListener("change", draw);
  let pause = 0;
  $("others").closest("details").addEventListener("toggle", () => others(column()));
  $("f-text").addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(draw, 200); });
  document.documentElement.dataset.ready = "1";
})();
