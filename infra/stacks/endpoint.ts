import { Stack, type StackProps } from 'aws-cdk-lib';
import { Alias, type IFunction, type IVersion } from 'aws-cdk-lib/aws-lambda';
import type { Construct } from 'constructs';
import { Firewall } from '../constructs/firewall.ts';
import { McpApi } from '../constructs/mcp-api.ts';
import { reservedFor, TenancyFunction } from '../constructs/tenancy-function.ts';
import { type DeploymentFacts, environmentOf, scopesOf } from '../environment.ts';
import { type FunctionName, functions } from '../functions.ts';
import type { Settings } from '../settings.ts';
import type { DataStack } from './data.ts';
import type { NetworkStack } from './network.ts';

export interface EndpointStackProps extends StackProps {
  readonly settings: Settings;
  readonly tools: DeploymentFacts['tools'];
  readonly network: NetworkStack;
  readonly data: DataStack;
}

/** The data plane: what agents call. */
export class EndpointStack extends Stack {
  readonly api: McpApi;
  readonly lambdas: ReadonlyMap<string, TenancyFunction>;
  readonly firewall: Firewall;

  constructor(scope: Construct, id: string, props: EndpointStackProps) {
    super(scope, id, props);
    const { settings, tools, network, data } = props;
    this.api = new McpApi(this, 'McpApi', settings);
    const { publicUrl } = this.api;
    const facts: DeploymentFacts = {
      ...data.facts,
      publicUrl,
      json: (value) => this.toJsonString(value),
    };
    this.lambdas = new Map(
      functions
        .filter(({ plane }) => plane === 'data')
        .map((row) => [
          row.name,
          new TenancyFunction(this, row.name, {
            row,
            retention: settings.logRetentionDays,
            network,
            places: data.places,
            environment: environmentOf(row, facts),
            reservedConcurrency: reservedFor(row.name, settings.concurrency),
          }),
        ]),
    );
    this.api.serve((name) => this.served(name, settings), {
      publicUrl,
      issuers: settings.issuers.map(({ issuer }) => issuer),
      scopes: scopesOf(tools),
      allowedOrigins: settings.allowedOrigins,
    });
    this.firewall = new Firewall(this, 'Firewall', { stage: this.api.stage, settings });
  }

  lambda(name: FunctionName): IFunction {
    const found = this.lambdas.get(name);
    if (!found) throw new Error(`The endpoint has no function ${name}.`);
    return found.lambda;
  }

  /** What the API calls: the function, or its warm environments. */
  private served(name: FunctionName, { concurrency }: Settings): IFunction {
    const { lambda } = this.lambdas.get(name)!;
    if (name !== 'mcp' || concurrency.provisioned === undefined) return lambda;
    const known = this.node.tryFindChild('Live') as IFunction | undefined;
    return (
      known ??
      // The library's optional properties and ours are not the same to the compiler.
      (new Alias(this, 'Live', {
        aliasName: 'live',
        version: lambda.currentVersion as IVersion,
        provisionedConcurrentExecutions: concurrency.provisioned,
      }) as IFunction)
    );
  }
}
