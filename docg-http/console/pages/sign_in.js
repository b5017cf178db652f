import { get, session } from "../api.js";
import { html, useState } from "../html.js";
import { t } from "../texts.js";

export function SignIn({ done }) {
  const [error, fail] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    session.begin(given.get("token").trim(), given.get("organization").trim());
    try {
      await get("/api/v1/executions?limit=1");
      done();
    } catch (failed) {
      session.end();
      fail(failed.status === 401 ? t("wrongToken") : failed.message);
      event.target.elements.token.focus();
    }
  };
  return html`<main class="sign-in"><form class="card" onSubmit=${submit}>
    <h1><img src="console/icon.svg" alt="" width="36" height="36" /> docg</h1>
    ${error && html`<p class="notice bad" role="alert" id="why">${error}</p>`}
    <div class="field"><label for="token">${t("token")}</label><input id="token" name="token" type="password" required
      autocomplete="current-password" aria-invalid=${error ? "true" : undefined} aria-describedby=${error ? "why" : undefined} /></div>
    <div class="field"><label for="organization">${t("organization")}</label><input id="organization" name="organization" /></div>
    <button class="main">${t("signIn")}</button><p class="hint">${t("tokenHint")}</p></form></main>`;
}
