import { type App, Aspects, Tags } from 'aws-cdk-lib';
import { budgetOf, overBudget } from './budget.ts';
import { UnderOwnKey } from './constructs/own-key.ts';
import { warnOfHoles } from './engine-versions.ts';
import type { DeploymentFacts } from './environment.ts';
import type { Settings } from './settings.ts';
import { ControlStack } from './stacks/control.ts';
import { DataStack } from './stacks/data.ts';
import { EndpointStack } from './stacks/endpoint.ts';
import { NetworkStack } from './stacks/network.ts';
import { WatchStack } from './stacks/watch.ts';

/** The whole system, in the order in which it comes up. @throws Error when it would need more connections than there are */
export function addSystem(app: App, settings: Settings, tools: DeploymentFacts['tools']) {
  const fault = overBudget(budgetOf(settings));
  if (fault !== undefined) throw new Error(fault);
  const common = { settings, ...(settings.region && { env: { region: settings.region } }) };
  const network = new NetworkStack(app, 'TenantryNetwork', {
    ...common,
    description: 'Tenantry: subnets without a way out, and who may speak to whom in them',
  });
  const data = new DataStack(app, 'TenantryData', {
    ...common,
    tools,
    network,
    description: 'Tenantry: the shared cluster, its proxy and the keys, installed before anything serves',
  });
  warnOfHoles(data, settings);
  const endpoint = new EndpointStack(app, 'TenantryEndpoint', {
    ...common,
    tools,
    network,
    data,
    description: 'Tenantry: an MCP endpoint over PostgreSQL, every tenant kept apart',
  });
  const control = new ControlStack(app, 'TenantryControl', {
    ...common,
    network,
    data,
    endpoint,
    description: 'Tenantry: operates tenants',
  });
  const watch = new WatchStack(app, 'TenantryWatch', {
    ...common,
    data,
    endpoint,
    control,
    description: 'Tenantry: the canary’s clock, the alarms and the dashboard',
  });
  Tags.of(app).add('product', 'tenantry');
  if (network.ownKey) Aspects.of(app).add(new UnderOwnKey(network.ownKey));
  return { network, data, endpoint, control, watch };
}
