import type { Queryable } from '../database/types.ts';

/** The catalog as tenancy_provisioner sees it. What a function over it changes, it changes by one statement, and again without harm. */
export type Catalog = Pick<Queryable, 'query'>;
