import { createSecrets } from '../lib/aws/secrets.ts';
import { askPublicUrl, canaryKeys, type PublicAnswer } from '../lib/health/public-url.ts';
import { readEndpointCanarySettings } from '../lib/settings.ts';

const { publicUrl, canaryKeysSecret } = readEndpointCanarySettings();
const secrets = createSecrets();

/** The endpoint as agents see it, for the canary, which can't leave its subnets. */
export async function handler(): Promise<PublicAnswer> {
  return askPublicUrl(
    publicUrl,
    canaryKeys.parse(JSON.parse((await secrets.find(canaryKeysSecret)) ?? '[]')),
  );
}
