import { setTimeout } from 'node:timers/promises';
import type { JWK } from 'jose';
import { mintApiKey, newSigningKey } from '../../../functions/lib/auth/api-key.ts';
import { challenge } from '../../../functions/lib/auth/challenge.ts';
import { createTokenVerifier } from '../../../functions/lib/auth/verify-token.ts';
import { listInstances } from '../../../functions/lib/aws/rds.ts';
import { askPublicUrl, canaryKeys } from '../../../functions/lib/health/public-url.ts';
import { type HealthRun, runCanary } from '../../../functions/lib/health/run.ts';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { parseMasterKeys } from '../../../functions/lib/isolation/context.ts';
import { type Provisioner, provisionSteps } from '../../../functions/lib/lifecycle/provision.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { createEndpoint } from '../../../functions/lib/mcp/endpoint.ts';
import type { TenantId } from '../../../functions/lib/tenant/tenant.ts';
import { limits, type World } from '../../support/world.ts';
import { probe } from '../lifecycle/probe.support.ts';

const contextKeySecret = 'tenancy/context-key';
export const signingKeySecret = 'tenancy/api-key-signing';
export const canaryKeysSecret = 'tenancy/canary-keys';

/** The public URL without its network: authorizer and endpoint as they are behind API Gateway. */
function publicUrlOf(world: World, apiKeyJwks: { keys: JWK[] }): typeof fetch {
  const { publicUrl } = world.settings;
  const verify = createTokenVerifier({
    issuers: [],
    apiKeyJwks,
    apiKeyIssuer: publicUrl,
    audience: publicUrl,
  });
  const access = world.access();
  const endpoint = createEndpoint({
    tools: [],
    info: { name: 'test', title: 'Test', version: '1' },
    publicUrl,
    allowedOrigins: [],
    async admit(principal) {
      const route = await access.resolve(principal);
      const { tenant: id, slug, strategy, epoch, schemaVersion } = route;
      return {
        ...{ id, slug, strategy, epoch, schemaVersion },
        open: async (_tool, asked) => ({
          db: access.database(principal, route, limits(asked.mode, asked)),
          cursor: undefined as never,
        }),
      };
    },
    log: () => {},
  });
  return async (address, init) => {
    const request = new Request(address, init);
    const token = /^Bearer (.+)$/.exec(request.headers.get('authorization') ?? '')?.[1];
    const principal = await verify(token ?? '').catch(() => undefined);
    if (principal) return endpoint(request, principal, Date.now() + 10_000);
    return new Response('{}', { status: 401, headers: { 'www-authenticate': challenge(publicUrl, []) } });
  };
}

type SigningKey = Awaited<ReturnType<typeof newSigningKey>>;

/** What the canary works with in a world; the probe is the tool itself, the state machine its steps one after the other. */
function watchOf(world: World, isRds = false, outside?: { signing: SigningKey; send: typeof fetch }): Watch {
  const { secrets } = world;
  // As the canary's function has it: what a setting is now, only a new session says.
  const plane = { ...world.plane, kept: undefined };
  const { publicUrl: url } = world.settings;
  const access = world.access();
  const probeTenant = (tenant: TenantId) => probe(access, tenant);
  const unused = () => Promise.reject(new Error('A canary has no instance.'));
  const instances = { create: unused, ready: unused, remove: unused, status: unused };
  const provisioner: Provisioner = {
    plane,
    instances,
    region: 'eu-west-1',
    release: world.release,
    probe: probeTenant,
  };
  return {
    plane,
    secrets,
    keySecrets: { contextKeySecret, signingKeySecret },
    readKeys: async () => parseMasterKeys(await secrets.read(contextKeySecret, true)),
    readSigningKeys: () => secrets.find(signingKeySecret),
    instances: isRds ? listInstances : async () => [],
    probe: probeTenant,
    publicKeys: {
      url,
      read: () => secrets.find(canaryKeysSecret),
      write: (text) => secrets.write(canaryKeysSecret, text),
      mint: (claims) => mintApiKey(outside!.signing.privateKey, { ...claims, issuer: url, audience: url }),
    },
    askPublicUrl: async () =>
      askPublicUrl(
        url,
        canaryKeys.parse(JSON.parse((await secrets.find(canaryKeysSecret)) ?? '[]')),
        outside?.send,
      ),
    async provision(operation) {
      for (const step of ['reserve', 'createHome', 'migrate', 'verify', 'activate'])
        await runStep(provisioner, { operation, step, input: {} }, ['provision'], provisionSteps);
    },
  };
}

/** What a run finds on a machine that is too busy for it. */
export const slowness = /timeout expired|no answer within/;

/** On a machine that is too busy for a handshake, or for the last run to end, again: that is not what is tried here. */
export async function runOnce(watch: Watch, attempt = 1): Promise<HealthRun> {
  const run = await runCanary(watch);
  const isBusy = !run || told(run).some((line) => slowness.test(line));
  if (!isBusy) return run;
  if (attempt === 5)
    throw new Error(`No run was finished: ${run ? told(run) : 'another one was under way.'}`);
  await setTimeout(1_000);
  return runOnce(watch, attempt + 1);
}

/** Makes the canaries, which the first run only asks for, and sees them once. */
export async function startWatching(world: World, isRds = false): Promise<Watch> {
  return (await startWatchingUrl(world, isRds)).watch;
}

/** The same, and with what the public URL is called. */
export async function startWatchingUrl(world: World, isRds = false, known?: SigningKey) {
  const signing = known ?? (await newSigningKey());
  const pair = { private: signing.privateKey, public: signing.publicKey };
  await world.secrets.write(signingKeySecret, JSON.stringify(pair));
  const send = publicUrlOf(world, { keys: [signing.publicKey] });
  const watch = watchOf(world, isRds, { signing, send });
  await runOnce(watch);
  // And their API keys.
  await runOnce(watch);
  return { watch, send, signing };
}

/** Short enough to read in a failed assertion. */
export const told = ({ report }: HealthRun) =>
  report.findings.map(({ check, object, finding }) => `${check}: ${object} ${finding}`);
