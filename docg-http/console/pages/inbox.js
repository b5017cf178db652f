import { get } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { Empty, Loaded, Status, useData, useThrottled } from "../parts.js";
import { ago, t, waitName, when } from "../texts.js";

const KINDS = ["review", "approval", "signature", "confirmation"];

export function Inbox({ onChange }) {
  const [kind, choose] = useState("");
  const counts = useData(() => get("/api/v1/executions/counts"), []);
  const list = useData(
    () => get(`/api/v1/executions?view=summary&sort=updated_at&limit=50&waiting_for=${kind || KINDS.join(",")}`),
    [kind],
  );
  const refresh = useThrottled(() => { counts.reload(); list.reload(); }, 1_000);
  useEffect(() => onChange(refresh), [onChange, refresh]);
  const count = (name) => counts.data?.waiting[name]?.count;
  return html`<h1>${t("inbox")}</h1>
    <div class="chips" role="group" aria-label=${t("filters")}>
      <button aria-pressed=${kind === ""} onClick=${() => choose("")}>${t("all")}</button>
      ${KINDS.map((name) => html`<button key=${name} aria-pressed=${kind === name} onClick=${() => choose(name)}>
        ${waitName(name)} <span class="count">${count(name) ?? "·"}</span></button>`)}</div>
    <${Loaded} state=${list}>${({ executions }) => executions.length === 0
      ? html`<${Empty} title=${t("nothingWaits")} hint=${t("nothingWaitsHint")} />`
      : html`<ul class="cards">${executions.map((it) => html`<${Card} key=${it.id} it=${it} />`)}</ul>`}<//>`;
}

function Card({ it }) {
  const action = it.recommended_actions[0];
  return html`<li class="card" data-row><div class="row"><${Status} status=${it.status} />
      <span class="hint" title=${when(it.waiting_for?.since)}>${t("since")} ${ago(it.waiting_for?.since)}</span></div>
    <h2><a href="#/executions/${it.id}">${it.title ?? it.current_step?.label ?? it.id.slice(0, 8)}</a></h2>
    <p>${it.reason}</p>
    <div class="row"><a class="button main" href="#/executions/${it.id}">${action?.label ?? t("open")}</a>
      ${it.waiting_for?.until && html`<span class="hint">${t("until")} ${when(it.waiting_for.until)}</span>`}</div></li>`;
}
