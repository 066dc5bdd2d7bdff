-- Moves whose other home is lost. Run as tenancy_keeper.

alter table catalog.moves
  -- The operator has said so: it is not compared any more, and what can't be removed there is told and left.
  add column without_comparison boolean not null default false;
