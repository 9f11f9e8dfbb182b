"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const byId = (id) => document.getElementById(id);
  const make = (tag, given) => Object.assign(document.createElement(tag), given);

  // --- light and dark ---
  const remember = (value) => { try { localStorage.setItem("night-batch-theme", value); } catch { /* a page from a mail may not */ } };
  const remembered = () => { try { return localStorage.getItem("night-batch-theme"); } catch { return null; } };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const before = remembered();
  if (before === "dark" || before === "light") root.dataset.theme = before;
  const change = () => { root.dataset.theme = dark() ? "light" : "dark"; remember(root.dataset.theme); };
  byId("theme").addEventListener("click", change);

  // --- which section is being read ---
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
  }, { rootMargin: "-12% 0px -78% 0px" });
  document.querySelectorAll("main > section").forEach((section) => seen.observe(section));

  // --- graphs: closer and farther; a large one begins where something failed ---
  const LEAST = 0.1, MOST = 2;
  for (const picture of document.querySelectorAll(".picture")) {
    const svg = picture.querySelector("svg");
    const natural = { width: svg.width.baseVal.value, height: svg.height.baseVal.value };
    const room = () => {
      const style = getComputedStyle(picture);
      return picture.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    };
    const scale = () => svg.getBoundingClientRect().width / natural.width || 1;
    const told = make("span", { className: "zoomed" });
    told.setAttribute("role", "status");
    const tell = () => { told.textContent = `${Math.round(scale() * 100)} %`; };
    // What lies under the point stays there: the middle of the frame, or the pointer.
    const zoom = (wanted, point) => {
      const frame = picture.getBoundingClientRect();
      const at = point || { x: frame.left + picture.clientWidth / 2, y: frame.top + picture.clientHeight / 2 };
      const old = svg.getBoundingClientRect();
      const x = (at.x - old.left) / old.width, y = (at.y - old.top) / old.height;
      svg.style.maxWidth = "none";
      svg.style.width = `${natural.width * Math.min(Math.max(wanted, LEAST), MOST)}px`;
      const now = svg.getBoundingClientRect();
      picture.scrollBy({ left: now.left + x * now.width - at.x, top: now.top + y * now.height - at.y, behavior: "instant" });
      tell();
    };
    const act = {
      "-": ["−", "Zoom out", () => zoom(scale() / 1.25)],
      "+": ["+", "Zoom in", () => zoom(scale() * 1.25)],
      0: ["Fit", "Fit to the width", () => zoom(Math.min(room() / natural.width, 1))],
      1: ["Full size", "Full size", () => zoom(1)],
    };
    const bar = make("div", { className: "zoom" });
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", `Zoom: ${picture.getAttribute("aria-label")}`);
    for (const [key, [text, label, run]] of [["-", act["-"]], ["+", act["+"]], ["0", act[0]], ["1", act[1]]]) {
      const button = make("button", { type: "button", textContent: text, title: `${label} (${key})` });
      button.setAttribute("aria-label", label);
      button.setAttribute("aria-keyshortcuts", key);
      button.addEventListener("click", run);
      bar.append(button);
    }
    bar.append(told);
    picture.before(bar);
    picture.addEventListener("keydown", (event) => {
      if (event.metaKey || event.ctrlKey || event.altKey) return;
      const found = act[event.key === "=" ? "+" : event.key];
      if (found && !bar.hidden) { event.preventDefault(); event.stopPropagation(); found[2](); }
    });
    picture.addEventListener("wheel", (event) => {
      if (!event.ctrlKey || bar.hidden) return;
      event.preventDefault();
      zoom(scale() * Math.exp(-event.deltaY / 300), { x: event.clientX, y: event.clientY });
    }, { passive: false });
    const fits = () => {
      if (!picture.clientWidth) return; // in a fold
      const whole = picture.scrollWidth <= picture.clientWidth && picture.scrollHeight <= picture.clientHeight;
      bar.hidden = !svg.style.width && whole && scale() > 0.85;
      tell();
    };
    new ResizeObserver(fits).observe(picture);
    fits();
    if (picture.closest("details")) continue;
    const box = picture.querySelector(".state-failed.kind-task, .state-failed, .state-running");
    if (!box || (picture.scrollWidth <= picture.clientWidth && picture.scrollHeight <= picture.clientHeight)) continue;
    const frame = picture.getBoundingClientRect(), place = box.getBoundingClientRect();
    picture.scrollTo({
      left: place.left - frame.left - (picture.clientWidth - place.width) / 2,
      top: place.top - frame.top - (picture.clientHeight - place.height) / 2,
      behavior: "instant",
    });
  }

  // --- the table ---
  const table = byId("rows");
  if (!table) return;
  const nodes = new Map();
  const top = [];
  for (const body of table.tBodies) {
    const node = { body, children: [], up: null, open: true, state: body.dataset.state, at: nodes.size };
    node.link = body.querySelector("th.task a");
    node.detail = body.querySelector(".detail");
    node.text = `${node.link.title} ${node.state} ${body.querySelector(".why").textContent}`.toLowerCase();
    nodes.set(body.dataset.n, node);
    const up = nodes.get(body.dataset.up);
    node.up = up || null;
    (up ? up.children : top).push(node);
  }
  const each = [...nodes.values()];
  const filter = byId("filter"), found = byId("found"), unfold = byId("unfold");
  const chips = [...document.querySelectorAll(".chip")];

  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = new Set(chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.state));
    const filtered = words.length > 0 || states.size > 0;
    let hits = 0;
    for (const node of each) {
      node.hit = filtered && (!states.size || (states.has(node.state) && !node.children.length)) && words.every((word) => node.text.includes(word));
      node.around = false;
      if (node.hit) {
        hits += 1;
        for (let up = node.up; up && !up.around; up = up.up) up.around = true;
      }
    }
    for (const node of each) {
      node.shown = filtered ? node.hit || node.around : !node.up || (node.up.shown && node.up.open);
      node.body.hidden = !node.shown;
      node.body.classList.toggle("up", filtered && !node.hit);
    }
    found.textContent = filtered ? `${hits.toLocaleString("en")} of ${each.length.toLocaleString("en")}` : "";
    unfold.hidden = filtered || !each.some((node) => node.children.length);
    unfold.textContent = each.every((node) => node.open) ? "Fold all" : "Unfold all";
  };

  const fold = (node, open) => {
    node.open = open;
    node.twist?.setAttribute("aria-expanded", String(open));
  };
  for (const node of each) {
    if (!node.children.length) continue;
    node.twist = make("button", { type: "button", className: "twist" });
    node.twist.setAttribute("aria-label", `What is below ${node.link.title}`);
    node.link.before(node.twist);
    fold(node, node.children.length <= 12 && node.children.every((child) => !child.children.length));
    node.twist.addEventListener("click", () => { fold(node, !node.open); show(); });
  }
  unfold.addEventListener("click", () => {
    const open = !each.every((node) => node.open);
    each.forEach((node) => fold(node, open));
    show();
  });

  // --- what is known of a task ---
  const open = (node, wanted) => {
    node.detail.classList.toggle("open", wanted);
    node.link.setAttribute("aria-expanded", String(wanted));
  };
  for (const node of each) {
    node.link.setAttribute("aria-expanded", "false");
    node.link.setAttribute("aria-controls", node.detail.id);
    node.link.addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      open(node, !node.detail.classList.contains("open"));
    });
  }
  const reveal = () => {
    const node = /^#d\d+$/.test(location.hash) ? nodes.get(location.hash.slice(2)) : undefined;
    if (!node) return;
    for (let up = node.up; up; up = up.up) fold(up, true);
    filter.value = "";
    chips.forEach((chip) => chip.setAttribute("aria-pressed", "false"));
    show();
    open(node, true);
    node.body.classList.remove("flash");
    void node.body.offsetWidth; // so that the animation begins anew
    node.body.classList.add("flash");
    node.link.focus({ preventScroll: true });
    node.body.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", reveal);
  // A link to where the page already is changes no hash.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#d"], a[*|href^="#d"]');
    if (!link || link.closest("th.task")) return;
    const hash = link.getAttribute("href") || link.getAttribute("xlink:href");
    if (hash === location.hash) { event.preventDefault(); reveal(); }
  });

  // --- sorting ---
  let sorted = null, down = false;
  const headers = [...table.tHead.rows[0].cells];
  const sort = (header) => {
    const column = header.cellIndex;
    if (sorted === header) {
      if (down === (header.dataset.sort === "task" || header.dataset.sort === "state" || header.dataset.sort === "why")) { sorted = null; }
      else down = !down;
    } else {
      sorted = header;
      down = !["task", "state", "why"].includes(header.dataset.sort);
    }
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    if (sorted) header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (node) => {
      const cell = node.body.rows[0].cells[column];
      const value = cell.dataset.v ?? cell.textContent;
      return value === "" ? null : cell.classList.contains("num") ? Number(value) : value;
    };
    const compare = (a, b) => {
      if (!sorted) return a.at - b.at;
      const x = key(a), y = key(b);
      if (x === null || y === null) return (x === null) - (y === null) || a.at - b.at;
      const by = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
      return (down ? -by : by) || a.at - b.at;
    };
    const order = [];
    const stack = [...top].sort(compare).reverse();
    while (stack.length) {
      const node = stack.pop();
      order.push(node);
      if (node.children.length) stack.push(...[...node.children].sort(compare).reverse());
    }
    table.append(...order.map((node) => node.body));
    each.splice(0, each.length, ...order);
  };
  for (const header of headers) {
    const button = make("button", { type: "button", textContent: header.textContent });
    header.replaceChildren(button);
    button.addEventListener("click", () => sort(header));
  }

  // --- filter ---
  filter.addEventListener("input", show);
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      const pressed = chip.getAttribute("aria-pressed") !== "true";
      chip.setAttribute("aria-pressed", String(pressed));
      show();
      if (pressed) byId("tasks").scrollIntoView();
    });
  }

  // --- keys ---
  const move = (by) => {
    const shown = each.filter((node) => node.shown);
    if (!shown.length) return;
    const here = shown.findIndex((node) => node.body.contains(document.activeElement));
    const next = here < 0 ? 0 : Math.min(Math.max(here + by, 0), shown.length - 1);
    shown[next].link.focus({ preventScroll: true });
    shown[next].body.rows[0].scrollIntoView({ block: "nearest" });
  };
  addEventListener("keydown", (event) => {
    if (event.metaKey || event.ctrlKey || event.altKey) return;
    if (event.key === "Escape") {
      filter.value = "";
      chips.forEach((chip) => chip.setAttribute("aria-pressed", "false"));
      show();
      if (document.activeElement === filter) filter.blur();
      return;
    }
    if (event.target.closest?.("input, textarea, select")) {
      if (event.key === "ArrowDown" || event.key === "Enter") { event.preventDefault(); move(1); }
      return;
    }
    const inRows = table.contains(document.activeElement);
    const act = {
      "/": () => { filter.focus(); filter.select(); },
      j: () => move(1),
      k: () => move(-1),
      t: change,
      s: () => sort(headers.find((header) => header.dataset.sort === "took")),
      e: () => {
        const failed = each.filter((node) => node.state === "failed");
        const wanted = !failed.every((node) => node.detail.classList.contains("open"));
        for (const node of failed) {
          open(node, wanted);
          for (let up = node.up; up; up = up.up) fold(up, true);
        }
        show();
      },
      ...(inRows && document.activeElement.matches("th.task a, .twist") ? { ArrowDown: () => move(1), ArrowUp: () => move(-1) } : {}),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  show();
  // Last of all, for the browser goes to the address's place by itself when the page is there, and takes the focus along.
  addEventListener("load", () => setTimeout(reveal));
})();
