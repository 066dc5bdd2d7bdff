export interface LoginPage {
  uid: string;
  /** As the client registered itself: anybody's text. */
  clientName: string;
  redirect: string;
  scopes: string;
  accounts: readonly { slug: string; account: string }[];
}

export function loginPage({ uid, clientName, redirect, scopes, accounts }: LoginPage): string {
  const buttons = accounts.map(
    ({ slug, account }) => html`<button name="account" value="${account}"><b>${slug}</b> ${account}</button>`,
  );
  return page(
    'Log in',
    html`<p><b>${clientName}</b> asks for access and will be answered at <code>${redirect}</code>.</p>
      <p>${scopes === '' ? 'It asks for no scopes.' : `It asks for: ${scopes}`}</p>
      <form method="post" action="/interaction/${uid}">`.concat(...buttons, '</form>'),
  );
}

export function errorPage(error: string, description: string | undefined): string {
  return page('This did not work', html`<p><code>${error}</code></p><p>${description ?? ''}</p>`);
}

function page(title: string, body: string): string {
  return html`<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${title} · Tenantry, local</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 30rem; margin: 10vh auto; padding: 0 1rem; }
  button { display: block; width: 100%; margin: .5rem 0; padding: .8rem; font: inherit; text-align: left; cursor: pointer; }
</style>
<h1>${title}</h1>
<p>The local cloud’s stand-in for an identity provider: no password, demo data only.</p>
`.concat(body);
}

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Every `${…}` is text, never markup. */
function html(strings: TemplateStringsArray, ...values: string[]): string {
  return String.raw(
    { raw: strings },
    ...values.map((value) => value.replace(/[&<>"']/g, (character) => entities[character]!)),
  );
}
