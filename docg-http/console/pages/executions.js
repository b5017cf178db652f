import { call, get } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { Empty, Failure, Loaded, Status, query, useData, useThrottled } from "../parts.js";
import { ALL_STATUSES, ago, statusName, t, when } from "../texts.js";

export function Executions({ onChange, filters }) {
  const [more, setMore] = useState([]);
  const [selected, select] = useState(new Set());
  const [failure, fail] = useState(null);
  const given = { status: filters.status, q: filters.q };
  const read = (cursor) => get(`/api/v1/executions${query({ ...given, view: "summary", limit: "50", cursor })}`);
  const list = useData(() => read(), [filters.status, filters.q]);
  const counts = useData(() => get("/api/v1/executions/counts"), []);
  useEffect(() => { setMore([]); select(new Set()); }, [filters.status, filters.q]);
  const refresh = useThrottled(() => { list.reload(); counts.reload(); }, 1_000);
  useEffect(() => onChange(refresh), [onChange, refresh]);

  const go = (change) => { location.hash = `#/executions${query({ ...given, ...change })}`; };
  const chosen = new Set((filters.status ?? "").split(",").filter(Boolean));
  const toggle = (status) => {
    const next = new Set(chosen);
    if (!next.delete(status)) next.add(status);
    go({ status: [...next].join(",") });
  };
  const bulk = async (action) => {
    fail(null);
    const body = { action, ids: [...selected] };
    try {
      const { applied, refused } = await call("POST", "/api/v1/executions/bulk", { ...body, dry_run: true });
      if (!confirm(`${t(action)}: ${applied} (${refused.length} ✕)`)) return;
      await call("POST", "/api/v1/executions/bulk", body);
      select(new Set());
      refresh();
    } catch (error) {
      fail(error);
    }
  };
  const last = more.at(-1) ?? list.data;
  return html`<h1>${t("executions")}</h1>
    <form role="search" onSubmit=${(e) => { e.preventDefault(); go({ q: new FormData(e.target).get("q") }); }}>
      <input type="search" name="q" aria-label=${t("search")} placeholder=${t("search")} value=${filters.q ?? ""} /></form>
    <div class="chips" role="group" aria-label=${t("status")}>${ALL_STATUSES.map((status) => html`<button key=${status}
      aria-pressed=${chosen.has(status)} onClick=${() => toggle(status)}>${statusName(status)}
      <span class="count">${counts.data?.by_status[status] ?? "·"}</span></button>`)}</div>
    ${selected.size > 0 && html`<div class="bar"><span>${selected.size} ${t("selected")}</span>
      <button onClick=${() => bulk("cancel")}>${t("cancel")}</button>
      <button onClick=${() => bulk("retry")}>${t("retry")}</button></div>`}
    ${failure && html`<${Failure} error=${failure} />`}
    <${Loaded} state=${list}>${(data) => {
      const executions = [data, ...more].flatMap((page) => page.executions);
      if (executions.length === 0) return html`<${Empty} title=${t("noExecutions")} hint=${t("noExecutionsHint")} />`;
      return html`<table class="list"><thead><tr><th><span class="hidden">${t("selected")}</span></th><th>${t("status")}</th>
          <th>${t("title")}</th><th>${t("step")}</th><th>${t("age")}</th></tr></thead>
        <tbody>${executions.map((it) => html`<${Row} key=${it.id} it=${it} isSelected=${selected.has(it.id)}
          toggle=${() => { const next = new Set(selected); if (!next.delete(it.id)) next.add(it.id); select(next); }} />`)}
        </tbody></table>
        ${last?.has_more && html`<button onClick=${async () => setMore([...more, await read(last.next_cursor)])}>
          ${t("more")}</button>`}`;
    }}<//>`;
}

const Row = ({ it, isSelected, toggle }) => html`<tr data-row>
  <td><input type="checkbox" aria-label="${t("selected")}: ${it.title ?? it.id}" checked=${isSelected} onChange=${toggle} /></td>
  <td><${Status} status=${it.status} /></td>
  <td><a href="#/executions/${it.id}">${it.title ?? it.id}</a>${it.reason && html`<span class="hint">${it.reason}</span>`}</td>
  <td>${it.current_step?.label ?? "–"}</td>
  <td title=${when(it.created_at)}>${ago(it.created_at)}</td></tr>`;
