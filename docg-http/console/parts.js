// The parts that pages share.
import { asCurl, call } from "./api.js";
import { html, useCallback, useEffect, useRef, useState } from "./html.js";
import { statusName, t } from "./texts.js";

const ICONS = {
  queued: "○", running: "◐", needs_review: "!", ready: "◔", sending: "➤", sent: "✓", signing: "✎", signed: "✓",
  paused: "‖", completed: "✓", failed: "✕", canceled: "–",
};

export const Status = ({ status }) => html`<span class="status ${status}">
  <span class="dot" aria-hidden="true">${ICONS[status]}</span>${statusName(status)}</span>`;

// Reads something, and reads it again when `reload` is called. Old data stay visible meanwhile.
export function useData(read, inputs) {
  const [state, set] = useState({ data: null, error: null });
  const turn = useRef(0);
  const reload = useCallback(async () => {
    const mine = ++turn.current;
    try {
      const data = await read();
      if (mine === turn.current) set({ data, error: null });
    } catch (error) {
      if (mine === turn.current) set((old) => ({ ...old, error }));
    }
  }, inputs);
  useEffect(() => { reload(); }, [reload]);
  return { ...state, reload, set: (data) => set({ data, error: null }) };
}

// Calls at most once in `ms`, and once more after the last call.
export function useThrottled(f, ms) {
  const state = useRef({ timer: null, again: false });
  const latest = useRef(f);
  latest.current = f;
  useEffect(() => () => clearTimeout(state.current.timer), []);
  return useCallback(() => {
    const s = state.current;
    if (s.timer) { s.again = true; return; }
    latest.current();
    const end = () => {
      s.timer = null;
      if (s.again) { s.again = false; latest.current(); s.timer = setTimeout(end, ms); }
    };
    s.timer = setTimeout(end, ms);
  }, [ms]);
}

export const Loaded = ({ state, children }) =>
  state.data ? children(state.data)
    : state.error ? html`<${Failure} error=${state.error} retry=${state.reload} />`
    : html`<p class="loading" role="status">${t("loading")}</p>`;

export const Failure = ({ error, retry }) => html`<div class="notice bad" role="alert">
  <p>${error.status === 404 ? t("notFound") : error.status === 403 ? t("notAllowed") : error.message || t("again")}</p>
  ${error.problem?.errors?.map((it) => html`<p><code>${it.pointer}</code> ${it.detail}</p>`)}
  ${retry && html`<button onClick=${retry}>${t("retryLoad")}</button>`}</div>`;

export const Empty = ({ title, hint }) => html`<div class="empty"><h2>${title}</h2><p>${hint}</p></div>`;

export const Json = ({ value }) => html`<pre class="json" tabindex="0">${JSON.stringify(value, null, 2)}</pre>`;

export function Copy({ text, label }) {
  const [copied, set] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    set(true);
    setTimeout(() => set(false), 2_000);
  };
  return html`<button class="plain" onClick=${copy}>${copied ? t("copied") : label}</button>`;
}

// A button that makes a call. It asks first if something is lost by it.
export function CallButton({ label, method = "POST", path, body, ask, kind = "", done, curl = false }) {
  const [error, fail] = useState(null);
  const [busy, setBusy] = useState(false);
  const press = async () => {
    if (ask && !confirm(ask)) return;
    setBusy(true);
    fail(null);
    try {
      done(await call(method, path, body));
    } catch (failed) {
      fail(failed);
    }
    setBusy(false);
  };
  return html`<span class="call"><button class=${kind} disabled=${busy} onClick=${press}>${label}</button>
    ${curl && html`<${Copy} text=${asCurl(method, path, body)} label=${t("copyCurl")} />`}
    ${error && html`<${Failure} error=${error} />`}</span>`;
}

export const query = (filters) => {
  const all = Object.entries(filters).filter(([, value]) => value);
  return all.length ? `?${new URLSearchParams(all)}` : "";
};
