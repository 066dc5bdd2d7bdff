import { preparePostgres } from '../../infra/local/postgres.ts';
import { testBase } from './cluster.ts';

/** `initdb` once, before several test files start clusters at the same time. */
export default function setup(): Promise<void> {
  return preparePostgres(testBase());
}
