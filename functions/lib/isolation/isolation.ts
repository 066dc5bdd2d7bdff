import type { Route } from '../catalog/route.ts';
import type { ControlConnection } from '../database/connect.ts';
import type { Endpoint } from '../database/types.ts';
import { type Placement, type Strategy, strategies, type TenantId } from '../tenant/tenant.ts';
import { everyTenant } from './context.ts';
import type { Credentials } from './credentials.ts';
import { database } from './database.ts';
import { rls } from './rls.ts';
import type { RowsOf } from './rows.ts';
import { schema } from './schema.ts';

/** One place that can hold a tenant's data, as the control plane names it. Names are made from the home's UUID. */
export interface Home {
  readonly homeId: string;
  readonly tenant: TenantId;
  readonly strategy: Strategy;
  readonly schema: string;
  readonly login: string;
  readonly epoch: number;
}

/** What the audit found wrong with a home; `remedy` says what to do about it. */
export interface Finding {
  /** The home's. */
  readonly schema: string;
  readonly object: string;
  readonly finding: string;
  readonly remedy: string;
}

/** All that a home has, or what this transaction has changed about it: enough where all was completed under this runtime. */
export type Scope = 'whole' | 'changed';

/**
 * One way of keeping a tenant's data apart. All that differs between strategies is here and in the three files beside;
 * nothing else asks which strategy a tenant has.
 */
export interface Isolation {
  /** The home has tables of its own, which are migrated with it; otherwise they are every such tenant's. */
  readonly ownsTables: boolean;
  /**
   * What is made for a home alone before it, and goes with it: nothing (`shared`: the shared database takes it), a database
   * in a shared cluster, or an instance.
   */
  place(placement: Placement): 'shared' | 'database' | 'instance';
  /** Schema and login of a new home. Where several tenants share a home's schema, all answers are the same. */
  name(homeId: string): { schema: string; login: string };
  /** The secret that the home's login needs, and whether a password is in it; undefined where it needs none. */
  secret(
    home: Home,
    place: { clusterId: string; kind: 'shared' | 'dedicated' },
    loginsUse: 'iam' | 'secret',
  ): { name: string; password: boolean } | undefined;
  /** Data plane: where, and as whom, a call connects. `fresh`: what was known led nowhere. */
  locate(route: Route, credentials: Credentials, tls: Endpoint['tls'], fresh: boolean): Promise<Endpoint>;
  /**
   * Control plane, as tenancy_provisioner in the home's database: makes what the home needs before its migrations run.
   * Safe to repeat after a crash at any point. `password`: for a login that does not use IAM.
   */
  provision(connection: ControlConnection, home: Home, password: string | undefined): Promise<void>;
  /**
   * Control plane: deletes what the tenant has in tables that are others' too. Nothing to do where the home's tables are
   * dropped with it. Safe to repeat. @returns false when there is more to do and `isOver`
   */
  removeRows(connection: ControlConnection, rows: RowsOf, isOver: () => boolean): Promise<boolean>;
  /**
   * Control plane, as tenancy_provisioner in the database `removedFrom`: takes back what `provision` and the migrations
   * made for this home alone, its sessions with it. Safe to repeat.
   */
  deprovision(connection: ControlConnection, home: Home & { readonly database: string }): Promise<void>;
  removedFrom(home: { readonly database: string }): string;
  /** In the migration's transaction, as tenancy_owner: completes tables of homes in one database, and audits the same ones. */
  complete(connection: ControlConnection, homes: readonly Home[], scope: Scope): Promise<Finding[]>;
  /** The audit of all tables of the homes, all in one database, at any time. */
  check(connection: ControlConnection, homes: readonly Home[]): Promise<Finding[]>;
}

export const isolations: Readonly<Record<Strategy, Isolation>> = { rls, schema, database };

/** Those whose homes have tables of their own. */
export const owningStrategies = strategies.filter((strategy) => isolations[strategy].ownsTables);

/** All tenants on shared tables have one home, as far as its tables go. */
export const sharedHome: Home = {
  homeId: everyTenant,
  tenant: everyTenant,
  strategy: 'rls',
  ...rls.name(everyTenant),
  epoch: 1,
};
