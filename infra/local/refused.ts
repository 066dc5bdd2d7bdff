/** A start that can't be, for a reason that its message says in full. */
export class Refused extends Error {}
