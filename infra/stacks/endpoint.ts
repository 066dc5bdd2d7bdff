import { join } from 'node:path';
import { Annotations, ArnFormat, Fn, Stack, type StackProps, Validations } from 'aws-cdk-lib';
import { type IVpc, SecurityGroup, Vpc } from 'aws-cdk-lib/aws-ec2';
import { PolicyStatement, type Role } from 'aws-cdk-lib/aws-iam';
import type { Construct } from 'constructs';
import type { Tool } from '../../functions/lib/mcp/tool.ts';
import { McpApi } from '../constructs/mcp-api.ts';
import { TenancyFunction, type TenancyFunctionProps } from '../constructs/tenancy-function.ts';
import { functionNamed } from '../functions.ts';
import type { Settings } from '../settings.ts';

const root = join(import.meta.dirname, '../..');

/** The name under which the context-signing keys are kept. */
const contextKeySecret = 'tenancy/context-key';

/** Logins of the data plane: the shared one, a home's own, and the one that may only look up routes. No control-plane login matches. */
const logins = ['tenancy_app', 't_*', 'tenancy_catalog_reader'];

type Network = NonNullable<TenancyFunctionProps['network']>;

export interface EndpointStackProps extends StackProps {
  readonly settings: Settings;
  readonly tools: readonly Pick<Tool, 'name' | 'scopes'>[];
}

/** The data plane: what agents call. */
export class EndpointStack extends Stack {
  constructor(scope: Construct, id: string, props: EndpointStackProps) {
    const { settings, tools } = props;
    super(scope, id, { ...props, ...(settings.region && { env: { region: settings.region } }) });
    const api = new McpApi(this, 'McpApi', settings);
    const network = {
      vpc: this.existingVpc(settings),
      securityGroups: settings.network.securityGroupIds.map((group) =>
        SecurityGroup.fromSecurityGroupId(this, group, group, { mutable: false }),
      ),
    };
    const mcp = this.mcpFunction(settings, api.publicUrl, network);
    const authorizer = this.authorizerFunction(settings, api.publicUrl, tools);
    const health = this.healthFunction(settings, network);
    api.serve(
      { mcp: mcp.lambda, authorizer: authorizer.lambda, health: health.lambda },
      {
        publicUrl: api.publicUrl,
        issuers: settings.issuers.map(({ issuer }) => issuer),
        scopes: [...new Set(tools.flatMap(({ scopes }) => scopes))].sort(),
      },
    );
  }

  private mcpFunction(settings: Settings, publicUrl: string, network: Network): TenancyFunction {
    const mcp = new TenancyFunction(this, 'Mcp', {
      row: functionNamed('mcp'),
      root,
      retention: settings.logRetentionDays,
      reservedConcurrency: settings.concurrency.reserved,
      network,
      environment: {
        PUBLIC_URL: publicUrl,
        ALLOWED_ORIGINS: settings.allowedOrigins.join(','),
        CATALOG_HOST: settings.catalog.host,
        CATALOG_PORT: String(settings.catalog.port),
        CREDENTIALS: 'iam',
        CONTEXT_KEY_SECRET: contextKeySecret,
        DATABASE_TLS: 'verify',
        MAX_CONNECTIONS: String(settings.concurrency.connections),
        // Lambda's Node trusts the public authorities only; this file of the runtime also holds those of RDS.
        NODE_EXTRA_CA_CERTS: '/var/runtime/ca-cert.pem',
      },
    });
    this.allowData(mcp.role, settings.clusters);
    return mcp;
  }

  private authorizerFunction(settings: Settings, publicUrl: string, tools: EndpointStackProps['tools']) {
    const issuers = settings.issuers.map((issuer) => ({ audience: publicUrl, ...issuer }));
    return new TenancyFunction(this, 'Authorizer', {
      row: functionNamed('authorizer'),
      root,
      retention: settings.logRetentionDays,
      environment: {
        PUBLIC_URL: publicUrl,
        ISSUERS: this.toJsonString(issuers),
        API_KEY_JWKS: JSON.stringify(settings.apiKeyJwks),
        API_KEY_ISSUER: publicUrl,
        TOOL_SCOPES: JSON.stringify(Object.fromEntries(tools.map(({ name, scopes }) => [name, scopes]))),
      },
    });
  }

  /** Asked by everybody, so it may do next to nothing: log in as the one who may look up a word and a route. */
  private healthFunction(settings: Settings, network: Network): TenancyFunction {
    const health = new TenancyFunction(this, 'Health', {
      row: functionNamed('health'),
      root,
      retention: settings.logRetentionDays,
      // A flood of questions ends here: what it takes, it does not take from the data path.
      reservedConcurrency: 5,
      network,
      environment: {
        CATALOG_HOST: settings.catalog.host,
        CATALOG_PORT: String(settings.catalog.port),
        CREDENTIALS: 'iam',
        DATABASE_TLS: 'verify',
        NODE_EXTRA_CA_CERTS: '/var/runtime/ca-cert.pem',
      },
    });
    const users = settings.clusters.map((cluster) =>
      this.arnOf('rds-db', 'dbuser', `${cluster}/tenancy_catalog_reader`),
    );
    health.role.addToPrincipalPolicy(new PolicyStatement({ actions: ['rds-db:connect'], resources: users }));
    return health;
  }

  /** All that the MCP function may do: log in as the data plane, read tenants' secrets and the context key. */
  private allowData(role: Role, clusters: readonly string[]): void {
    const secrets = ['mcp-tenant-db/*', `${contextKeySecret}-??????`].map((name) =>
      this.arnOf('secretsmanager', 'secret', name),
    );
    const users = clusters.flatMap((cluster) =>
      logins.map((login) => this.arnOf('rds-db', 'dbuser', `${cluster}/${login}`)),
    );
    role.addToPrincipalPolicy(
      new PolicyStatement({ actions: ['secretsmanager:GetSecretValue'], resources: secrets }),
    );
    role.addToPrincipalPolicy(new PolicyStatement({ actions: ['rds-db:connect'], resources: users }));
    for (const arn of [...secrets, ...users].filter((arn) => arn.endsWith('*'))) {
      Validations.of(role).acknowledge({
        id: `AwsSolutions-IAM5[Resource::${nagName(arn, this)}]`,
        reason:
          'Tenants come and go without a deployment: the prefix is theirs alone and names no control-plane login.',
      });
    }
  }

  private arnOf(service: string, resource: string, resourceName: string): string {
    return this.formatArn({ service, resource, resourceName, arnFormat: ArnFormat.COLON_RESOURCE_NAME });
  }

  private existingVpc({ network }: Settings): IVpc {
    const vpc = Vpc.fromVpcAttributes(this, 'Vpc', {
      vpcId: network.vpcId,
      // Lambda needs the subnets only, but CDK wants a zone for each; asking AWS for them would need credentials.
      availabilityZones: network.subnetIds.map((_, index) => Fn.select(index, Fn.getAzs())),
      isolatedSubnetIds: network.subnetIds,
    });
    // Nothing here adds a route to these subnets.
    Annotations.of(vpc).acknowledgeWarning('@aws-cdk/aws-ec2:noSubnetRouteTableId');
    return vpc;
  }
}

/** cdk-nag writes what CloudFormation fills in as `<AWS::Region>`. */
function nagName(arn: string, stack: Stack): string {
  const parts = stack.resolve(arn) as { 'Fn::Join': [string, (string | { Ref: string })[]] };
  return parts['Fn::Join'][1].map((part) => (typeof part === 'string' ? part : `<${part.Ref}>`)).join('');
}
