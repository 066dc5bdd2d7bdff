import { beforeAll, describe, expect, it } from 'vitest';
import { instanceName } from '../../functions/lib/aws/rds.ts';
import { finalSnapshotName } from '../../functions/lib/lifecycle/leaving-homes.ts';
import { type FunctionName, functions } from '../../infra/functions.ts';
import { machineFiles } from '../../infra/machines.ts';
import { Assembly } from './assembly.ts';
import { type Context, isAllowed, statementsOf } from './iam.ts';
import { synthesize } from './synthesize.ts';

let assembly: Assembly;
/** The ids that only a deployment knows. */
let ids: Record<'cluster' | 'proxy' | 'mcp' | 'endpointCanary' | 'parameters' | 'subnets', string>;
let keys: Record<'context' | 'signing' | 'canaries' | 'master', string>;

beforeAll(() => {
  assembly = new Assembly(synthesize());
  const id = (type: string, name = /./) => assembly.only(type, name).id;
  const cluster = id('AWS::RDS::DBCluster');
  ids = {
    cluster: `<${cluster}.DBClusterResourceId>`,
    proxy: `<${id('AWS::RDS::DBProxy')}.DBProxyArn>`,
    mcp: `<${id('AWS::Lambda::Function', /^mcpFunction/)}.Arn>`,
    endpointCanary: `<${id('AWS::Lambda::Function', /^endpointcanaryFunction/)}.Arn>`,
    parameters: `<${id('AWS::RDS::DBParameterGroup')}>`,
    subnets: `<${id('AWS::RDS::DBSubnetGroup', /^Dedicated/)}>`,
  };
  keys = {
    context: `<${id('AWS::SecretsManager::Secret', /^ContextKey/)}>`,
    signing: `<${id('AWS::SecretsManager::Secret', /^ApiKeySigningKey/)}>`,
    canaries: `<${id('AWS::SecretsManager::Secret', /^CanaryKeys/)}>`,
    master: `<${cluster}.MasterUserSecret.SecretArn>`,
  };
});

const here = (service: string, rest: string) => `arn:aws:${service}:eu-west-1:111122223333:${rest}`;
const roleOf = (name: string) => {
  const { stack, id } = assembly.only(
    'AWS::IAM::Role',
    new RegExp(`^${name.replaceAll('-', '')}Role[0-9A-F]{8}$`, 'i'),
  );
  return { stack, id };
};
const may = (name: string, action: string, resource: string, context?: Context) =>
  isAllowed(statementsOf(assembly, roleOf(name)), action, resource, context);

const tenant = '0b8f6a52-1111-4222-8333-444455556666';
const ours = { 'aws:RequestTag/tenantry:tenant': tenant, 'aws:TagKeys': ['tenantry:tenant'] };
const marked = { 'aws:ResourceTag/tenantry:tenant': tenant };
const home = '7d1c0a11-2222-4333-8444-555566667777';
const instance = here('rds', `db:${instanceName(home)}`);
/** Somebody else's, whose name begins as ours do. */
const namesake = here('rds', 'db:tenantry-analytics');
const key = here('kms', 'key/0b8f6a52-1111-4222-8333-444455556666');
const finalSnapshot = here('rds', `snapshot:${finalSnapshotName(home)}`);

/** A service's call in the name of who called it: it carries the function's mark too, as far as we know. */
const viaRds = { 'aws:ViaAWSService': 'true', 'lambda:SourceFunctionArn': here('lambda', 'function:any') };

interface Question {
  readonly action: string;
  readonly resource: () => string;
  readonly context?: Context;
  /** Who may. Everybody else may not. */
  readonly who: readonly FunctionName[];
}
const secret = (name: string) => () => here('secretsmanager', `secret:${name}`);
const login = (server: () => string, name: string) => () => here('rds-db', `dbuser:${server()}/${name}`);
const cluster = () => ids.cluster;
const proxy = () => ids.proxy;
const dedicated = () => 'db-ABCDEFGHIJKLMNOPQRSTUVWXYZ';
const masterOf = (identifier: string): Context => ({
  'aws:ResourceTag/aws:rds:primaryDBInstanceArn': here('rds', `db:${identifier}`),
});

/** Which function starts a state machine beside the operators' own. */
const starters: Record<string, FunctionName[]> = {
  'move-tenant': ['batch-moves'],
  // Of canaries alone, which the canary makes as it finds them missing.
  'provision-tenant': ['health-canary'],
};
const machine = (name: string) =>
  `<${assembly.only('AWS::StepFunctions::StateMachine', new RegExp(`^${name.replaceAll('-', '')}machine`)).id}>`;

const questions: Record<string, Question> = {
  'a tenant’s secret': {
    action: 'secretsmanager:GetSecretValue',
    resource: secret(`mcp-tenant-db/${tenant}-AbCdEf`),
    who: ['mcp', 'provision-tenant', 'move-tenant', 'offboard-tenant', 'health-canary'],
  },
  'writing a tenant’s secret': {
    action: 'secretsmanager:PutSecretValue',
    resource: secret(`mcp-tenant-db/${tenant}-AbCdEf`),
    who: ['provision-tenant', 'move-tenant'],
  },
  'any other secret of the account': {
    action: 'secretsmanager:GetSecretValue',
    resource: secret('payroll-AbCdEf'),
    who: [],
  },
  'a secret whose name only begins alike': {
    action: 'secretsmanager:GetSecretValue',
    resource: secret('mcp-tenant-dbs/x-AbCdEf'),
    who: [],
  },
  'the context key': {
    action: 'secretsmanager:GetSecretValue',
    resource: () => keys.context,
    who: [
      'mcp',
      'admin',
      'provision-tenant',
      'install',
      'migrate-tenants',
      'move-tenant',
      'offboard-tenant',
      'transfer-tenant',
      'health-canary',
    ],
  },
  'writing the context key': {
    action: 'secretsmanager:PutSecretValue',
    resource: () => keys.context,
    who: ['install'],
  },
  'the key that signs API keys': {
    action: 'secretsmanager:GetSecretValue',
    resource: () => keys.signing,
    // The canary makes the canaries' own.
    who: ['admin', 'install', 'health-canary'],
  },
  'the canaries’ API keys': {
    action: 'secretsmanager:GetSecretValue',
    resource: () => keys.canaries,
    who: ['health-canary', 'endpoint-canary'],
  },
  'writing the canaries’ API keys': {
    action: 'secretsmanager:PutSecretValue',
    resource: () => keys.canaries,
    who: ['health-canary'],
  },
  'having the public URL called': {
    action: 'lambda:InvokeFunction',
    resource: () => ids.endpointCanary,
    who: ['health-canary'],
  },
  'the shared cluster’s master': {
    action: 'secretsmanager:GetSecretValue',
    resource: () => keys.master,
    who: ['install'],
  },
  'the master of an instance of ours': {
    action: 'secretsmanager:GetSecretValue',
    resource: secret('rds!db-1234-AbCdEf'),
    context: masterOf(instanceName(home)),
    who: ['provision-tenant'],
  },
  'the master of somebody else’s instance': {
    action: 'secretsmanager:GetSecretValue',
    resource: secret('rds!db-1234-AbCdEf'),
    context: masterOf('payroll'),
    who: [],
  },
  'the master of an instance that is only named alike': {
    action: 'secretsmanager:GetSecretValue',
    resource: secret('rds!db-1234-AbCdEf'),
    context: masterOf('tenantry-analytics'),
    who: [],
  },
  'the master of an instance without a mark': {
    action: 'secretsmanager:GetSecretValue',
    resource: secret('rds!db-1234-AbCdEf'),
    who: [],
  },
  'logging in to the proxy as the shared login': {
    action: 'rds-db:connect',
    resource: login(proxy, 'tenancy_app'),
    who: ['mcp', 'health-canary'],
  },
  'logging in to the proxy as a home’s login': {
    action: 'rds-db:connect',
    resource: login(proxy, 't_0b8f6a52111142228333444455556666'),
    who: ['mcp', 'health-canary'],
  },
  'looking up routes': {
    action: 'rds-db:connect',
    resource: login(proxy, 'tenancy_catalog_reader'),
    who: ['mcp', 'health-canary', 'health'],
  },
  'the proxy as the provisioner': {
    action: 'rds-db:connect',
    resource: login(proxy, 'tenancy_provisioner'),
    who: [],
  },
  'the proxy as the master': {
    action: 'rds-db:connect',
    resource: login(proxy, 'tenantry_master'),
    who: [],
  },
  'the server as the provisioner': {
    action: 'rds-db:connect',
    resource: login(cluster, 'tenancy_provisioner'),
    who: [
      'admin',
      'provision-tenant',
      'install',
      'migrate-tenants',
      'move-tenant',
      'offboard-tenant',
      'transfer-tenant',
      'batch-moves',
      'health-canary',
    ],
  },
  'the server as the master': {
    action: 'rds-db:connect',
    resource: login(cluster, 'tenantry_master'),
    who: [],
  },
  'the server as the shared login': {
    action: 'rds-db:connect',
    resource: login(cluster, 'tenancy_app'),
    who: [],
  },
  'a dedicated instance as the provisioner': {
    action: 'rds-db:connect',
    resource: login(dedicated, 'tenancy_provisioner'),
    who: [
      'admin',
      'provision-tenant',
      'migrate-tenants',
      'move-tenant',
      'offboard-tenant',
      'transfer-tenant',
      'health-canary',
    ],
  },
  'creating an instance with its tenant’s mark': {
    action: 'rds:CreateDBInstance',
    resource: () => instance,
    context: ours,
    who: ['provision-tenant'],
  },
  'creating an instance without a mark': {
    action: 'rds:CreateDBInstance',
    resource: () => instance,
    who: [],
  },
  'creating an instance with another mark as well': {
    action: 'rds:CreateDBInstance',
    resource: () => instance,
    context: { ...ours, 'aws:TagKeys': ['tenantry:tenant', 'billing'] },
    who: [],
  },
  'creating an instance of another name': {
    action: 'rds:CreateDBInstance',
    resource: () => here('rds', 'db:payroll'),
    context: ours,
    who: [],
  },
  'our parameter group': {
    action: 'rds:CreateDBInstance',
    resource: () => here('rds', `pg:${ids.parameters}`),
    context: ours,
    who: ['provision-tenant'],
  },
  'a parameter group without forced TLS': {
    action: 'rds:CreateDBInstance',
    resource: () => here('rds', 'pg:default.postgres17'),
    context: ours,
    who: [],
  },
  'a grant on a key to RDS, for the storage of an instance': {
    action: 'kms:CreateGrant',
    resource: () => key,
    context: { 'kms:ViaService': 'rds.eu-west-1.amazonaws.com' },
    who: ['provision-tenant'],
  },
  'a key by Secrets Manager, for the master’s secret of an instance': {
    action: 'kms:GenerateDataKey',
    resource: () => key,
    context: { 'kms:ViaService': 'secretsmanager.eu-west-1.amazonaws.com' },
    who: ['provision-tenant'],
  },
  'a key by RDS, for Performance Insights of an instance': {
    action: 'kms:GenerateDataKey',
    resource: () => key,
    context: { 'kms:ViaService': 'rds.eu-west-1.amazonaws.com' },
    who: ['provision-tenant'],
  },
  'a key without a service in between': {
    action: 'kms:Decrypt',
    resource: () => key,
    who: [],
  },
  'deleting a tenant’s instance': {
    action: 'rds:DeleteDBInstance',
    resource: () => instance,
    context: marked,
    who: ['provision-tenant'],
  },
  'deleting an instance without a mark': {
    action: 'rds:DeleteDBInstance',
    resource: () => instance,
    who: [],
  },
  'deleting somebody else’s instance': {
    action: 'rds:DeleteDBInstance',
    resource: () => here('rds', 'db:payroll'),
    context: marked,
    who: [],
  },
  'a final snapshot of a tenant’s instance': {
    action: 'rds:CreateDBSnapshot',
    resource: () => instance,
    context: marked,
    who: ['provision-tenant'],
  },
  'a snapshot of an instance without a mark': {
    action: 'rds:CreateDBSnapshot',
    resource: () => instance,
    who: [],
  },
  'keeping a final snapshot': {
    action: 'rds:CreateDBSnapshot',
    resource: () => finalSnapshot,
    who: ['provision-tenant'],
  },
  'copying a mark to a final snapshot': {
    action: 'rds:AddTagsToResource',
    resource: () => finalSnapshot,
    who: ['provision-tenant'],
  },
  'keeping a snapshot under another name': {
    action: 'rds:CreateDBSnapshot',
    resource: () => here('rds', 'snapshot:payroll'),
    who: [],
  },
  'deleting a final snapshot': {
    action: 'rds:DeleteDBSnapshot',
    resource: () => finalSnapshot,
    who: [],
  },
  'deleting the shared cluster': {
    action: 'rds:DeleteDBCluster',
    resource: () => here('rds', 'cluster:tenantrydata-shared'),
    context: marked,
    who: [],
  },
  'marking an instance that is there': {
    action: 'rds:AddTagsToResource',
    resource: () => here('rds', 'db:payroll'),
    context: ours,
    who: [],
  },
  'marking an instance that is only named alike': {
    action: 'rds:AddTagsToResource',
    resource: () => namesake,
    context: ours,
    who: [],
  },
  'creating an instance that is only named alike': {
    action: 'rds:CreateDBInstance',
    resource: () => namesake,
    context: ours,
    who: [],
  },
  'changing an instance that is only named alike': {
    action: 'rds:ModifyDBInstance',
    resource: () => namesake,
    context: marked,
    who: [],
  },
  'deleting an instance that is only named alike': {
    action: 'rds:DeleteDBInstance',
    resource: () => namesake,
    context: marked,
    who: [],
  },
  'marking a snapshot that is only named alike': {
    action: 'rds:AddTagsToResource',
    resource: () => here('rds', 'snapshot:tenantry-analytics-final'),
    who: [],
  },
  ...Object.fromEntries(
    machineFiles.flatMap(({ name }) => {
      const who: FunctionName[] = ['admin', ...(starters[name] ?? [])];
      return [
        [`starting ${name}`, { action: 'states:StartExecution', resource: () => machine(name), who }],
        [
          `looking at what ${name} does`,
          {
            action: 'states:DescribeExecution',
            resource: () => here('states', `execution:${machine(name)}:any`),
            who,
          },
        ],
      ];
    }),
  ),
  'the names of secrets': {
    action: 'secretsmanager:ListSecrets',
    resource: () => '*',
    who: ['health-canary'],
  },
  'whether a tenant’s secret is still there': {
    action: 'secretsmanager:DescribeSecret',
    resource: secret(`mcp-tenant-db/${tenant}-AbCdEf`),
    who: ['health-canary'],
  },
  'whether anybody else’s secret is there': {
    action: 'secretsmanager:DescribeSecret',
    resource: secret('payroll/database-AbCdEf'),
    who: [],
  },
  'starting any other machine': {
    action: 'states:StartExecution',
    resource: () => here('states', 'stateMachine:payroll'),
    who: [],
  },
  'calling the MCP function past API Gateway': {
    action: 'lambda:InvokeFunction',
    resource: () => ids.mcp,
    who: ['provision-tenant', 'migrate-tenants', 'move-tenant', 'health-canary'],
  },
  'keeping an export': {
    action: 's3:PutObject',
    resource: () => `<${assembly.only('AWS::S3::Bucket', /^Exports/).id}.Arn>/offboarded/acme/items.csv`,
    who: ['transfer-tenant'],
  },
  'an object of another bucket': {
    action: 's3:GetObject',
    resource: () => 'arn:aws:s3:::payroll/salaries.csv',
    who: [],
  },
  'deleting a tenant’s secret': {
    action: 'secretsmanager:DeleteSecret',
    resource: secret(`mcp-tenant-db/${tenant}-AbCdEf`),
    who: ['provision-tenant', 'move-tenant', 'offboard-tenant'],
  },
  ...Object.fromEntries(
    ['CreateNetworkInterface', 'DescribeSubnets', 'DeleteNetworkInterface'].flatMap((name) => {
      const question = { action: `ec2:${name}`, resource: () => '*' };
      const who = functions.filter(({ inVpc }) => inVpc).map((row) => row.name);
      const byCode = { 'lambda:SourceFunctionArn': here('lambda', 'function:any') };
      return [
        [`${name} by Lambda, for the function's network`, { ...question, who }],
        [`${name} by the function's code`, { ...question, context: byCode, who: [] }],
      ];
    }),
  ),
  ...Object.fromEntries(
    ['AccountAttributes', 'SecurityGroups', 'VpcAttribute', 'Vpcs', 'InternetGateways'].flatMap((what) => {
      const question = { action: `ec2:Describe${what}`, resource: () => '*' };
      return [
        [`${what} by RDS, for a new instance`, { ...question, context: viaRds, who: ['provision-tenant'] }],
        [`${what} by itself`, { ...question, context: { ...viaRds, 'aws:ViaAWSService': 'false' }, who: [] }],
      ];
    }),
  ),
  'the subnets of a new instance, by RDS': {
    action: 'ec2:DescribeSubnets',
    resource: () => '*',
    context: viaRds,
    // The others may make no instance, and what Lambda needs is the same.
    who: functions.filter(({ inVpc }) => inVpc).map((row) => row.name),
  },
  'becoming another role': {
    action: 'sts:AssumeRole',
    resource: () => 'arn:aws:iam::111122223333:role/admin',
    who: [],
  },
  'giving a role to a service': {
    action: 'iam:PassRole',
    resource: () => 'arn:aws:iam::111122223333:role/admin',
    who: [],
  },
};

describe.each(Object.entries(questions))('%s', (_, { action, resource, context, who }) => {
  it.each(functions.map(({ name }) => name))(`is ${action} by %s only as it should be`, (name) => {
    expect(may(name, action, resource(), context)).toBe(who.includes(name));
  });
});

describe('over all roles', () => {
  it('no statement has a wildcard action, or everything as its resource beside X-Ray, log delivery and interfaces', () => {
    const documents = [
      ...[...assembly.of('AWS::IAM::Policy'), ...assembly.of('AWS::IAM::ManagedPolicy')].map(
        ({ properties }) => properties.PolicyDocument,
      ),
      ...assembly
        .of('AWS::IAM::Role')
        .flatMap(({ properties }) => properties.Policies ?? [])
        .map((policy: { PolicyDocument: { Statement: object[] } }) => policy.PolicyDocument),
    ];
    const statements = documents.flatMap(({ Statement }) => Statement);
    expect(statements.length).toBeGreaterThan(20);
    const wide = new Set<string>();
    for (const { Action, Resource } of statements)
      for (const action of [Action].flat()) {
        expect(action).not.toContain('*');
        if ([Resource].flat().includes('*')) wide.add(action);
      }
    for (const action of wide)
      expect(action).toMatch(
        /^(secretsmanager:ListSecrets$|ec2:\w*(NetworkInterfaces?|Subnets|PrivateIpAddresses)$|ec2:Describe(AccountAttributes|AvailabilityZones|InternetGateways|SecurityGroups|VpcAttribute|Vpcs)$|xray:(Put|GetSampling)|logs:\w*(LogDelivery|LogDeliveries|ResourcePolicy|ResourcePolicies|LogGroups)$)/,
      );
  });

  it('the proxy logs in to the server as the data plane’s logins and no other', () => {
    const statements = statementsOf(assembly, assembly.only('AWS::IAM::Role', /^ProxyRole/));
    const connects = (name: string) => isAllowed(statements, 'rds-db:connect', login(cluster, name)());
    expect(['tenancy_app', 't_0b8f', 'tenancy_catalog_reader'].map(connects)).toEqual([true, true, true]);
    expect(['tenancy_provisioner', 'tenancy_keeper', 'tenantry_master', 'postgres'].map(connects)).toEqual(
      Array(4).fill(false),
    );
  });

  it('AWS’s own policies are attached for API Gateway’s log and RDS’s figures alone', () => {
    const own = new Set(assembly.of('AWS::IAM::ManagedPolicy').map(({ id }) => `<${id}>`));
    const attached = assembly
      .of('AWS::IAM::Role')
      .flatMap(({ properties }) => properties.ManagedPolicyArns ?? [])
      .filter((arn: string) => !own.has(arn))
      .map((arn: string) => arn.split('/').at(-1));
    expect(new Set(attached)).toEqual(
      new Set(['AmazonAPIGatewayPushToCloudWatchLogs', 'AmazonRDSEnhancedMonitoringRole']),
    );
  });
});

it.each([
  ['StringLike', true],
  ['StringEquals', false],
  ['ForAllValues:StringEquals', false],
])('%s takes a star for any text: %s', (operator, expected) => {
  const Condition = { [operator]: { 'aws:TagKeys': 'tenantry:*' } };
  const statement = { Effect: 'Allow', Action: 'rds:CreateDBInstance', Resource: '*', Condition } as const;
  const context = { 'aws:TagKeys': ['tenantry:tenant'] };
  expect(isAllowed([statement], 'rds:CreateDBInstance', instance, context)).toBe(expected);
});
