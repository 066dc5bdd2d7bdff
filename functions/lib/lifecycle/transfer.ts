import { removalHasBegun } from '../catalog/offboarding.ts';
import { homesOf, type ReachableHome } from '../catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import type { TenantId } from '../tenant/tenant.ts';
import { exportRefused, exportTables, type WrittenPart } from '../transfer/export.ts';
import { importTables, wasImported } from '../transfer/import.ts';
import { importRefused, type Manifest, readManifest, writeManifest } from '../transfer/manifest.ts';
import { partBegins } from '../transfer/parts.ts';
import { openStore } from '../transfer/store.ts';
import { requireWanted } from './cancel.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';
import { beginOperation, endOperation, type Operation, readOperation, report } from './operations.ts';
import { failureOf, type Step } from './step.ts';

export interface ExportRequest {
  readonly slug: string;
  readonly to: string;
}

export interface ImportRequest {
  readonly slug: string;
  readonly from: string;
  /** The rows were another tenant's, as their manifest says, and shall be this one's. */
  readonly otherTenant: boolean;
}

export interface ExportInput {
  readonly slug: string;
  readonly exportTo: string;
}

export interface ImportInput {
  readonly slug: string;
  readonly url: string;
  readonly otherTenant: boolean;
}

/** An offboarding exports too. */
export const transferKinds = ['export', 'import', 'offboard'] as const;
type TransferKind = (typeof transferKinds)[number];

export interface Transferrer {
  readonly plane: ControlPlane;
  readonly clock: () => number;
  /** Of a table, that are one file of an export; as `exportTables` has it when it is not said. */
  readonly partBytes?: number;
}

/** After so long a run begins no other part, ms: one that is under way has as long again. */
const exportsFor = 7 * 60_000;
/** A function ends after 15 minutes, ms: an import that would not be done by then is refused. */
const importsFor = 13.5 * 60_000;

/** @throws TenantryError `idempotency_conflict`, `operation_running` */
export const beginExport = (
  catalog: ControlConnection,
  tenant: TenantId,
  { slug, to }: ExportRequest,
  idempotencyKey?: string,
): Promise<Operation<'export'>> =>
  beginOperation(catalog, {
    kind: 'export',
    tenant,
    request: { slug, to },
    input: { slug, exportTo: to },
    idempotencyKey,
  });

/** @throws TenantryError `idempotency_conflict`, `operation_running` */
export const beginImport = (
  catalog: ControlConnection,
  tenant: TenantId,
  request: ImportRequest,
  idempotencyKey?: string,
): Promise<Operation<'import'>> => {
  const { slug, from, otherTenant } = request;
  const input = { slug, url: from, otherTenant };
  return beginOperation(catalog, { kind: 'import', tenant, request, input, idempotencyKey });
};

/** Each export's own folder: beside another tenant's files, or those of one that failed, it would pass for more than it is. */
const urlOf = ({ operationId, kind, input }: Operation<TransferKind>): string | undefined =>
  kind === 'import' ? input.url : input.exportTo && `${input.exportTo}/${operationId}`;

/** Does a step's work, which asks whether it is wanted still: when an operator has cancelled the operation, it ends so. */
async function unlessCancelled(
  catalog: ControlConnection,
  operation: Operation<TransferKind>,
  work: (wanted: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const { operationId, kind } = operation;
  try {
    await work(() => requireWanted(catalog, operationId));
  } catch (error) {
    if (error instanceof TenantryError && error.code === 'operation_cancelled') {
      const { result } = await readOperation(catalog, operationId);
      const files = ((result.tables ?? []) as readonly WrittenPart[]).map(({ file }) => file);
      // No function may delete where exports are: they are the last of tenants that were offboarded.
      const left =
        kind === 'import'
          ? 'Nothing of it was taken.'
          : files.length === 0
            ? 'It had written nothing.'
            : `Without a manifest no import takes what it has written. Remove it yourself, at ${urlOf(operation)}: ${files.join(', ')}`;
      await endOperation(catalog, operationId, { state: 'cancelled', reason: `${error.message} ${left}` });
    }
    throw error;
  }
}

/**
 * The steps of `export-tenant.asl.json` and `import-tenant.asl.json`, and the one of `offboard-tenant.asl.json` that
 * exports. Each may run twice, in parallel with itself, or die at any line.
 */
export const transferSteps = {
  /** @throws TenantryError `unfinished` until every table is written; `export_refused` */
  exportTenant: ({ plane, clock, partBytes }, catalog, operation) =>
    unlessCancelled(catalog, operation, async (wanted) => {
      const { operationId, kind, tenant, input, result } = operation;
      const url = urlOf(operation);
      const home = await homeInUse(catalog, tenant);
      if (kind === 'offboard' && (url === undefined || home === undefined)) return;
      // What an earlier offboarding has begun to remove it has exported before.
      if (kind === 'offboard' && (await removalHasBegun(catalog, tenant))) return;
      if (url === undefined || home === undefined) throw exportRefused('The tenant has no home to export.');
      const store = openStore(url);
      const there = await readManifest(store);
      if (there?.operation === operationId) return;
      if (there !== undefined)
        throw exportRefused(`There is an export at ${url} already. Choose another place, or remove it.`);
      await wanted();
      let done = (result.tables ?? []) as readonly WrittenPart[];
      const record = (tables: readonly WrittenPart[]) => {
        done = [...tables];
        return report(catalog, operationId, { url, tables });
      };
      const begins = await partBegins(endpointOf(plane, home), operationId, home.homeId);
      const until = clock() + exportsFor;
      const { isDone, schemaVersion } = await withConnection(endpointOf(plane, home), (connection) =>
        exportTables(
          connection,
          { ...home, keys: plane.keys },
          { store, done, until, record, wanted, begins, partBytes, clock },
        ),
      );
      if (!isDone)
        throw new TenantryError('unfinished', `${done.length} files are written, and there are more.`);
      // Somebody may have cleared the place between two files, and an offboarding removes the rows next.
      for (const { file } of done) {
        const written = await store.read(file);
        if (written === undefined)
          throw exportRefused(`${file} was written, and is gone from ${url}. Export again.`);
        written.destroy();
      }
      // Before there is a manifest: a run that finds one does nothing.
      await begins?.forget();
      await writeManifest(store, {
        format: 'tenantry-export/1',
        tenant: { id: tenant, slug: input.slug },
        operation: operationId,
        exportedAt: new Date(clock()).toISOString(),
        schemaVersion,
        tables: done.map(({ more: _, ...table }) => table),
      });
      await report(catalog, operationId, { url, tables: done });
    }),

  /** All of it in one transaction of the home. @throws TenantryError `import_refused` */
  importTenant: ({ plane, clock }, catalog, operation) =>
    unlessCancelled(catalog, operation, async (wanted) => {
      const { operationId, kind, tenant, input } = operation;
      const home = await homeInUse(catalog, tenant);
      if (kind !== 'import' || home === undefined)
        throw importRefused('The tenant has no home to take rows.');
      const store = openStore(input.url);
      // Its record was lost: the rows are there, whatever has become of their files since.
      if (
        await withConnection(endpointOf(plane, home), (connection) => wasImported(connection, operationId))
      ) {
        const known = await readManifest(store).catch(() => undefined);
        return report(catalog, operationId, { url: input.url, ...(known && { rows: rowsOf(known) }) });
      }
      const manifest = await readManifest(store);
      if (manifest === undefined)
        throw importRefused(
          `There is no manifest.json at ${input.url}. An export is in a folder of its own there, which its operation names; for other data write one: DEPLOYING.md, "Existing data".`,
        );
      if (manifest.tenant !== undefined && manifest.tenant.id !== tenant && !input.otherTenant)
        throw importRefused(
          `These are the rows of the tenant ${manifest.tenant.slug}. If they shall become this one's, say --other-tenant.`,
        );
      const rows = { ...home, keys: plane.keys };
      const imported = await withConnection(endpointOf(plane, home), (connection) =>
        importTables(connection, rows, store, manifest, operationId, {
          until: clock() + importsFor,
          wanted,
          clock,
        }),
      );
      // Another run was faster: the manifest says what it was.
      const counted = imported ?? rowsOf(manifest);
      await report(catalog, operationId, { url: input.url, rows: counted });
    }),

  async finish(_, catalog, { operationId }) {
    await endOperation(catalog, operationId, { state: 'done' });
  },

  /** What the files are is for whoever has brought them to mend, and nobody is woken for it. */
  async recordRefusal(_, catalog, { operationId }, failure) {
    await report(catalog, operationId, { refused: true });
    await endOperation(catalog, operationId, { state: 'failed', ...failureOf(failure) });
  },

  async recordFailure(_, catalog, { operationId }, failure) {
    await endOperation(catalog, operationId, { state: 'failed', ...failureOf(failure) });
  },
} as const satisfies Record<string, Step<Transferrer, TransferKind>>;

function rowsOf({ tables }: Manifest): Record<string, number> {
  const counted = tables.flatMap(({ table, rows }) => (rows === undefined ? [] : { table, rows }));
  const byTable = Map.groupBy(counted, ({ table }) => table);
  return Object.fromEntries(
    [...byTable].map(([table, parts]) => [table, parts.reduce((sum, { rows }) => sum + rows, 0)]),
  );
}

const homeInUse = (catalog: ControlConnection, tenant: TenantId): Promise<ReachableHome | undefined> =>
  homesOf(catalog, tenant).then((homes) => homes.find(({ isInUse }) => isInUse));
