import { randomBytes } from 'node:crypto';
import type { JWK } from 'jose';
import { newSigningKey } from '../auth/api-key.ts';
import type { Secrets } from '../aws/secrets.ts';

/** Names or ARNs of the two secrets that everything else hangs on. */
export interface KeySecrets {
  readonly contextKeySecret: string;
  readonly signingKeySecret: string;
}

/**
 * The key that contexts are signed with and the pair that API keys are signed with: made once, kept ever after. Two
 * installers at once are kept apart by whoever calls: a deployment runs one.
 */
export async function ensureKeys(
  secrets: Secrets,
  { contextKeySecret, signingKeySecret }: KeySecrets,
): Promise<{ context: string; signing: { private: JWK; public: JWK } }> {
  const ensure = async (name: string, make: () => Promise<string> | string) => {
    const known = await secrets.find(name);
    if (known !== undefined) return known;
    const value = await make();
    await secrets.write(name, value);
    return value;
  };
  const context = await ensure(contextKeySecret, () =>
    JSON.stringify({ current: 'k1', keys: { k1: randomBytes(32).toString('base64') } }),
  );
  const signing = await ensure(signingKeySecret, async () => {
    const { privateKey, publicKey } = await newSigningKey();
    return JSON.stringify({ private: privateKey, public: publicKey });
  });
  return { context, signing: JSON.parse(signing) };
}
