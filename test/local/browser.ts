/** A person with a browser: follows redirects, keeps cookies, presses the button of one account. */
export class Browser {
  readonly #cookies = new Map<string, string>();

  /** Returns where the issuer finally sends the browser back to, without going there. */
  async logIn(authorizationUrl: URL, account: string, redirectUrl: string): Promise<URL> {
    let url = authorizationUrl;
    let form: { action: string; fields: Record<string, string> } | undefined;
    for (let steps = 0; steps < 12; steps++) {
      if (url.href.startsWith(redirectUrl)) return url;
      const response = await this.#go(url, form?.fields);
      form = undefined;
      const location = response.headers.get('location');
      if (location) {
        url = new URL(location, url);
        continue;
      }
      const html = await response.text();
      const action = /<form[^>]* action="([^"]+)"/.exec(html)?.[1];
      if (!response.ok || !action)
        throw new Error(`The issuer answered ${response.status} at ${url}: ${html}`);
      form = { action, fields: fieldsOf(html, account) };
      url = new URL(action, url);
    }
    throw new Error('The login went round in circles.');
  }

  async open(url: URL): Promise<Response> {
    let response = await this.#go(url);
    for (
      let location = response.headers.get('location');
      location;
      location = response.headers.get('location')
    ) {
      response = await this.#go(new URL(location, url));
    }
    return response;
  }

  async #go(url: URL, fields?: Record<string, string>): Promise<Response> {
    const response = await fetch(url, {
      redirect: 'manual',
      headers: { cookie: [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      ...(fields && { method: 'POST', body: new URLSearchParams(fields) }),
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [name, value] = cookie.split(';')[0]!.split('=') as [string, string];
      this.#cookies.set(name, value);
    }
    return response;
  }
}

/** The hidden fields of a form that sends itself, or the account whose button is pressed. */
function fieldsOf(html: string, account: string): Record<string, string> {
  if (html.includes(`name="account" value="${account}"`)) return { account };
  const hidden = [...html.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)"/g)];
  return Object.fromEntries(hidden.map(([, name, value]) => [name!, value!]));
}
