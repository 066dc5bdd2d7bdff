import { ArnFormat, Aws, Stack, Validations } from 'aws-cdk-lib';
import {
  type IManagedPolicy,
  PolicyStatement,
  type PolicyStatementProps,
  type Role,
} from 'aws-cdk-lib/aws-iam';
import type { Construct } from 'constructs';
import { instanceName, tenantTag } from '../../functions/lib/aws/rds.ts';
import { type Right, servicesOf } from '../rights.ts';

/** Where a deployment's things are; what comes later than the databases is not there for the functions before it. */
export interface Places {
  /** Lets a role log in to homes through the proxy. */
  readonly enterHomes: IManagedPolicy;
  /** Resource ids: `prx-…` of the proxy; `cluster-…` or `db-…` of the shared cluster. */
  readonly proxyId: string;
  readonly clusterId: string;
  readonly contextKey: string;
  readonly signingKey: string;
  readonly canaryKeys: string;
  readonly masterSecret: string;
  /** Of dedicated instances. */
  readonly parameterGroup: string;
  /** The deployment's own KMS key, where it has one. */
  readonly ownKey?: string;
  readonly subnetGroup: string;
  readonly mcpFunction?: string;
  readonly endpointCanary?: string;
  /** ARNs by the machines' files. */
  readonly machines?: Readonly<Record<string, string>>;
  readonly exportBucket?: string;
}

/** Logins of the data plane: the shared one, a home's own, and the one that may only look up routes. No control-plane login matches. */
const dataLogins = ['tenancy_app', 't_*', 'tenancy_catalog_reader'] as const;

/** Of any home: what an account has named `tenantry-…` besides is not ours. */
const dedicatedName = instanceName('?'.repeat(32));

/** What AWS's least privileges for making an RDS instance name beside RDS's own actions. */
const networkOfInstances = [
  ...['AccountAttributes', 'AvailabilityZones', 'InternetGateways', 'SecurityGroups'],
  ...['Subnets', 'VpcAttribute', 'Vpcs'],
];

type Statement = PolicyStatementProps & { actions: string[]; resources: string[] };

/** Gives a function's role what its row of the manifest says. */
export function grant(role: Role, rights: readonly Right[], places: Places): void {
  const stack = Stack.of(role);
  const statements = statementsFor(stack, places);
  if (rights.includes('enter-homes')) role.addManagedPolicy(places.enterHomes);
  const granted = rights.flatMap((right) => statements[right]());
  for (const statement of [...granted, ...keyStatements(stack, rights, places)]) {
    role.addToPrincipalPolicy(new PolicyStatement(statement));
    for (const resource of statement.resources) acknowledgePrefix(role, resource, stack);
  }
}

/** In IAM's words. A right whose place is not there yet is a mistake of the stack that asks for it. */
function statementsFor(stack: Stack, places: Places): Record<Right, () => Statement[]> {
  const arn = (service: string, resource: string, resourceName: string) =>
    stack.formatArn({ service, resource, resourceName, arnFormat: ArnFormat.COLON_RESOURCE_NAME });
  const secret = (name: string) => arn('secretsmanager', 'secret', name);
  const login = (server: string, name: string) => arn('rds-db', 'dbuser', `${server}/${name}`);
  const read = (resources: string[]): Statement => ({
    actions: ['secretsmanager:GetSecretValue'],
    resources,
  });
  // Whoever starts one looks at it too, when it runs already.
  const start = (machines: string[]): Statement[] => [
    { actions: ['states:StartExecution'], resources: machines },
    {
      actions: ['states:DescribeExecution'],
      resources: machines.map((machine) => executions(stack, machine)),
    },
  ];
  const tenantSecrets = secret('mcp-tenant-db/*');
  const instances = arn('rds', 'db', dedicatedName);
  const finalSnapshots = arn('rds', 'snapshot', `${dedicatedName}-final`);
  return {
    // A policy of the stack that has the proxy.
    'enter-homes': () => [],
    'ask-catalog': () => [connect([login(places.proxyId, 'tenancy_catalog_reader')])],
    'read-tenant-secrets': () => [read([tenantSecrets])],
    'keep-tenant-secrets': () => [
      {
        actions: [
          'secretsmanager:CreateSecret',
          'secretsmanager:DeleteSecret',
          'secretsmanager:GetSecretValue',
          'secretsmanager:PutSecretValue',
          'secretsmanager:RestoreSecret',
        ],
        resources: [tenantSecrets],
      },
      // Logins of instances that authenticate by a password have theirs here; they end with the instance.
      { actions: ['secretsmanager:DeleteSecret'], resources: [secret('tenancy-login/*')] },
    ],
    'remove-tenant-secrets': () => [
      {
        actions: ['secretsmanager:GetSecretValue', 'secretsmanager:DeleteSecret'],
        resources: [tenantSecrets],
      },
    ],
    'read-context-key': () => [read([places.contextKey])],
    'read-signing-key': () => [read([places.signingKey])],
    'read-canary-keys': () => [read([places.canaryKeys])],
    'keep-canary-keys': () => [
      {
        actions: ['secretsmanager:GetSecretValue', 'secretsmanager:PutSecretValue'],
        resources: [places.canaryKeys],
      },
    ],
    'make-keys': () => [
      {
        actions: ['secretsmanager:GetSecretValue', 'secretsmanager:PutSecretValue'],
        resources: [places.contextKey, places.signingKey],
      },
    ],
    'operate-shared-cluster': () => [connect([login(places.clusterId, 'tenancy_provisioner')])],
    // An instance's resource id is not known before it is there; the login is ours alone.
    'operate-dedicated-instances': () => [connect([login('db-*', 'tenancy_provisioner')])],
    'read-shared-master-secret': () => [read([places.masterSecret])],
    'read-master-secrets': () => [
      {
        ...read([secret('rds!db-*')]),
        // RDS's own mark: only of this product's instances.
        conditions: {
          StringLike: { 'aws:ResourceTag/aws:rds:primaryDBInstanceArn': instances },
        },
      },
    ],
    'create-instances': () => [
      {
        actions: ['rds:CreateDBInstance', 'rds:AddTagsToResource'],
        resources: [
          instances,
          arn('rds', 'og', 'default:*'),
          arn('rds', 'pg', places.parameterGroup),
          arn('rds', 'subgrp', places.subnetGroup),
        ],
        conditions: {
          Null: { [`aws:RequestTag/${tenantTag}`]: 'false' },
          'ForAllValues:StringEquals': { 'aws:TagKeys': [tenantTag] },
        },
      },
      { actions: ['rds:DescribeDBInstances'], resources: [instances] },
      // RDS looks at the network of a new instance in the caller's name, who may not by itself. EC2 cannot narrow these.
      {
        actions: networkOfInstances.map((what) => `ec2:Describe${what}`),
        resources: ['*'],
        conditions: { Bool: { 'aws:ViaAWSService': 'true' } },
      },
      // RDS keeps the new master's password in a secret that it makes in the caller's name.
      {
        actions: ['secretsmanager:CreateSecret', 'secretsmanager:TagResource'],
        resources: [secret('rds!db-*')],
      },
      // Of the account's own keys for both services; their ids are not known here.
      {
        actions: ['kms:CreateGrant', 'kms:Decrypt', 'kms:DescribeKey', 'kms:GenerateDataKey'],
        resources: [stack.formatArn({ service: 'kms', resource: 'key', resourceName: '*' })],
        conditions: {
          StringEquals: {
            'kms:ViaService': ['rds', 'secretsmanager'].map(
              (service) => `${service}.${Aws.REGION}.${Aws.URL_SUFFIX}`,
            ),
          },
        },
      },
    ],
    'delete-instances': () => [
      { actions: ['rds:DescribeDBInstances'], resources: [instances] },
      {
        // The last is asked for by RDS when an instance goes with a final snapshot: of the instance, and of the snapshot.
        actions: ['rds:ModifyDBInstance', 'rds:DeleteDBInstance', 'rds:CreateDBSnapshot'],
        resources: [instances],
        conditions: { Null: { [`aws:ResourceTag/${tenantTag}`]: 'false' } },
      },
      // It has no mark yet: RDS copies the instance's to it, in the caller's name too.
      { actions: ['rds:CreateDBSnapshot', 'rds:AddTagsToResource'], resources: [finalSnapshots] },
    ],
    'list-secrets': () => [
      { actions: ['secretsmanager:ListSecrets'], resources: ['*'] },
      // What is listed may be five minutes old.
      { actions: ['secretsmanager:DescribeSecret'], resources: [tenantSecrets] },
    ],
    'list-instances': () => [{ actions: ['rds:DescribeDBInstances'], resources: [arn('rds', 'db', '*')] }],
    'start-operations': () => start(Object.values(places.machines!)),
    'start-moves': () => start([places.machines!['move-tenant']!]),
    'start-provisioning': () => start([places.machines!['provision-tenant']!]),
    'call-mcp': () => [{ actions: ['lambda:InvokeFunction'], resources: [places.mcpFunction!] }],
    'call-endpoint-canary': () => [
      { actions: ['lambda:InvokeFunction'], resources: [places.endpointCanary!] },
    ],
    'keep-exports': () => [
      {
        actions: ['s3:GetObject', 's3:PutObject', 's3:AbortMultipartUpload'],
        resources: [`${places.exportBucket}/*`],
      },
      // Without it S3 says of what is not there that it is forbidden.
      { actions: ['s3:ListBucket'], resources: [places.exportBucket!] },
    ],
  };
}

/** What a right on a secret or an export needs of the key that it rests under: through that service and no other way. */
function keyStatements(stack: Stack, rights: readonly Right[], { ownKey }: Places): Statement[] {
  const services = servicesOf(rights).filter((service) => service === 'secretsmanager' || service === 's3');
  if (ownKey === undefined || services.length === 0) return [];
  return [
    {
      actions: ['kms:Decrypt', 'kms:GenerateDataKey'],
      resources: [ownKey],
      conditions: {
        StringEquals: {
          'kms:ViaService': services.map((service) => `${service}.${stack.region}.${Aws.URL_SUFFIX}`),
        },
      },
    },
  ];
}

const connect = (resources: string[]): Statement => ({ actions: ['rds-db:connect'], resources });

function executions(stack: Stack, machineArn: string): string {
  const name = stack.splitArn(machineArn, ArnFormat.COLON_RESOURCE_NAME).resourceName!;
  return stack.formatArn({
    service: 'states',
    resource: 'execution',
    resourceName: `${name}:*`,
    arnFormat: ArnFormat.COLON_RESOURCE_NAME,
  });
}

/** Tenants, instances and executions come and go without a deployment: their prefixes are all that IAM can name. */
function acknowledgePrefix(holder: Construct, resource: string, stack: Stack): void {
  const name = nagName(resource, stack);
  if (!name.includes('*')) return;
  Validations.of(holder).acknowledge({
    id: `AwsSolutions-IAM5[Resource::${name}]`,
    reason:
      'Tenants come and go without a deployment: the prefix is this product’s alone, and names no more.',
  });
}

/** May log in to a server, or through a proxy, as the data plane's logins. `serverId`: `cluster-…`, `db-…` or `prx-…`. */
export function dataLoginStatement(holder: Construct, serverId: string): PolicyStatement {
  const stack = Stack.of(holder);
  const resources = dataLogins.map((login) =>
    stack.formatArn({
      service: 'rds-db',
      resource: 'dbuser',
      resourceName: `${serverId}/${login}`,
      arnFormat: ArnFormat.COLON_RESOURCE_NAME,
    }),
  );
  for (const resource of resources) acknowledgePrefix(holder, resource, stack);
  return new PolicyStatement(connect(resources));
}

/** cdk-nag writes what CloudFormation fills in as `<AWS::Region>` or `<Logical.Attribute>`. */
export function nagName(value: unknown, stack: Stack): string {
  const node = stack.resolve(value) as
    | string
    | { Ref?: string; 'Fn::Join'?: [string, unknown[]]; 'Fn::GetAtt'?: string[] };
  if (typeof node === 'string') return node;
  if (node['Fn::Join']) return node['Fn::Join'][1].map((part) => nagName(part, stack)).join('');
  if (node['Fn::GetAtt']) return `<${node['Fn::GetAtt'].join('.')}>`;
  return node.Ref === undefined ? JSON.stringify(node) : `<${node.Ref}>`;
}
