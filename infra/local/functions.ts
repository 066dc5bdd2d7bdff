import { createWriteStream, mkdirSync, readdirSync, type WriteStream, watch } from 'node:fs';
import { join } from 'node:path';
import type { JWK } from 'jose';
import type { Tool } from '../../functions/lib/mcp/tool.ts';
import { machineVariable, scopesOf, toolsByScopes } from '../environment.ts';
import { type FunctionName, functions } from '../functions.ts';
import { machineFiles } from '../machines.ts';
import { canaryKeysSecret, contextKeySecret, region, signingKeySecret } from './control-plane.ts';
import { LambdaHost } from './lambda/host.ts';

export interface FunctionFacts {
  publicUrl: string;
  catalogPort: number;
  catalogClusterId: string;
  /** By the name of its file. */
  machineArn: (name: string) => string;
  /** Where offboarded tenants' rows are kept. */
  exportUrl: string;
  /** The emulator's address, and the access key that it wants. */
  awsUrl: string;
  accessKeyId: string;
  issuerUrl: string;
  extensions: readonly string[];
  clockFactor: number;
  allowedOrigins: readonly string[];
  apiKeyJwks: { keys: JWK[] };
  tools: readonly Tool[];
}

/** Each function's environment variables: what the stack sets on AWS, with this machine's addresses. */
export function functionVariables(
  facts: FunctionFacts,
): Record<Exclude<FunctionName, 'install'>, Record<string, string>> {
  const { publicUrl, issuerUrl, tools } = facts;
  const data = {
    CATALOG_HOST: '127.0.0.1',
    CATALOG_PORT: String(facts.catalogPort),
    CREDENTIALS: 'secret',
    CONTEXT_KEY_SECRET: contextKeySecret,
    DATABASE_TLS: 'off',
    AWS_REGION: region,
    AWS_ENDPOINT_URL: facts.awsUrl,
    AWS_ACCESS_KEY_ID: facts.accessKeyId,
    AWS_SECRET_ACCESS_KEY: 'not-checked',
  };
  const control = {
    ...data,
    CATALOG_CLUSTER_ID: facts.catalogClusterId,
    EXTENSIONS: facts.extensions.join(','),
    MCP_FUNCTION: 'tenantry-mcp',
  };
  return {
    mcp: { PUBLIC_URL: publicUrl, ALLOWED_ORIGINS: facts.allowedOrigins.join(','), ...data },
    authorizer: {
      PUBLIC_URL: publicUrl,
      ISSUERS: JSON.stringify([{ issuer: issuerUrl, audience: publicUrl, jwksUri: `${issuerUrl}/jwks` }]),
      API_KEY_JWKS: JSON.stringify(facts.apiKeyJwks),
      API_KEY_ISSUER: publicUrl,
      TOOLS_BY_SCOPES: JSON.stringify(toolsByScopes(tools)),
    },
    health: data,
    'health-canary': {
      ...control,
      PROVISION_MACHINE: facts.machineArn('provision-tenant'),
      SIGNING_KEY_SECRET: signingKeySecret,
      PUBLIC_URL: publicUrl,
      API_KEY_ISSUER: publicUrl,
      CANARY_KEYS_SECRET: canaryKeysSecret,
      ENDPOINT_CANARY_FUNCTION: 'tenantry-endpoint-canary',
    },
    'endpoint-canary': { ...data, PUBLIC_URL: publicUrl, CANARY_KEYS_SECRET: canaryKeysSecret },
    admin: {
      ...control,
      ...Object.fromEntries(machineFiles.map(({ name }) => [machineVariable(name), facts.machineArn(name)])),
      EXPORT_URL: facts.exportUrl,
      WAIT_FACTOR: String(facts.clockFactor),
      TRANSFER_SCHEMES: 's3,file',
      TIERS: JSON.stringify({ starter: 'rls', pro: 'schema', enterprise: 'database' }),
      PUBLIC_URL: publicUrl,
      API_KEY_ISSUER: publicUrl,
      SIGNING_KEY_SECRET: signingKeySecret,
      SCOPES: scopesOf(tools).join(','),
      ISSUERS: issuerUrl,
    },
    'migrate-tenants': control,
    'move-tenant': control,
    'batch-moves': { ...control, MOVE_MACHINE: facts.machineArn('move-tenant') },
    'transfer-tenant': control,
    'offboard-tenant': control,
    'provision-tenant': {
      ...control,
      INSTANCE: JSON.stringify({
        instanceClass: 'db.t4g.micro',
        engineVersion: '17.10',
        storageGb: 20,
        parameterGroup: 'tenantry',
        subnetGroup: 'tenantry',
        securityGroups: ['sg-tenantry'],
        certificateAuthority: 'rds-ca-rsa2048-g1',
        backupDays: 7,
      }),
    },
  };
}

/** The manifest's functions; what they write goes to `logs/<function>.log`. */
export function startFunctions(
  root: string,
  folder: string,
  variables: Readonly<Record<string, Readonly<Record<string, string>>>>,
): LambdaHost {
  return new LambdaHost({
    root,
    // The local cloud installs by itself, while its servers start.
    functions: functions.filter(({ plane }) => plane !== 'deployment'),
    variables: (name) => variables[name] ?? {},
    log: openLogs(join(folder, 'logs')),
    onInitError: (name, error) =>
      console.error(`\n${name} can't be loaded; its calls fail until this is mended:\n${ownLines(error)}\n`),
  });
}

/** Begins a file for each function; a full disk costs lines, not the cloud: the next line tries again. */
export function openLogs(folder: string): (name: string, text: string) => void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const files = new Map<string, WriteStream>();
  const open = (name: string, flags: 'w' | 'a') => {
    const file = createWriteStream(join(folder, `${name}.log`), { flags, mode: 0o600 });
    files.set(name, file);
    return file.on('error', () => files.delete(name));
  };
  for (const { name } of functions) open(name, 'w');
  return (name, text) => void (files.get(name) ?? open(name, 'a')).write(text);
}

/** Without the loader's own lines, which hide the one that says where. */
const ownLines = ({ stack = '' }: Error) =>
  stack
    .split('\n')
    .filter((line) => !line.includes('node:internal'))
    .join('\n');

/** What a function is made of: its code, and the migrations that it brings to homes. */
const watched: readonly (readonly [folder: string, extension: string])[] = [
  ['functions', '.ts'],
  ['migrations', '.sql'],
];

/**
 * Calls `changed` after code below `functions/` or a migration was edited. Each folder is watched by itself: on Linux Node
 * watches a tree file by file, and loses a file that an editor puts another one in the place of.
 */
export function watchFunctions(root: string, changed: () => void): { close(): void } {
  let timer: NodeJS.Timeout | undefined;
  let isEdited = false;
  const watchAll = () =>
    watched.flatMap(([folder, extension]) =>
      foldersIn(join(root, folder)).map((path) =>
        watch(path, (_event, name) => {
          // Without an ending it may be a folder, with files that nobody has watched yet.
          isEdited ||= name === null || name.endsWith(extension) || !name.includes('.');
          lookSoon();
        }),
      ),
    );
  const lookSoon = () => {
    // An editor writes a file in several steps, a checkout many files.
    clearTimeout(timer);
    timer = setTimeout(look, 150);
  };
  const look = () => {
    if (!isEdited) return;
    const old = watchers;
    try {
      watchers = watchAll();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return lookSoon(); // A folder went away meanwhile.
    }
    for (const watcher of old) watcher.close();
    isEdited = false;
    changed();
  };
  let watchers = watchAll();
  return {
    close() {
      clearTimeout(timer);
      for (const watcher of watchers) watcher.close();
    },
  };
}

const foldersIn = (folder: string): string[] => [
  folder,
  ...readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name)),
];
