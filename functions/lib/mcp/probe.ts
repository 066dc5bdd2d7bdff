import { z } from 'zod';
import { defineTool, sql, ToolError } from './tool.ts';

/**
 * Tries a tenant's data path from the inside: writes a row, sees it, sees nobody else's, cannot write one for somebody
 * else. Never listed, and answered only to the product's own principals.
 */
export const probeTool = defineTool({
  name: 'tenancy_probe',
  title: 'Probe',
  description: "Tries the tenant's data path.",
  scopes: [],
  annotations: { readOnlyHint: false },
  input: z.object({ marker: z.string().min(1).max(100) }),
  output: z.object({ tenant: z.string(), strategyHolds: z.literal(true) }),
  async run({ marker }, { db, tenant }) {
    await db.transaction(async (tx) => {
      await tx.query(sql`insert into tenancy_probe (marker) values (${marker})`);
      const { rows } = await tx.query(sql`select tenant_id, marker from tenancy_probe`);
      if (!rows.some((row) => row.marker === marker))
        throw new ToolError('The row just written is not there.');
      if (rows.some((row) => row.tenant_id !== tenant.id))
        throw new ToolError("Another tenant's row is visible.");
      await tx.query(sql`delete from tenancy_probe where marker = ${marker}`);
    });
    const planted = await db
      .query(sql`insert into tenancy_probe (tenant_id, marker) values (gen_random_uuid(), ${marker})`)
      .then(
        () => true,
        (error: { sqlstate?: string }) => {
          if (error.sqlstate === '42501' || error.sqlstate === '23514') return false;
          // Busy, late or lost: whether the wall holds was not seen.
          throw error;
        },
      );
    if (planted) throw new ToolError("Another tenant's row could be written.");
    return { tenant: tenant.id, strategyHolds: true as const };
  },
});
