import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { tools } from '../../functions/mcp/tools/index.ts';
import { scopesOf } from '../../infra/environment.ts';
import { type FunctionName, functions } from '../../infra/functions.ts';
import { startAwsEmulator } from '../../infra/local/emulator/server.ts';
import { startGateway } from '../../infra/local/gateway/gateway.ts';
import type { OnChunk } from '../../infra/local/lambda/environment.ts';
import type { LambdaHost } from '../../infra/local/lambda/host.ts';
import { loadMachine } from '../../infra/local/state-machines/definition.ts';
import { machineFiles } from '../../infra/machines.ts';
import { Assembly, type Resource } from '../infra/assembly.ts';
import { allowedResources, type Context, isAllowed, like, statementsOf } from '../infra/iam.ts';
import { synthesize } from '../infra/synthesize.ts';
import { testBase } from '../support/cluster.ts';
import { type Call, startGate } from './iam-gate.ts';
import { Runtime } from './runtime.ts';
import { admitAsRds, startServer } from './server.ts';

export type Deployment = Awaited<ReturnType<typeof deploy>>;

const account = '111122223333';
/** By the API's id below. */
const publicUrl = 'https://abc123.execute-api.eu-west-1.amazonaws.com/live/mcp';
const idOf = (name: string) => name.replaceAll('-', '');

/**
 * What the templates say, on this machine: the assets as they would be uploaded, each function with the environment,
 * the handler and the rights that its template gives it. Hosts and ports are this machine's; nothing else is changed.
 */
export async function deploy(settings: Record<string, unknown> = {}) {
  const built = synthesize(settings, tools);
  const bare = new Assembly(built);
  const only = (type: string, name = /./) => bare.only(type, name);
  const functionOf = (name: string) =>
    only('AWS::Lambda::Function', new RegExp(`^${idOf(name)}Function`, 'i'));
  const roleOf = (name: string) => only('AWS::IAM::Role', new RegExp(`^${idOf(name)}Role[0-9A-F]{8}$`, 'i'));
  const machineOf = (name: string) =>
    only('AWS::StepFunctions::StateMachine', new RegExp(`^${idOf(name)}machine`));
  const at = ({ stack, id }: Resource, attribute?: string) =>
    attribute === undefined ? `${stack}.${id}` : `${stack}.${id}.${attribute}`;

  const cluster = only('AWS::RDS::DBCluster');
  const server = await startServer(cluster.properties.MasterUsername);
  const exports = mkdtempSync(join(tmpdir(), 'tenantry-exports-'));
  const runtimes = new Map<string, Runtime>();
  const host = {
    invoke: async (name: string, event: unknown) => JSON.parse(await runtimes.get(name)!.invoke(event)),
    stream: async (name: string, event: unknown, onChunk: OnChunk) => {
      await runtimes.get(name)!.invoke(event, onChunk);
    },
  };
  // Where the public name leads to on this machine.
  const facts = { publicUrl, issuers: [], scopes: scopesOf(tools), allowedOrigins: [] };
  const lambda = host as unknown as LambdaHost;
  let gateway = await startGateway({ port: 0, lambda, facts });
  const functionArn = (name: string) => `arn:aws:lambda:eu-west-1:${account}:function:tenantry-${name}`;
  const machineArn = (name: string) => `arn:aws:states:eu-west-1:${account}:stateMachine:${name}`;

  const known: Record<string, string> = {
    [at(cluster, 'Endpoint.Address')]: '127.0.0.1',
    [at(cluster, 'DBClusterResourceId')]: 'cluster-SHARED',
    [at(only('AWS::RDS::DBProxy'), 'Endpoint')]: '127.0.0.1',
    [at(only('AWS::RDS::DBProxy'), 'DBProxyArn')]: `arn:aws:rds:eu-west-1:${account}:db-proxy:prx-SHARED`,
  };
  known[at(only('AWS::ApiGateway::RestApi', /^McpApi/))] = 'abc123';
  for (const bucket of bare.of('AWS::S3::Bucket')) {
    known[at(bucket)] = bucket.id.toLowerCase();
    known[at(bucket, 'Arn')] = `arn:aws:s3:::${bucket.id.toLowerCase()}`;
  }
  for (const { name } of functions) {
    known[at(functionOf(name))] = `tenantry-${name}`;
    known[at(functionOf(name), 'Arn')] = functionArn(name);
  }
  for (const { name } of machineFiles) known[at(machineOf(name))] = machineArn(name);

  const withMachines = new Assembly(built, known);
  const machines = new Map(
    machineFiles.map(({ name }) => {
      const { properties } = withMachines.only(
        'AWS::StepFunctions::StateMachine',
        new RegExp(`^${idOf(name)}machine`),
      );
      const asset = join(built.app.outdir, `asset.${properties.DefinitionS3Location.Key}`);
      const text = readFileSync(asset, 'utf8');
      return [name, loadMachine(`${name}.asl.json`, text, properties.DefinitionSubstitutions)];
    }),
  );
  const emulator = await startAwsEmulator({
    rds: {
      postgresBase: testBase(),
      parameters: server.parameters,
      // Before anybody logs in: as RDS lets logins in.
      onStatus: (identifier, status) =>
        status === 'creating' ? admitAsRds(join(testBase(), 'clusters', identifier)) : undefined,
    },
    s3: { folder: exports, buckets: bare.of('AWS::S3::Bucket').map(({ id }) => id.toLowerCase()) },
    functions: { rows: functions, host: () => host },
    stateMachines: { machines, region: 'eu-west-1', clockFactor: 0.01 },
  });
  // What CloudFormation and RDS have made before any function runs.
  const region = 'eu-west-1';
  const master = await emulator.secrets.create({
    name: 'rds!cluster-shared',
    owner: 'rds',
    region,
    SecretString: JSON.stringify({
      username: cluster.properties.MasterUsername,
      password: server.masterPassword,
    }),
  });
  known[at(cluster, 'MasterUserSecret.SecretArn')] = master.secret.arn;
  for (const key of bare.of('AWS::SecretsManager::Secret')) {
    const name = key.properties.Name as string;
    const { secret } = await emulator.secrets.create({ name, region });
    known[at(key)] = secret.arn;
  }

  let assembly = new Assembly(built, known);
  const refused: Call[] = [];
  /** What IAM knows of an instance, or of the secret that RDS keeps for it. */
  const marksOf = ({ target }: Call): Context => {
    const instance = emulator
      .instances!.all()
      .find(({ arn, secretArn }) => [arn, secretArn].includes(target));
    if (instance === undefined) return {};
    const marks = instance.tags.map(({ Key, Value }) => [`aws:ResourceTag/${Key}`, Value]);
    return { ...Object.fromEntries(marks), 'aws:ResourceTag/aws:rds:primaryDBInstanceArn': instance.arn };
  };
  const gate = await startGate(emulator.url, (call) => {
    const isFine = isAllowed(
      statementsOf(assembly, roleOf(call.caller)),
      call.action,
      emulator.secrets.find(call.target)?.arn ?? resourceOf(call),
      { ...call.context, ...marksOf(call) },
    );
    if (!isFine) refused.push(call);
    return isFine;
  });

  const add = (name: FunctionName) => {
    const { properties } = assembly.only('AWS::Lambda::Function', new RegExp(`^${idOf(name)}Function`, 'i'));
    const asset = basename(properties.Code.S3Key, '.zip');
    const folder = join(built.app.outdir, `asset.${asset}`);
    if (!existsSync(folder)) throw new Error(`${name} has no asset`);
    const environment: Record<string, string> = { ...properties.Environment.Variables };
    for (const port of ['CATALOG_PORT', 'PROXY_PORT'])
      if (environment.CATALOG_HOST) environment[port] = String(server.port);
    if (environment.NODE_EXTRA_CA_CERTS) environment.NODE_EXTRA_CA_CERTS = server.authorityFile;
    if (name === 'endpoint-canary') environment.PUBLIC_URL = `http://127.0.0.1:${gateway.port}/mcp`;
    const aws = {
      AWS_REGION: region,
      AWS_ENDPOINT_URL: gate.url,
      AWS_ACCESS_KEY_ID: name,
      AWS_SECRET_ACCESS_KEY: 'not-checked',
    };
    runtimes.get(name)?.close();
    runtimes.set(
      name,
      new Runtime({
        name: `tenantry-${name}`,
        folder,
        handler: properties.Handler,
        environment: { ...environment, ...aws },
        timeoutSeconds: properties.Timeout,
      }),
    );
  };

  /** As CloudFormation runs it: the others come up only when it has answered. */
  async function install(type: 'Create' | 'Update') {
    add('install');
    const named = type === 'Create' ? {} : { PhysicalResourceId: 'tenantry' };
    const answer = (await host.invoke('install', {
      RequestType: type,
      ...named,
      ResourceProperties: {},
    })) as {
      Data: Record<string, string>;
    };
    const resource = bare.only('Custom::TenantryInstallation', /./);
    for (const [name, value] of Object.entries(answer.Data)) known[at(resource, name)] = value;
    assembly = new Assembly(built, known);
    for (const { name } of functions) if (name !== 'install') add(name);
    return answer;
  }

  /** The next release, with one more migration of the adopting team's: in every bundle that has migrations. */
  function release(name: string, sql: string): void {
    for (const { name: of } of functions) {
      const { folder } = runtimes.get(of)!;
      if (!existsSync(join(folder, 'migrations'))) continue;
      writeFileSync(join(folder, 'migrations/tenant', name), sql);
      add(of);
    }
  }

  return {
    release,
    exports,
    server,
    emulator,
    gate,
    refused,
    host,
    runtimes,
    install,
    publicUrl,
    publicPort: gateway.port,
    /** All that a function's role lets it be on the shared cluster, past the proxy or through it, and a database that lets them in. */
    async loginsOf(name: string): Promise<{ login: string; database: string }[]> {
      const patterns = allowedResources(statementsOf(assembly, roleOf(name)), 'rds-db:connect')
        .map((resource) => /:dbuser:(?:cluster|prx)-SHARED\/(.+)$/.exec(resource)?.[1])
        .filter((pattern) => pattern !== undefined);
      const known = await server.ask(
        'postgres',
        `select rolname::text as login, min(datname)::text as database from pg_roles, pg_database
          where rolcanlogin and datallowconn and has_database_privilege(rolname, datname, 'connect') group by 1`,
      );
      // What a policy names and nobody is would be a login that no test has seen.
      for (const pattern of patterns)
        if (!known.some(({ login }) => like(pattern, login as string)))
          throw new Error(`${name} may be ${pattern}, and there is none.`);
      return known.filter(({ login }) => patterns.some((pattern) => like(pattern, login as string))) as never;
    },
    /** As when a name or a certificate has run out, and back. */
    async closePublicUrl() {
      await gateway.close();
      return async () => {
        gateway = await startGateway({ port: gateway.port, lambda, facts });
      };
    },
    get assembly() {
      return assembly;
    },
    async close() {
      await gateway.close();
      for (const runtime of runtimes.values()) runtime.close();
      gate.close();
      await emulator.close();
      await server.close();
      rmSync(exports, { recursive: true, force: true });
    },
  };
}

function resourceOf({ action, target }: Call): string {
  if (target.startsWith('arn:')) return target;
  if (action.startsWith('secretsmanager:'))
    return `arn:aws:secretsmanager:eu-west-1:${account}:secret:${target}-AbCdEf`;
  return `arn:aws:lambda:eu-west-1:${account}:function:${target}`;
}
