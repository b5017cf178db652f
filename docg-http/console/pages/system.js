import { headers, url } from "../api.js";
import { html } from "../html.js";
import { Json, Loaded, useData } from "../parts.js";
import { t } from "../texts.js";

const read = async (path) => {
  const response = await fetch(url(path), { headers: headers() });
  return { ok: response.ok, body: await response.json().catch(() => null) };
};

export function System() {
  const ready = useData(() => read("/readyz"), []);
  const streams = useData(() => read("/api/v1/sse/health"), []);
  return html`<h1>${t("system")}</h1>${[ready, streams].map((state, at) => html`<${Loaded} key=${at} state=${state}>
    ${({ ok, body }) => html`<section class="card"><p class="notice ${ok ? "good" : "bad"}">${ok ? t("ready") : t("notReady")}</p>
      <${Json} value=${body} /></section>`}<//>`)}
    <p><a href=${url("/openapi.json")}>OpenAPI</a> · <a href=${url("/metrics")}>Metrics</a></p>`;
}
