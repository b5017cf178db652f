import { blob, follow, get } from "../api.js";
import { Field, put } from "../form.js";
import { html, useEffect, useState } from "../html.js";
import { CallButton, Copy, Failure, Json, Loaded, Status, useData, useThrottled } from "../parts.js";
import { ago, exactly, lasts, phaseName, stepName, t, when } from "../texts.js";

const TABS = ["overview", "steps", "log", "audit", "raw"];

export function Execution({ id, tab = "overview" }) {
  const path = `/api/v1/executions/${id}`;
  const execution = useData(() => get(path), [id]);
  const steps = useData(async () => (await get(`${path}/steps`)).steps, [id]);
  const refresh = useThrottled(() => { execution.reload(); steps.reload(); }, 300);
  useEffect(() => follow(`/api/v1/sse/executions/${id}/stream`, { execution_id: id }, refresh, () => {}), [id]);
  const done = () => { execution.reload(); steps.reload(); };
  return html`<${Loaded} state=${execution}>${(it) => html`<div class="head"><div>
        <h1>${it.title ?? it.current_step?.label ?? it.id.slice(0, 8)}</h1>
        <p class="row"><${Status} status=${it.status} /> <span class="hint">${t("created")} ${when(it.created_at)}</span></p>
      </div><${Controls} it=${it} path=${path} done=${done} /></div>
    <progress max="100" value=${it.progress} aria-label=${`${it.progress} %`}></progress>
    ${it.reason && html`<p class="notice ${it.status === "failed" ? "bad" : "ask"}">${it.reason}</p>`}
    <nav class="tabs" aria-label=${it.title ?? it.id}>${TABS.map((name) => html`<a key=${name}
      href="#/executions/${id}/${name}" aria-current=${tab === name ? "page" : undefined}>${t(name)}</a>`)}</nav>
    ${tab === "steps" ? html`<${Loaded} state=${steps}>${(all) => html`<${Steps} steps=${all} path=${path} />`}<//>`
      : tab === "log" ? html`<${Log} path=${path} version=${it.version} />`
      : tab === "audit" ? html`<${Audit} path=${path} version=${it.version} />`
      : tab === "raw" ? html`<${Json} value=${it} />`
      : html`<${Actions} it=${it} done=${done} /><${Timeline} it=${it} steps=${steps.data ?? []} />
        <${Signers} it=${it} /><${Issues} it=${it} />
        ${it.last_error_tech && html`<details><summary>${t("technical")}</summary><pre tabindex="0">${it.last_error_tech}</pre></details>`}`}`}<//>`;
}

const OPEN = ["queued", "running", "ready", "sending", "sent", "signing", "signed"];
const ENDED = ["completed", "failed", "canceled"];

function Controls({ it, path, done }) {
  const button = (name, more) => html`<${CallButton} key=${name} label=${t(name)} path="${path}/${name}" body=${{}} done=${done} ...${more} />`;
  return html`<div class="controls">
    ${OPEN.includes(it.status) && button("pause")}
    ${it.status === "paused" && it.waiting_for?.kind === "pause" && button("resume", { kind: "main" })}
    ${ENDED.includes(it.status) && button("retry", { done: (made) => { location.hash = `#/executions/${made.execution_id}`; } })}
    ${!ENDED.includes(it.status) && button("cancel", { ask: t("confirmCancel"), kind: "danger" })}</div>`;
}

function Actions({ it, done }) {
  if (it.recommended_actions.length === 0) return null;
  return html`<section><h2>${t("whatNow")}</h2>${together(it.recommended_actions).map((action, at) => html`<div class="card" key=${at}>
    ${distinct(action.of).map((one, index) => html`<div key=${index}><h3>${one.label}</h3><p>${one.description}</p></div>`)}
    ${action.call && html`<${Repair} key=${it.version} action=${action} done=${done} />`}</div>`)}</section>`;
}

const distinct = (actions) =>
  actions.filter((one, at) => actions.findIndex((other) => other.action === one.action) === at);

// Repairs that are patches of the same execution become one form and one call: each alone would leave the others' faults,
// and the execution would wait again.
function together(actions) {
  const all = [];
  const patches = actions.filter((action) => action.call?.body?.patch && action.inputs?.length);
  for (const action of actions) {
    if (!patches.includes(action)) {
      all.push({ ...action, of: [action] });
    } else if (action === patches[0]) {
      const { call: first } = action;
      const patch = [];
      const inputs = [];
      for (const one of patches) {
        for (const input of one.inputs) {
          const moved = input.pointer.replace(/^\/patch\/(\d+)/, (_, at) => `/patch/${Number(at) + patch.length}`);
          inputs.push({ ...input, pointer: moved });
        }
        patch.push(...one.call.body.patch);
      }
      const loses = [...new Set(patches.flatMap((one) => one.loses ?? []))];
      all.push({ ...action, of: patches, inputs, loses, call: { ...first, body: { ...first.body, patch } } });
    }
  }
  return all;
}

// The form of an action: its inputs, with the value as it is now beside each. Sending the filled call does the repair.
function Repair({ action, done }) {
  const [body, fill] = useState(action.call.body ?? {});
  const loses = action.loses ?? [];
  const sent = loses.length ? { ...body, acknowledge: loses } : body;
  return html`<form onSubmit=${(e) => e.preventDefault()}>
    ${(action.inputs ?? []).map((input) => html`<${Input} key=${input.pointer} input=${input}
      change=${(value) => fill((old) => put(old, input.pointer, value))} />`)}
    <${CallButton} kind="main" label=${action.of.length > 1 ? t("send") : action.label} method=${action.call.method} path=${action.call.path} body=${sent}
      ask=${loses.length ? t("loses", { what: loses.join(", ") }) : null} done=${done} curl /></form>`;
}

function Input({ input, change }) {
  const [value, set] = useState(input.value ?? undefined);
  // A text stays a text where the schema names no type; else a corrected "12" would be sent as a number.
  const isText = input.schema.type === undefined && typeof input.value === "string";
  const schema = isText ? { ...input.schema, type: "string" } : input.schema;
  const old = input.value === null ? "–" : typeof input.value === "string" ? input.value : JSON.stringify(input.value);
  return html`<div><${Field} schema=${schema} name=${input.label} value=${value} id=${`input${input.pointer}`}
      change=${(next) => { set(next); change(next ?? null); }} />
    <p class="hint">${t("oldValue")}: <code>${old}</code></p></div>`;
}

// One bar for each step, on the time from the start to now. Waiting is hatched.
function Timeline({ it, steps }) {
  const begun = steps.filter((step) => step.started_at);
  if (begun.length === 0) return null;
  const now = Date.now();
  const end = (step) => (step.completed_at ? Date.parse(step.completed_at) : now);
  const from = Math.min(...begun.map((step) => Date.parse(step.started_at)));
  const all = Math.max(1, Math.max(...begun.map(end)) - from);
  const percent = (ms) => (100 * ms) / all;
  const waits = (step) => step.status === "running" && it.waiting_for && it.current_step?.node_id === step.node_id;
  return html`<section><h2>${t("phases")}</h2><ol class="timeline">${begun.map((step) => html`<li key=${step.id}>
    <span class="name">${step.label}<span class="hint">${phaseName(step.phase)} · ${stepName(step.status)} · ${lasts(step.duration_ms)}</span></span>
    <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><defs><pattern id="hatched" width="2" height="2"
        patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="1" height="2" class="hatch" /></pattern></defs>
      <rect class="rail" width="100" height="10" rx="1" />
      <rect class="part ${step.status} ${waits(step) ? "waits" : ""}" x=${percent(Date.parse(step.started_at) - from)}
        width=${Math.max(0.8, percent(end(step) - Date.parse(step.started_at)))} height="10" rx="1" />
      ${waits(step) && html`<rect fill="url(#hatched)" x=${percent(Date.parse(it.waiting_for.since) - from)}
        width=${Math.max(0.8, percent(now - Date.parse(it.waiting_for.since)))} height="10" />`}</svg></li>`)}</ol></section>`;
}

function Signers({ it }) {
  const request = it.waiting_for?.detail?.signature_request_id;
  const signers = useData(() => (request ? get(`/api/v1/signatures/${request}/signers`) : { signers: [] }), [request, it.version]);
  if (!signers.data?.signers.length) return null;
  return html`<section><h2>${t("signers")}</h2><ul class="plainlist">${signers.data.signers.map((signer) => html`<li
    key=${signer.email}><strong>${signer.name ?? signer.email}</strong> <span class="hint">${signer.email}</span>
    <span class="tag">${signer.status}</span> ${signer.signed_at && html`<span class="hint">${when(signer.signed_at)}</span>`}</li>`)}</ul></section>`;
}

function Issues({ it }) {
  const issues = Object.values(it.preflight_summary?.groups ?? {}).flat();
  if (issues.length === 0) return null;
  return html`<section><h2>${t("preflight")}</h2><ul class="plainlist">${issues.map((issue, at) => html`<li key=${at}
    class=${issue.severity}>${issue.message_human} ${issue.field && html`<code>${issue.field}</code>`}
    ${issue.message_tech && html`<details><summary>${t("technical")}</summary><pre tabindex="0">${issue.message_tech}</pre></details>`}</li>`)}</ul></section>`;
}

function Steps({ steps, path }) {
  return html`<ol class="plainlist">${steps.map((step) => html`<li key=${step.id} class="card"><div class="row">
      <h2>${step.label}</h2><span class="tag ${step.status}">${stepName(step.status)}</span>
      <span class="hint">${phaseName(step.phase)} · ${step.node_type} · ${lasts(step.duration_ms)}</span></div>
    ${step.error_human && html`<p class="notice bad">${step.error_human}</p>`}
    ${step.data_out?.file && html`<${Document} path="${path}/files/${step.node_id}" />`}
    <details><summary>${t("input")}</summary><${Json} value=${step.data_in} /></details>
    <details><summary>${t("output")}</summary><${Json} value=${step.data_out} /></details>
    ${step.error_tech && html`<details><summary>${t("technical")}</summary><pre tabindex="0">${step.error_tech}</pre></details>`}</li>`)}</ol>`;
}

function Document({ path }) {
  const [error, fail] = useState(null);
  const open = async () => {
    try { window.open(await blob(path), "_blank"); } catch (failed) { fail(failed); }
  };
  return html`<button onClick=${open}>${t("documents")}</button>${error && html`<${Failure} error=${error} />`}`;
}

function Log({ path, version }) {
  const log = useData(() => get(`${path}/logs?limit=100`), [path, version]);
  return html`<${Loaded} state=${log}>${({ logs }) => html`<table class="list"><thead><tr><th>${t("time")}</th>
    <th>${t("level")}</th><th>${t("message")}</th></tr></thead><tbody>${logs.map((entry) => html`<tr key=${entry.id}>
    <td>${exactly(entry.timestamp)}</td><td><span class="tag ${entry.level}">${entry.level}</span></td>
    <td>${entry.message_human}${entry.message_tech && html`<details><summary>${t("technical")}</summary>
      <pre tabindex="0">${entry.message_tech}</pre></details>`}</td></tr>`)}</tbody></table>`}<//>`;
}

function Audit({ path, version }) {
  const audit = useData(() => get(`${path}/audit?limit=100`), [path, version]);
  const [verdict, tell] = useState(null);
  return html`<${CallButton} label=${t("verify")} method="GET" path="${path}/audit/verify" done=${tell} curl />
    ${verdict && html`<p class="notice ${verdict.valid ? "good" : "bad"}" role="status">${verdict.valid
      ? t("valid", { n: verdict.count }) : t("invalid", { n: verdict.first_invalid_seq })}</p>`}
    <${Loaded} state=${audit}>${(data) => html`<table class="list"><thead><tr><th>${t("time")}</th><th>${t("action")}</th>
      <th>${t("actor")}</th></tr></thead><tbody>${data.events.map((row) => html`<tr key=${row.id}>
      <td title=${row.timestamp}>${exactly(row.timestamp)}</td><td>${row.action}</td><td>${row.actor?.actor_id ?? row.actor_id ?? ""}</td></tr>`)}</tbody></table>`}<//>`;
}
