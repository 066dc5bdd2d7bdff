import { CfnOutput, Duration, Fn, RemovalPolicy, Stack, type StackProps, Validations } from 'aws-cdk-lib';
import { ManagedPolicy, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import {
  CfnDBParameterGroup,
  DatabaseInstanceEngine,
  DatabaseProxy,
  DefaultAuthScheme,
  ParameterGroup,
  PostgresEngineVersion,
  SubnetGroup,
} from 'aws-cdk-lib/aws-rds';
import { CfnSecret } from 'aws-cdk-lib/aws-secretsmanager';
import type { Construct } from 'constructs';
import { dataLoginStatement, type Places } from '../constructs/grant.ts';
import { Installation } from '../constructs/installation.ts';
import { SharedCluster, serverParameters } from '../constructs/shared-cluster.ts';
import { TenancyFunction } from '../constructs/tenancy-function.ts';
import { type DeploymentFacts, environmentOf } from '../environment.ts';
import { functionNamed } from '../functions.ts';
import type { Settings } from '../settings.ts';
import { type NetworkStack, postgresPort } from './network.ts';

export interface DataStackProps extends StackProps {
  readonly settings: Settings;
  readonly tools: DeploymentFacts['tools'];
  readonly network: NetworkStack;
}

/** The shared cluster, its proxy, the two keys, and what dedicated instances are made of; installed before anything serves. */
export class DataStack extends Stack {
  readonly cluster: SharedCluster;
  readonly proxy: DatabaseProxy;
  readonly places: Places;
  readonly facts: DeploymentFacts;

  constructor(scope: Construct, id: string, props: DataStackProps) {
    super(scope, id, props);
    const { settings, network, tools } = props;
    this.cluster = new SharedCluster(this, 'Shared', { ...settings, network });
    this.proxy = this.newProxy(settings, network);
    const contextKey = this.newKey(
      'ContextKey',
      'context-key',
      'signs which tenant a transaction belongs to',
    );
    const signingKey = this.newKey('ApiKeySigningKey', 'api-key-signing', 'signs API keys');
    // Nothing to keep: the canary makes new ones.
    const canaryKeys = this.newKey(
      'CanaryKeys',
      'canary-keys',
      'API keys of the canaries',
      RemovalPolicy.DESTROY,
    );
    const proxyId = Fn.select(6, Fn.split(':', this.proxy.dbProxyArn));
    const dedicated = this.dedicated(settings, network);
    this.places = {
      enterHomes: this.enterHomes(proxyId),
      proxyId,
      clusterId: this.cluster.resourceId,
      contextKey: contextKey.ref,
      signingKey: signingKey.ref,
      canaryKeys: canaryKeys.ref,
      masterSecret: this.cluster.masterSecret,
      ...(network.ownKey && { ownKey: network.ownKey.keyArn }),
      ...dedicated,
    };
    const facts: DeploymentFacts = {
      settings,
      tools,
      proxyHost: this.proxy.endpoint,
      clusterHost: this.cluster.host,
      port: String(postgresPort),
      contextKey: contextKey.name!,
      signingKey: signingKey.name!,
      canaryKeys: canaryKeys.name!,
      masterSecret: this.cluster.masterSecret,
      ...dedicated,
      dedicatedSecurityGroup: network.group('dedicated').securityGroupId,
      ...(network.ownKey && { ownKey: network.ownKey.keyArn }),
      json: (value) => this.toJsonString(value),
    };
    const row = functionNamed('install');
    const install = new TenancyFunction(this, 'Install', {
      row,
      retention: settings.logRetentionDays,
      network,
      places: this.places,
      environment: environmentOf(row, facts),
    });
    const installation = new Installation(this, 'Installation', {
      install: install.lambda,
      retention: settings.logRetentionDays,
      versions: {
        Code: install.digest,
        Cluster: this.cluster.resourceId,
        Proxy: this.proxy.endpoint,
        Extensions: settings.extensions.join(','),
        SigningKeyGeneration: String(settings.signingKeyGeneration),
      },
    });
    // The endpoint's name answers before a server does; and with its target the proxy makes a login, which is let in.
    installation.resource.node.addDependency(this.cluster.server, this.proxy, install.role);
    new CfnOutput(this, 'ProxyName', {
      description: 'VERIFY_PROXY of npm run verify:aws',
      value: this.proxy.dbProxyName,
    });
    this.facts = { ...facts, apiKeyJwks: installation.apiKeyJwks };
  }

  /** Whoever comes proves itself by IAM, and so does the proxy to the server: no secret a login, and none to rotate. */
  private newProxy(settings: Settings, network: NetworkStack): DatabaseProxy {
    const role = new Role(this, 'ProxyRole', { assumedBy: new ServicePrincipal('rds.amazonaws.com') });
    role.addToPrincipalPolicy(dataLoginStatement(role, this.cluster.resourceId));
    return new DatabaseProxy(this, 'Proxy', {
      proxyTarget: this.cluster.target,
      defaultAuthScheme: DefaultAuthScheme.IAM_AUTH,
      requireTLS: true,
      role,
      vpc: network.vpc,
      vpcSubnets: network.subnets,
      securityGroups: [network.fixedGroup(this, 'proxy')],
      maxConnectionsPercent: settings.cluster.proxyPercent,
      maxIdleConnectionsPercent: Math.min(25, settings.cluster.proxyPercent),
      borrowTimeout: Duration.seconds(3),
      idleClientTimeout: Duration.minutes(30),
      // Would write statements to the log.
      debugLogging: false,
    });
  }

  private enterHomes(proxyId: string): ManagedPolicy {
    const policy = new ManagedPolicy(this, 'EnterHomes', { description: 'Log in to homes of tenantry' });
    policy.addStatements(dataLoginStatement(policy, proxyId));
    return policy;
  }

  /**
   * Empty: the product itself writes the first value. A key outlives the stack, as what it has signed does; so its name is
   * this stack's alone, and a later one is not in its way.
   */
  private newKey(id: string, name: string, what: string, removal = RemovalPolicy.RETAIN): CfnSecret {
    const secret = new CfnSecret(this, id, {
      name: `tenancy/${name}-${Fn.select(2, Fn.split('/', this.stackId))}`,
      description: `tenantry: ${what}`,
    });
    secret.applyRemovalPolicy(removal);
    Validations.of(secret).acknowledge({
      id: 'AwsSolutions-SMG4',
      reason:
        'The product renews it: keys of the canaries every week; a signing key when somebody says so, because it is first brought everywhere.',
    });
    return secret;
  }

  private dedicated({ dedicated }: Settings, network: NetworkStack) {
    const engine = DatabaseInstanceEngine.postgres({
      version: PostgresEngineVersion.of(dedicated.engineVersion, '17'),
    });
    const group = new ParameterGroup(this, 'DedicatedParameters', {
      engine,
      description: 'Instances of one tenant',
      parameters: {
        ...serverParameters,
        max_connections: String(dedicated.maxConnections),
        // No proxy ends what a frozen environment has left open.
        idle_session_timeout: '60000',
      },
    });
    group.bindToInstance({});
    const subnets = new SubnetGroup(this, 'DedicatedSubnets', {
      vpc: network.vpc,
      vpcSubnets: network.subnets,
      description: 'Instances of one tenant',
    });
    return {
      parameterGroup: (
        group.node.findAll().find((node) => node instanceof CfnDBParameterGroup) as CfnDBParameterGroup
      ).ref,
      subnetGroup: subnets.subnetGroupName,
    };
  }
}
