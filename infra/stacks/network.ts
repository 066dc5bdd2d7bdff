import { Annotations, Aws, Fn, RemovalPolicy, Stack, type StackProps } from 'aws-cdk-lib';
import {
  FlowLogDestination,
  GatewayVpcEndpoint,
  GatewayVpcEndpointAwsService,
  InterfaceVpcEndpoint,
  InterfaceVpcEndpointAwsService,
  IpAddresses,
  type ISecurityGroup,
  type IVpc,
  Peer,
  Port,
  SecurityGroup,
  type SubnetSelection,
  SubnetType,
  Vpc,
} from 'aws-cdk-lib/aws-ec2';
import { AnyPrincipal, PolicyStatement } from 'aws-cdk-lib/aws-iam';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import { LogGroup } from 'aws-cdk-lib/aws-logs';
import type { Construct } from 'constructs';
import { tameDefaultGroupFunction } from '../constructs/closed-default-group.ts';
import { newOwnKey } from '../constructs/own-key.ts';
import type { Network } from '../constructs/tenancy-function.ts';
import { functions } from '../functions.ts';
import { databasesOf, type Right, type Service, servicesOf } from '../rights.ts';
import type { Settings } from '../settings.ts';

export const postgresPort = 5432;

const inVpc = functions.filter((row) => row.inVpc);
const services = servicesOf(inVpc.flatMap(({ may }): readonly Right[] => may));

/** Subnets without a way out, the endpoints of exactly the services that functions call, and who may speak to whom. */
export class NetworkStack extends Stack implements Network {
  readonly vpc: IVpc;
  readonly subnets: SubnetSelection;
  readonly ownKey: IKey | undefined;
  private readonly groups = new Map<string, ISecurityGroup>();

  constructor(scope: Construct, id: string, props: StackProps & { readonly settings: Settings }) {
    super(scope, id, props);
    const { existing } = props.settings.network;
    // Here, because this stack is the first.
    this.ownKey = props.settings.ownKey ? newOwnKey(this) : undefined;
    this.vpc = existing ? this.existingVpc(existing) : this.newVpc(props.settings);
    this.subnets = { subnetType: SubnetType.PRIVATE_ISOLATED };
    for (const name of [...inVpc.map(({ name }) => name), 'proxy', 'cluster', 'dedicated'])
      this.groups.set(name, this.newGroup(name));
    this.groups.set(
      'endpoints',
      existing?.endpointSecurityGroupId
        ? SecurityGroup.fromSecurityGroupId(this, 'Endpoints', existing.endpointSecurityGroupId)
        : this.newGroup('endpoints'),
    );
    this.letIn();
    const there = existing?.endpointsThere ?? [];
    this.addEndpoints(services.filter((service) => !there.includes(service)));
  }

  fixedGroup(scope: Construct, name: string): ISecurityGroup {
    return SecurityGroup.fromSecurityGroupId(scope, `${name}-group`, this.group(name).securityGroupId, {
      mutable: false,
    });
  }

  group(name: string): ISecurityGroup {
    const group = this.groups.get(name);
    if (!group) throw new Error(`There is no security group ${name}.`);
    return group;
  }

  private newVpc(settings: Settings): IVpc {
    const { cidr, zones } = settings.network;
    const flowLog = new LogGroup(this, 'FlowLog', {
      retention: settings.logRetentionDays,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    const vpc = new Vpc(this, 'Vpc', {
      ipAddresses: IpAddresses.cidr(cidr),
      ...(zones ? { availabilityZones: zones } : { maxAzs: 2 }),
      natGateways: 0,
      subnetConfiguration: [{ name: 'isolated', subnetType: SubnetType.PRIVATE_ISOLATED, cidrMask: 20 }],
      flowLogs: { all: { destination: FlowLogDestination.toCloudWatchLogs(flowLog) } },
      // Nothing here is ever in the default group; whoever puts something into it shall reach nothing.
      restrictDefaultSecurityGroup: true,
    });
    tameDefaultGroupFunction(
      vpc,
      new LogGroup(this, 'DefaultGroupLog', {
        retention: settings.logRetentionDays,
        removalPolicy: RemovalPolicy.DESTROY,
      }),
    );
    return vpc as IVpc;
  }

  private existingVpc({
    vpcId,
    subnetIds,
    routeTableIds,
  }: NonNullable<Settings['network']['existing']>): IVpc {
    const vpc = Vpc.fromVpcAttributes(this, 'Vpc', {
      vpcId,
      // The subnets decide, one a zone as the setting asks; CDK wants the zones' names, and asking AWS would need credentials.
      availabilityZones: subnetIds.map((_, index) => Fn.select(index, Fn.getAzs())),
      isolatedSubnetIds: subnetIds,
      ...(routeTableIds && {
        isolatedSubnetRouteTableIds: subnetIds.map((_, index) => routeTableIds[index] ?? routeTableIds[0]!),
      }),
    });
    Annotations.of(vpc).acknowledgeWarning('@aws-cdk/aws-ec2:noSubnetRouteTableId');
    return vpc;
  }

  private newGroup(name: string): SecurityGroup {
    return new SecurityGroup(this, `${name}-group`, {
      vpc: this.vpc,
      description: `tenantry ${name}`,
      allowAllOutbound: false,
    });
  }

  /** From the manifest: what a function may do says what it has to reach. */
  private letIn(): void {
    const let_ = (from: string, to: string, port: number) =>
      this.group(from).connections.allowTo(this.group(to), Port.tcp(port), `${from} to ${to}`);
    for (const { name, may } of inVpc) {
      for (const database of databasesOf(may)) let_(name, database, postgresPort);
      const used = servicesOf(may);
      if (used.some((service) => service !== 's3')) let_(name, 'endpoints', 443);
      // An S3 gateway is a route, not an address: in these subnets the only one that leads out.
      if (used.includes('s3'))
        this.group(name).connections.allowTo(Peer.anyIpv4(), Port.tcp(443), `${name} to S3`);
    }
    let_('proxy', 'cluster', postgresPort);
  }

  private addEndpoints(missing: readonly Service[]): void {
    // Nobody else's credentials are good for anything from in here.
    const policy = new PolicyStatement({
      principals: [new AnyPrincipal()],
      actions: ['*'],
      resources: ['*'],
      conditions: { StringEquals: { 'aws:PrincipalAccount': Aws.ACCOUNT_ID } },
    });
    for (const service of missing.filter((name) => name !== 's3')) {
      new InterfaceVpcEndpoint(this, `${service}-endpoint`, {
        vpc: this.vpc,
        service: interfaceServices[service],
        subnets: this.subnets,
        securityGroups: [this.group('endpoints')],
        open: false,
      }).addToPolicy(policy);
    }
    if (missing.includes('s3'))
      new GatewayVpcEndpoint(this, 's3-endpoint', {
        vpc: this.vpc,
        service: GatewayVpcEndpointAwsService.S3,
        subnets: [this.subnets],
      }).addToPolicy(policy);
  }
}

const interfaceServices: Record<Exclude<Service, 's3'>, InterfaceVpcEndpointAwsService> = {
  secretsmanager: InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
  rds: InterfaceVpcEndpointAwsService.RDS,
  states: InterfaceVpcEndpointAwsService.STEP_FUNCTIONS,
  lambda: InterfaceVpcEndpointAwsService.LAMBDA,
};
