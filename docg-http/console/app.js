// The console's shell: who is signed in, which page is open, and whether what it shows is live.
import { follow, get, session } from "./api.js";
import { html, useCallback, useEffect, useRef, useState } from "./html.js";
import { Execution } from "./pages/execution.js";
import { Executions } from "./pages/executions.js";
import { Inbox } from "./pages/inbox.js";
import { SignIn } from "./pages/sign_in.js";
import { Start } from "./pages/start.js";
import { System } from "./pages/system.js";
import { Workflows } from "./pages/workflows.js";
import { language, setLanguage, t } from "./texts.js";
import { render } from "./vendor/preact.js";

// A link of the development server carries its token behind the #, which browsers send to nobody.
const linked = /^#token=([^&]+)/.exec(location.hash);
if (linked) {
  session.begin(decodeURIComponent(linked[1]));
  history.replaceState(null, "", `${location.pathname}#/`);
}

function place() {
  const [path, search] = location.hash.replace(/^#/, "").split("?");
  return { parts: path.split("/").filter(Boolean), search: Object.fromEntries(new URLSearchParams(search)) };
}

function usePlace() {
  const [at, set] = useState(place());
  useEffect(() => {
    const moved = () => set(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return at;
}

const PAGES = [["inbox", "#/"], ["executions", "#/executions"], ["workflows", "#/workflows"], ["system", "#/system"]];

function App() {
  const [signedIn, sign] = useState(Boolean(session.token));
  const at = usePlace();
  const [live, setLive] = useState(true);
  const [waiting, setWaiting] = useState(null);
  const listeners = useRef(new Set());
  const content = useRef(null);
  const onChange = useCallback((listener) => {
    listeners.current.add(listener);
    return () => listeners.current.delete(listener);
  }, []);

  useEffect(() => {
    const out = () => { session.end(); sign(false); };
    addEventListener("docg:signed-out", out);
    return () => removeEventListener("docg:signed-out", out);
  }, []);

  useEffect(() => {
    if (!signedIn) return undefined;
    const count = async () => {
      const { waiting: kinds } = await get("/api/v1/executions/counts").catch(() => ({ waiting: {} }));
      const people = ["review", "approval", "signature", "confirmation"];
      setWaiting(people.reduce((sum, kind) => sum + (kinds[kind]?.count ?? 0), 0));
    };
    count();
    let timer = null;
    const told = (type, event) => {
      for (const listener of listeners.current) listener(type, event);
      timer ??= setTimeout(() => { timer = null; count(); }, 1_000);
    };
    // After a break, what was shown may be old.
    const state = (isLive) => { setLive(isLive); if (isLive) told("gap"); };
    const stop = follow("/api/v1/sse/executions/stream", {}, told, state);
    return () => { stop(); clearTimeout(timer); };
  }, [signedIn]);

  // The focus goes to the new page, so that a screen reader tells it.
  const path = at.parts.join("/");
  useEffect(() => { content.current?.focus({ preventScroll: true }); scrollTo(0, 0); }, [path]);

  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
      const rows = [...document.querySelectorAll("[data-row] a")];
      const here = rows.indexOf(document.activeElement);
      const act = {
        "/": () => document.querySelector("input[type=search]")?.focus(),
        j: () => rows[Math.min(here + 1, rows.length - 1)]?.focus(),
        k: () => rows[Math.max(here - 1, 0)]?.focus(),
        r: () => { for (const listener of listeners.current) listener("gap"); },
        "?": () => alert(t("keys")),
      }[event.key];
      if (act) { event.preventDefault(); act(); }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);

  if (!signedIn) return html`<${SignIn} done=${() => sign(true)} />`;
  const [first, second, third] = at.parts;
  const page = first === undefined ? html`<${Inbox} onChange=${onChange} />`
    : first === "executions" && second ? html`<${Execution} key=${second} id=${second} tab=${third} />`
    : first === "executions" ? html`<${Executions} onChange=${onChange} filters=${at.search} />`
    : first === "workflows" && second ? html`<${Start} key=${second} id=${second} />`
    : first === "workflows" ? html`<${Workflows} />`
    : first === "system" ? html`<${System} />`
    : html`<h1>${t("notFound")}</h1>`;
  const isHere = (link) => (link === "#/" ? first === undefined : link === `#/${first}`);
  return html`<a class="skip" href="#content" onClick=${(e) => { e.preventDefault(); content.current.focus(); }}>${t("skip")}</a>
    <header class="top"><a class="brand" href="#/"><img src="console/icon.svg" alt="" width="28" height="28" />docg</a>
      <nav aria-label=${t("menu")}>${PAGES.map(([name, link]) => html`<a key=${name} href=${link}
        aria-current=${isHere(link) ? "page" : undefined}>${t(name)}
        ${name === "inbox" && waiting > 0 && html`<span class="count">${waiting}</span>`}</a>`)}</nav>
      <span class="live ${live ? "" : "off"}" role="status">${live ? t("live") : t("offline")}</span>
      <select aria-label=${t("language")} value=${language()} onChange=${(e) => setLanguage(e.target.value)}>
        <option value="en">English</option><option value="pt-BR">Português</option></select>
      <button class="plain" onClick=${() => { session.end(); sign(false); }}>${t("signOut")}</button></header>
    <main id="content" tabindex="-1" ref=${content}>${page}</main>`;
}

document.documentElement.lang = language();
render(html`<${App} />`, document.getElementById("app"));
