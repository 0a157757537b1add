/* What the pages do beyond HTML: they stay up to date by the stream of events, say how long ago things were, ask before
   what cannot be undone. Without this script everything still works, by loading pages anew. */
(() => {
  "use strict";
  const root = document.documentElement;

  // -- light or dark: as the system, unless a person has chosen
  const store = (() => { try { return window.localStorage; } catch { return null; } })();
  const theme = store && store.getItem("rota-theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  // -- how long ago
  const ago = (seconds) => {
    const future = seconds < 0, s = Math.abs(seconds);
    const text = s < 1.5 ? "now" : s < 100 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min`
      : s < 129600 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
    return text === "now" ? text : future ? `in ${text}` : `${text} ago`;
  };
  const tellTimes = (within) => {
    for (const time of within.querySelectorAll("time")) {
      const text = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
      if (time.textContent !== text) time.textContent = text;
    }
  };

  // -- on a phone a table is a list: each cell has to say what it is
  const nameCells = (within) => {
    for (const table of within.querySelectorAll("table")) {
      const names = [...table.querySelectorAll("thead th")].map((th) => th.textContent.trim());
      for (const row of table.querySelectorAll("tbody tr")) {
        [...row.children].forEach((cell, at) => {
          if (cell.textContent.trim() === "–") cell.dataset.none = "";
          if (cell.tagName === "TD" && !cell.matches(".acts, .choose, .empty, .why") && names[at]) cell.dataset.name = names[at];
        });
      }
    }
  };

  // -- up to date: parts of the page are fetched again when something has happened
  const live = document.getElementById("live");
  const shown = new Map();            // id of a part -> its HTML as the server sent it
  const say = (state, text) => { if (live) { live.dataset.state = state; live.textContent = text; } };
  let asking = false, again = false, last = 0, timer = 0;

  const swap = (part, fresh) => {
    const before = shown.get(part.id) ?? null, html = fresh.innerHTML;
    if (before === html) return;
    const active = document.activeElement;
    const key = active && part.contains(active) ? [active.tagName, active.name, active.value, active.textContent].join("|") : null;
    const ticked = new Set([...part.querySelectorAll('input[type="checkbox"]:checked')].map((box) => box.value));
    const top = part.firstElementChild ? part.firstElementChild.scrollTop : 0;
    part.replaceChildren(...fresh.childNodes);
    shown.set(part.id, html);
    for (const box of part.querySelectorAll('input[name="id"]')) box.checked = ticked.has(box.value);
    if (part.firstElementChild) part.firstElementChild.scrollTop = top;
    if (key) {
      for (const it of part.querySelectorAll("a, button, input, summary, [tabindex]")) {
        if ([it.tagName, it.name, it.value, it.textContent].join("|") === key) { it.focus({ preventScroll: true }); break; }
      }
    }
    tellTimes(part); nameCells(part);
  };

  const refresh = async () => {
    if (asking) { again = true; return; }
    asking = true; last = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { "X-Rota-Part": "1", Accept: "text/html" }, credentials: "same-origin" });
      if (answer.redirected && new URL(answer.url).pathname === "/login") { location.reload(); return; }
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) {
          const fresh = page.getElementById(part.id);
          if (fresh) swap(part, fresh);
        }
      }
    } catch { /* the node has gone: the stream says so */ } finally {
      asking = false;
      if (again) { again = false; soon(); }
    }
  };
  const soon = () => {
    if (timer || document.hidden) return;
    timer = setTimeout(() => { timer = 0; refresh(); }, Math.max(150, last + 1000 - Date.now()));
  };

  const NAMES = ["pulse", "missed", "node_joined", "node_leaving", "node_left", "node_gone", "identity_ended", "lease_expired",
    "became_master", "mastership_ended", "took_over", "snapshot_retaken", "failed_dropped", "schedule_refused",
    "schedule_skipped", "bulk_started", "bulk_ended", "job_set_aside", "store_lost", "store_back"];
  const listen = () => {
    const stream = new EventSource("/v1/events");
    stream.onopen = () => { say("on", "live"); soon(); };
    stream.onerror = () => say("lost", "this node does not answer");
    for (const name of NAMES) stream.addEventListener(name, soon);
    addEventListener("pagehide", () => stream.close());
  };

  const ready = () => {
    const parts = document.querySelectorAll("[data-live]");
    for (const part of parts) shown.set(part.id, part.innerHTML);
    tellTimes(document); nameCells(document);
    setInterval(() => tellTimes(document), 1000);
    if (parts.length && window.EventSource) listen();
    document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });

    const here = document.querySelector("nav [aria-current]");
    if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 40;

    const button = document.getElementById("theme");
    if (button) button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      if (store) store.setItem("rota-theme", root.dataset.theme);
    });

    document.addEventListener("submit", (event) => {
      const asks = (event.submitter && event.submitter.dataset.ask) || event.target.dataset.ask;
      if (asks && !confirm(asks)) event.preventDefault();
    });
    document.addEventListener("change", (event) => {
      if (event.target.matches("[data-all]")) {
        for (const box of event.target.closest("table").querySelectorAll('input[name="id"]')) box.checked = event.target.checked;
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !event.target.matches("input, select, textarea")) {
        const field = document.querySelector("[data-find]");
        if (field) { event.preventDefault(); field.focus(); }
      }
    });

    // `rota dashboard` prints an address with the token behind "#", which no server and no log gets to see
    const login = document.getElementById("login");
    const useAddress = () => {
      if (location.hash.length < 9) return;
      login.elements.token.value = decodeURIComponent(location.hash.slice(1));
      history.replaceState(null, "", location.pathname + location.search);
      login.submit();
    };
    if (login) { useAddress(); addEventListener("hashchange", useAddress); }
  };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", ready); else ready();
})();
