import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureKeys, trustedKeys } from '../../functions/lib/lifecycle/keys.ts';
import type { Tool } from '../../functions/lib/mcp/tool.ts';
import { readMigrations } from '../../functions/lib/migrations/migration-file.ts';
import { readRelease } from '../../functions/lib/migrations/release.ts';
import { readMcpSettings } from '../../functions/lib/settings.ts';
import { scopesOf } from '../environment.ts';
import { functions } from '../functions.ts';
import { checkTools } from '../tools.ts';
import {
  available,
  contextKeySecret,
  createPlane,
  ensureInstance,
  prepareDedicated,
  prepareShared,
  region,
  secretsOf,
  signingKeySecret,
} from './control-plane.ts';
import { apiKeys, demoTenants, prepareTenant, seedTenants } from './demo/tenants.ts';
import { machineSubstitutions } from './emulator/lambda-invoke.ts';
import { startAwsEmulator } from './emulator/server.ts';
import { functionVariables, startFunctions, watchFunctions } from './functions.ts';
import { startAdminGateway, writeAdminFile } from './gateway/admin.ts';
import { startGateway } from './gateway/gateway.ts';
import type { LambdaHost } from './lambda/host.ts';
import { Refused } from './refused.ts';
import { createHealthTeller, startSchedules } from './schedule.ts';
import type { LocalSettings } from './settings.ts';
import { clusterIdOf, openCloudState, postgresFolder } from './state.ts';
import { loadMachines } from './state-machines/definition.ts';

export interface Cloud {
  readonly publicUrl: string;
  /** API keys by the demo tenants' slugs. */
  readonly tokens: ReadonlyMap<string, string>;
}

/** Takes what has to be undone at the end, however far the start came; the last is undone first. */
export type OnClose = (close: () => Promise<void> | void) => void;

/** The whole product on this machine. */
export async function startCloud(
  settings: LocalSettings,
  root: string,
  tools: readonly Tool[],
  onClose: OnClose,
  progress: (step: string) => void,
): Promise<Cloud> {
  const { folder, port, clockFactor } = settings;
  const publicUrl = `http://127.0.0.1:${port}/mcp`;
  try {
    checkTools(tools);
  } catch (error) {
    throw new Refused((error as Error).message);
  }
  const scopes = scopesOf(tools);
  if (scopes.length === 0)
    throw new Refused(
      'functions/mcp/tools/index.ts names no tool with a scope, and keys are for scopes: name one there (README.md, "A tool").',
    );
  // Homes would refuse these files too, once the servers run.
  await readMigrations(pathToFileURL(join(root, 'migrations/tenant/')));
  const state = await openCloudState(folder);
  const isFirst = state.value.seeded.length === 0;

  const accessKeyId = randomUUID();
  let lambda: LambdaHost | undefined;
  const machines = await loadMachines(join(root, 'stepfunctions'), machineSubstitutions(functions, region));
  const emulator = await startAwsEmulator({
    stateFile: join(folder, 'aws.json'),
    accessKeyId,
    rds: { postgresBase: postgresFolder(folder) },
    s3: { folder: join(folder, 's3'), buckets: ['tenantry-exports'] },
    functions: { rows: functions, host: () => lambda },
    stateMachines: { machines, region, clockFactor },
  });
  onClose(emulator.close);
  const executions = emulator.executions!;
  progress(isFirst ? 'Making two PostgreSQL servers' : 'Starting two PostgreSQL servers');
  const shared = await ensureInstance(emulator, 'tenantry-shared');
  const dedicated = await ensureInstance(emulator, 'tenantry-initech');
  const secrets = secretsOf(emulator.secrets);
  const { context, signing } = await ensureKeys(secrets, { contextKeySecret, signingKeySecret });

  // Functions load while PostgreSQL starts: all that they need of it is its address.
  const issuerUrl = `http://127.0.0.1:${state.value.issuerPort}`;
  const variables = functionVariables({
    publicUrl,
    catalogPort: shared.port,
    catalogClusterId: clusterIdOf(state, shared.identifier),
    machineArn: (name) => executions.machineArn(name),
    exportUrl: pathToFileURL(join(folder, 'exports')).href,
    awsUrl: emulator.url,
    accessKeyId,
    issuerUrl,
    extensions: settings.extensions,
    clockFactor,
    allowedOrigins: settings.allowedOrigins,
    apiKeyJwks: { keys: trustedKeys(signing) },
    tools,
  });
  const host = startFunctions(root, folder, variables);
  lambda = host;
  onClose(() => host.close());
  onClose(() => executions.close());
  const loaded = Promise.all([host.warm(), import('./issuer.ts')]);
  await Promise.all([available(emulator, shared), available(emulator, dedicated)]);

  progress('Installing catalog, runtime and tenant migrations');
  const plane = createPlane(state, secrets, context, shared, settings.extensions);
  const dedicatedId = clusterIdOf(state, dedicated.identifier);
  await state.save();
  const release = await readRelease(plane);
  const sharedPlace = prepareShared(plane, emulator, shared, release);
  const [place, ownPlace] = await Promise.all([
    sharedPlace,
    prepareDedicated(plane, emulator, dedicated, dedicatedId, sharedPlace),
  ]);
  const prepared = await Promise.all(
    demoTenants.map((tenant) =>
      prepareTenant(plane, tenant, tenant.strategy === 'database' ? ownPlace : place, release),
    ),
  );
  const tenants = prepared.filter((tenant) => tenant !== undefined);
  if (isFirst) progress('Filling the demo inventories');
  await seedTenants(state, tenants, readMcpSettings(variables.mcp), secrets);
  const tokens = await apiKeys(plane, state, tenants, signing.private, scopes, publicUrl);

  progress('Opening the endpoint');
  const [, { startIssuer }] = await loaded;
  const issuer = await startIssuer({
    port: state.value.issuerPort,
    folder,
    resource: publicUrl,
    scopes,
    tenants: tenants.map(({ slug, id }) => ({ slug, claim: id })),
  });
  onClose(issuer.close);
  const { allowedOrigins } = settings;
  const facts = { publicUrl, issuers: [issuer.issuer], scopes, allowedOrigins };
  const gateway = await startGateway({ port, lambda: host, facts });
  onClose(gateway.close);
  const admin = await startAdminGateway(host, issuer.mint);
  onClose(admin.close);
  onClose(writeAdminFile(folder, publicUrl, admin));
  await executions.resume();
  const schedules = startSchedules(host, createHealthTeller(console.log));
  onClose(schedules.close);
  const watcher = watchFunctions(root, () => {
    progress('Files below functions/ or migrations/ changed: loading them');
    void host.reload();
  });
  onClose(watcher.close);
  return { publicUrl, tokens };
}
