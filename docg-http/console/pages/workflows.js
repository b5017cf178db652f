import { get } from "../api.js";
import { html } from "../html.js";
import { Empty, Loaded, useData } from "../parts.js";
import { t } from "../texts.js";

export function Workflows() {
  const list = useData(() => get("/api/v1/workflows?limit=100"), []);
  return html`<h1>${t("workflows")}</h1><${Loaded} state=${list}>${({ workflows }) => workflows.length === 0
    ? html`<${Empty} title=${t("noWorkflows")} hint=${t("noWorkflowsHint")} />`
    : html`<ul class="cards">${workflows.map((it) => html`<li class="card" data-row key=${it.id}>
      <h2><a href="#/workflows/${it.id}">${it.name}</a></h2>
      <p class="hint">${t("version", { n: it.version })} · ${t("steps_n", { n: it.nodes.length })}</p>
      <a class="button main" href="#/workflows/${it.id}">${t("start")}</a></li>`)}</ul>`}<//>`;
}
