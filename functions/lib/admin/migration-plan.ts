import { previewTargets, ringNames } from '../catalog/migration-plan.ts';
import { plannedFor } from '../lifecycle/migrate.ts';
import { type Rehearsal, rehearsePlan } from '../lifecycle/migrate-rehearsal.ts';
import { type StatementLock, statementLocks } from '../migrations/locks.ts';
import { filesUpTo } from '../migrations/release.ts';
import { type Admin, withCatalog } from './admin.ts';
import { mostNamed, type NewRunBody, requestOf, requireCanaries } from './migrations.ts';

export interface PlanView {
  readonly version: string;
  /** Homes that would be changed or held back, the shared tables of a cluster counted as one. */
  readonly total: number;
  readonly targets: readonly {
    readonly tenant: string | null;
    readonly ring: string;
    readonly from: string | null;
    readonly to: string;
    readonly pinned: string | null;
    /** It waits for this move: until when, and what ends that earlier. */
    readonly moving: string | null;
    /** It has a version that this release lacks, and keeps it. */
    readonly ahead: string | null;
  }[];
  /** What the files that some home lacks would lock. */
  readonly files: readonly { readonly file: string; readonly statements: readonly StatementLock[] }[];
  /** What an empty home of each strategy makes of them. */
  readonly rehearsals: readonly Rehearsal[];
}

/** What `runMigration` would do now, and what would refuse it. Nothing is changed. @throws TenantryError `migration_refused` */
export const planMigration = (admin: Admin, request: NewRunBody): Promise<PlanView> =>
  withCatalog(admin, async (catalog) => {
    const release = await admin.release();
    const plan = await plannedFor(catalog, release, requestOf(request));
    await requireCanaries(catalog, request.canaries);
    const { targets, total } = await previewTargets(catalog, plan, mostNamed);
    const from = targets.map((target) =>
      target.ahead !== null
        ? plan.files.length
        : target.from === null
          ? 0
          : (filesUpTo(release, target.from)?.length ?? 0),
    );
    const lacking = plan.files.slice(Math.min(plan.files.length, ...from));
    return {
      version: plan.version,
      total,
      targets: targets.map(({ slug, ring, from, to, pinned, moving, ahead }) => ({
        tenant: slug,
        ring: ringNames[ring]!,
        from,
        to,
        pinned,
        moving,
        ahead,
      })),
      files: lacking.map((file) => ({ file: file.name, statements: statementLocks(file) })),
      rehearsals: await rehearsePlan({ plane: admin.plane, release }, catalog, plan),
    };
  });
