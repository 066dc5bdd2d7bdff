/** Connections that the login of one home may hold at once. */
export const connectionLimit = 20;
