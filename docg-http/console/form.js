// A form made from a JSON Schema: objects, lists, texts, numbers, dates, choices and switches.
import { html } from "./html.js";
import { t } from "./texts.js";

export const nameOf = (schema, key) => schema?.title ?? key.replaceAll("_", " ");
const kindOf = (schema) => {
  const kind = Array.isArray(schema?.type) ? schema.type.find((it) => it !== "null") : schema?.type;
  return kind ?? (schema?.properties ? "object" : "any");
};

export function blank(given, root = given, depth = 0) {
  const schema = depth > DEEPEST ? {} : resolved(given, root);
  if (schema?.default !== undefined) return schema.default;
  switch (kindOf(schema)) {
    case "object": {
      const needed = (schema.required ?? []).map((key) => [key, blank(schema.properties?.[key], root, depth + 1)]);
      return Object.fromEntries(needed.filter(([, value]) => value !== undefined));
    }
    case "array": return Array.from({ length: schema.minItems ?? 0 }, () => blank(schema.items, root, depth + 1));
    default: return undefined;
  }
}

// Follows a reference within the schema, which may lead to another one.
function resolved(schema, root) {
  let at = schema ?? {};
  for (let hops = 0; at.$ref?.startsWith("#/") && hops < 8; hops += 1) {
    const { $ref, ...own } = at;
    const parts = $ref.slice(2).split("/").map((it) => it.replaceAll("~1", "/").replaceAll("~0", "~"));
    at = { ...parts.reduce((inner, part) => inner?.[part], root), ...own };
  }
  return at;
}

// The levels of a schema that get fields of their own. A schema that contains itself has no end.
const DEEPEST = 6;

export function Field({ schema: given, root = given, name, value, change, id, needed, depth = 0 }) {
  const schema = depth > DEEPEST ? {} : resolved(given, root);
  const kind = kindOf(schema);
  if (kind === "object" && schema.properties) {
    const set = (key) => (inner) => {
      const next = { ...value };
      if (inner === undefined) delete next[key]; else next[key] = inner;
      change(next);
    };
    return html`<fieldset>${name && html`<legend>${name}</legend>`}
      ${Object.entries(schema.properties).map(([key, inner]) => html`<${Field} key=${key} schema=${inner} root=${root}
        depth=${depth + 1} name=${nameOf(resolved(inner, root), key)} value=${value?.[key]} change=${set(key)} id="${id}-${key}"
        needed=${schema.required?.includes(key)} />`)}</fieldset>`;
  }
  if (kind === "array" && schema.items) {
    const items = Array.isArray(value) ? value : [];
    const set = (at) => (inner) => change(items.map((old, index) => (index === at ? inner : old)));
    return html`<fieldset><legend>${name}</legend>
      ${items.map((item, at) => html`<div class="item" key=${at}>
        <${Field} schema=${schema.items} root=${root} depth=${depth + 1} name="${name} ${at + 1}" value=${item} change=${set(at)} id="${id}-${at}" />
        <button type="button" class="plain" onClick=${() => change(items.filter((_, index) => index !== at))}>
          ${t("remove")}</button></div>`)}
      <button type="button" class="plain" onClick=${() => change([...items, blank(schema.items, root) ?? null])}>
        ${t("add")}</button></fieldset>`;
  }
  const text = value === undefined || value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  const label = html`<label for=${id}>${name}${needed && html` <span class="needed">${t("required")}</span>`}
    ${schema.description && html`<span class="hint">${schema.description}</span>`}</label>`;
  if (schema.enum) {
    return html`<div class="field">${label}<select id=${id} value=${text}
      onChange=${(e) => change(schema.enum.find((it) => String(it) === e.target.value))}>
      <option value=""></option>${schema.enum.map((it) => html`<option value=${String(it)}>${String(it)}</option>`)}
      </select></div>`;
  }
  if (kind === "boolean") {
    return html`<div class="field switch"><input id=${id} type="checkbox" checked=${value === true}
      onChange=${(e) => change(e.target.checked)} />${label}</div>`;
  }
  if (kind === "number" || kind === "integer") {
    // Text stays text until it is a number whose digits survive.
    const read = (given) => (given === "" ? undefined : String(Number(given)) === given ? Number(given) : given);
    return html`<div class="field">${label}<input id=${id} inputmode="decimal" value=${text}
      onInput=${(e) => change(read(e.target.value))} /></div>`;
  }
  if (kind === "any") {
    const read = (given) => { try { return JSON.parse(given); } catch { return given; } };
    return html`<div class="field">${label}<textarea id=${id} rows="3" value=${text}
      onInput=${(e) => change(e.target.value === "" ? undefined : read(e.target.value))}></textarea></div>`;
  }
  const type = { date: "date", email: "email" }[schema.format] ?? "text";
  const set = (e) => change(e.target.value === "" ? undefined : e.target.value);
  return (schema.maxLength ?? 0) > 500
    ? html`<div class="field">${label}<textarea id=${id} rows="4" value=${text} onInput=${set}></textarea></div>`
    : html`<div class="field">${label}<input id=${id} type=${type} value=${text} onInput=${set} /></div>`;
}

// Sets the value at a JSON Pointer (RFC 6901) in a copy of a document.
export function put(document, pointer, value) {
  const copy = structuredClone(document);
  const parts = pointer.split("/").slice(1).map((it) => it.replaceAll("~1", "/").replaceAll("~0", "~"));
  let at = copy;
  for (const part of parts.slice(0, -1)) at = at[part] ??= {};
  at[parts.at(-1)] = value;
  return copy;
}
