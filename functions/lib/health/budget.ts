import { connectionLimit } from '../isolation/connections.ts';

/**
 * The connection budget: three inequalities over what a deployment allows itself. Synthesis fails when one does not hold;
 * `/health` shows the same sums.
 */
export interface ConnectionFacts {
  /** Environments of the MCP function that may run at once. */
  readonly environments: number;
  /** Connections that each of them may hold. */
  readonly connectionsPerEnvironment: number;
  readonly shared: {
    /** `max_connections` of the shared cluster. */
    readonly maxConnections: number;
    /** RDS Proxy's share of it, percent. */
    readonly proxyPercent: number;
    /** Tenants with a schema or a database of their own there that are active at once: no two share a connection. */
    readonly activeSchemaTenants: number;
    /** By control-plane function: the connections past the proxy that it may hold at once. */
    readonly control: Readonly<Record<string, number>>;
  };
  readonly dedicated: {
    /** `max_connections` of every dedicated instance. */
    readonly maxConnections: number;
  };
}

export interface BudgetLine {
  readonly what: string;
  readonly connections: number;
}

export interface Inequality {
  readonly name: 'proxy clients' | 'shared cluster' | 'logins of their own' | 'dedicated instance';
  readonly lines: readonly BudgetLine[];
  readonly sum: number;
  readonly limit: number;
  readonly limitIs: string;
  readonly holds: boolean;
  readonly remedies: readonly string[];
}

/** Client connections that AWS has tried one proxy with. */
const PROXY_CLIENTS = 20_000;
/** What the server keeps for its superuser and RDS for itself (`superuser_reserved_connections`, `rds.rds_superuser_reserved_connections`), and one for a person at 3 a.m. */
const RESERVE = 6;
/** Of the proxy's connections: for the login that all `rls` tenants share, and for the catalog's reader. */
const SHARED_LOGINS = 50;
/** On a dedicated instance the control plane comes one by one: provisioning, migrating or moving (two), the canary, an administrator. */
const DEDICATED_CONTROL = 4;

/** PostgreSQL connections that RDS Proxy may open to the shared cluster. */
const proxyConnections = ({ maxConnections, proxyPercent }: ConnectionFacts['shared']): number =>
  Math.floor((maxConnections * proxyPercent) / 100);

export function connectionBudget(facts: ConnectionFacts): readonly Inequality[] {
  const { environments, connectionsPerEnvironment, shared, dedicated } = facts;
  const proxy = proxyConnections(shared);
  return [
    inequality(
      'proxy clients',
      [
        {
          what: `${environments} environments of the MCP function × ${connectionsPerEnvironment}`,
          connections: environments * connectionsPerEnvironment,
        },
      ],
      PROXY_CLIENTS,
      'what one RDS Proxy was tried with',
      ['fewer connections per environment (concurrency.connections)', 'a lower concurrency.reserved'],
    ),
    inequality(
      'shared cluster',
      [
        { what: `RDS Proxy, ${shared.proxyPercent} % of max_connections`, connections: proxy },
        ...Object.entries(shared.control).map(([what, connections]) => ({ what, connections })),
        { what: 'reserve', connections: RESERVE },
      ],
      shared.maxConnections,
      'max_connections of the shared cluster',
      [
        'a higher cluster.maxConnections, on a size that carries it',
        'a lower cluster.proxyPercent',
        'another cluster',
      ],
    ),
    inequality(
      'logins of their own',
      [
        {
          what: 'tenants with a login of their own, active at once',
          connections: shared.activeSchemaTenants,
        },
        { what: 'the shared login and the catalog’s reader', connections: SHARED_LOGINS },
      ],
      proxy,
      'connections of the proxy',
      [
        'fewer concurrency.activeSchemaTenants',
        'a higher cluster.maxConnections, on a size that carries it',
        'another cluster for some of these tenants',
      ],
    ),
    inequality(
      'dedicated instance',
      [
        { what: 'the tenant’s login (its connection limit)', connections: connectionLimit },
        { what: 'provisioning or migrating, canary, administrator', connections: DEDICATED_CONTROL },
        { what: 'reserve', connections: RESERVE },
      ],
      dedicated.maxConnections,
      'max_connections of a dedicated instance',
      ['a higher dedicated.maxConnections, on a class that carries it'],
    ),
  ];
}

function inequality(
  name: Inequality['name'],
  lines: readonly BudgetLine[],
  limit: number,
  limitIs: string,
  remedies: readonly string[],
): Inequality {
  const sum = lines.reduce((total, { connections }) => total + connections, 0);
  return { name, lines, sum, limit, limitIs, holds: sum <= limit, remedies };
}
