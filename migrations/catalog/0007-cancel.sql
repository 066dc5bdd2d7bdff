-- What an operator wants of an export or an import that is under way: its step looks, and ends it. Run as tenancy_keeper.

alter table catalog.operations add column cancel_asked boolean not null default false;
