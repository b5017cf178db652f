import { call, get } from "../api.js";
import { Field, blank } from "../form.js";
import { html, useEffect, useState } from "../html.js";
import { Failure, Json, Loaded, useData } from "../parts.js";
import { t } from "../texts.js";

export function Start({ id }) {
  const workflow = useData(() => get(`/api/v1/workflows/${id}`), [id]);
  return html`<${Loaded} state=${workflow}>${(it) => html`<h1>${t("startTitle", { name: it.name })}</h1>
    <p class="hint">${t("version", { n: it.version })} · ${it.nodes.map((node) => node.label?.en ?? node.label ?? node.id).join(" → ")}</p>
    <${StartForm} key=${it.version} it=${it} />
    <details><summary>${t("raw")}</summary><${Json} value=${it} /></details>`}<//>`;
}

function StartForm({ it }) {
  const hasForm = Boolean(it.input_schema?.properties);
  const [data, set] = useState(() => blank(it.input_schema) ?? {});
  const [found, tell] = useState(null);
  const [error, fail] = useState(null);
  // Checks what was typed, a moment after the last key.
  useEffect(() => {
    const timer = setTimeout(() => {
      call("POST", `/api/v1/workflows/${it.id}/preflight`, { trigger_data: data }).then(tell, () => tell(null));
    }, 400);
    return () => clearTimeout(timer);
  }, [data]);
  const start = async (dry_run) => {
    try {
      const made = await call("POST", `/api/v1/workflows/${it.id}/executions`, { trigger_data: data, dry_run });
      location.hash = `#/executions/${made.id}`;
    } catch (failed) {
      fail(failed);
    }
  };
  const issues = Object.values(found?.groups ?? {}).flat();
  return html`<form class="card" onSubmit=${(e) => { e.preventDefault(); start(false); }}>
    ${hasForm ? html`<${Field} schema=${it.input_schema} value=${data} change=${set} id="data" />`
      : html`<${Field} schema=${{}} name=${t("data")} value=${data} change=${(value) => set(value ?? {})} id="data" />`}
    <div role="status">${found && (issues.length === 0 ? html`<p class="notice good">${t("noIssues")}</p>`
      : html`<ul class="notice ask">${issues.map((issue, at) => html`<li key=${at} class=${issue.severity}>${issue.message_human}
        ${issue.field && html`<code>${issue.field}</code>`}</li>`)}</ul>`)}</div>
    ${error && html`<${Failure} error=${error} />`}
    <div class="row"><button class="main">${t("start")}</button>
      <button type="button" onClick=${() => start(true)}>${t("dryRun")}</button></div></form>`;
}
