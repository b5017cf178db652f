// Calls of the API. The console lies beside it, at whatever path an application has mounted both.
import { language } from "./texts.js";

const base = location.pathname.replace(/\/console\/?$/, "");
const KEPT = "docg.token";
const ORGANIZATION = "docg.organization";

export const session = {
  get token() { return sessionStorage.getItem(KEPT); },
  get organization() { return sessionStorage.getItem(ORGANIZATION); },
  begin(token, organization) {
    sessionStorage.setItem(KEPT, token);
    if (organization) sessionStorage.setItem(ORGANIZATION, organization);
    else sessionStorage.removeItem(ORGANIZATION);
  },
  end() {
    sessionStorage.removeItem(KEPT);
    sessionStorage.removeItem(ORGANIZATION);
  },
};

// An answer that is no success. `problem` is the API's problem document, if there is one.
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.message ?? problem?.detail ?? String(status));
    this.status = status;
    this.problem = problem ?? {};
  }
}

export const url = (path) => base + path;

export function headers(more = {}) {
  const all = { "accept-language": language(), ...more };
  if (session.token) all.authorization = `Bearer ${session.token}`;
  if (session.organization) all["x-organization-id"] = session.organization;
  return all;
}

async function send(method, path, body, more) {
  const init = { method, headers: headers(more) };
  if (body !== undefined) {
    init.headers["content-type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  const response = await fetch(url(path), init);
  if (!response.ok) {
    const problem = await response.json().catch(() => null);
    if (response.status === 401) dispatchEvent(new Event("docg:signed-out"));
    throw new Refused(response.status, problem);
  }
  return response;
}

export async function call(method, path, body, more) {
  const response = await send(method, path, body, more);
  return response.status === 204 ? null : response.json();
}

export const get = (path) => call("GET", path);

export async function blob(path) {
  return URL.createObjectURL(await (await send("GET", path)).blob());
}

// The same call as a command for a terminal. It names the token's variable, not the token.
export function asCurl(method, path, body) {
  const lines = [`curl -X ${method} '${location.origin}${url(path)}'`, `-H "Authorization: Bearer $DOCG_TOKEN"`];
  if (body !== undefined) {
    const json = JSON.stringify(body).replaceAll("'", "'\\''");
    lines.push("-H 'Content-Type: application/json'", `-d '${json}'`);
  }
  return lines.join(" \\\n  ");
}

// Follows a stream until `stop` is called. A stream ends when its process stops, so it is opened again, with a token
// of its own, from the last event that was seen.
export function follow(path, body, onEvent, onState) {
  let source, last, timer, stopped = false, wait = 500;
  const again = () => {
    if (stopped) return;
    onState(false);
    timer = setTimeout(open, wait);
    wait = Math.min(wait * 2, 10_000);
  };
  async function open() {
    try {
      const { token } = await call("POST", "/api/v1/sse/tokens", body);
      if (stopped) return;
      const query = new URLSearchParams({ token });
      if (last) query.set("last_event_id", last);
      source = new EventSource(`${url(path)}?${query}`);
      source.addEventListener("connected", () => { wait = 500; onState(true); });
      source.addEventListener("gap", () => onEvent("gap"));
      for (const type of EVENTS) {
        source.addEventListener(type, (event) => {
          last = event.lastEventId || last;
          onEvent(type, JSON.parse(event.data));
        });
      }
      source.onerror = () => { source.close(); again(); };
    } catch (error) {
      if (error.status === 401 || error.status === 404) return;
      again();
    }
  }
  open();
  return () => { stopped = true; clearTimeout(timer); source?.close(); };
}

const EVENTS = [
  "execution.created", "execution.status_changed", "execution.progress", "preflight.completed", "step.started",
  "step.completed", "step.failed", "step.skipped", "step.waiting", "step.resumed", "execution.paused",
  "execution.resumed", "execution.completed", "execution.failed", "execution.canceled", "approval.requested",
  "approval.decided", "signature.requested", "signature.signer.viewed", "signature.signer.signed",
  "signature.signer.declined", "signature.completed", "signature.expired",
];
