import { createLocalJWKSet, type FetchImplementation } from 'jose';

/** A key set has some kilobytes. */
const mostBytes = 256 * 1024;
/** After a failure nobody asks again for so long, ms. */
const restMs = 2_000;

/**
 * Fetches one issuer's key set, whole and within bounds. One that fails is left alone for a moment: every token that names
 * the issuer, a stranger's too, would otherwise ask it again, and wait as long as it hangs.
 */
export function keyFetch(): FetchImplementation {
  let failed: { readonly error: unknown; readonly until: number } | undefined;
  return async (url, options) => {
    if (failed !== undefined && Date.now() < failed.until) throw failed.error;
    try {
      const response = await fetch(url, options);
      if (response.status !== 200)
        throw new Error(`The issuer answered ${response.status} in place of its keys.`);
      const text = await bounded(response);
      // Judged here: what is no key set is as good as none.
      createLocalJWKSet(JSON.parse(text));
      failed = undefined;
      return new Response(text);
    } catch (error) {
      failed = { error, until: Date.now() + restMs };
      throw error;
    }
  };
}

async function bounded({ body }: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > mostBytes) throw new Error(`The issuer's keys are larger than ${mostBytes} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
